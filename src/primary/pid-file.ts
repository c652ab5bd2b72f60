/** The primary's pid in a file, for tools that want one: appears complete, and only its own writer removes it. */
import { readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { HeadraceError, messageOf } from "../base/errors.ts";

/** Call after the signal handlers stand: whoever reads the file may send a signal at once. */
export function writePidFile(path: string): void {
  const draft = `${path}.${process.pid}`;
  try {
    rmSync(draft, { force: true });
    // wx: nobody's link is followed.
    writeFileSync(draft, `${process.pid}\n`, { mode: 0o644, flag: "wx" });
    renameSync(draft, path);
  } catch (cause) {
    throw new HeadraceError("config-invalid", `pidFile: ${path} cannot be written: ${messageOf(cause)}`, {
      option: "pidFile",
      given: path,
    });
  }
}

/** Removes it, unless another process has put its own there. */
export function removePidFile(path: string): void {
  try {
    if (readFileSync(path, "utf8").trim() === String(process.pid)) unlinkSync(path);
  } catch {
    // Somebody has removed it.
  }
}
