/** A network and mount namespace of a test's own: what is set, mounted or bound there is nobody else's. Needs root. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import type { Outcome } from "./command.js";
import { within } from "./until.js";

export interface Namespace {
  /** Runs a command in it, to its end. */
  run(command: string, ...args: string[]): Outcome;
  /** Runs a line of shell in it that must not fail; its output. */
  shell(script: string): string;
}

const PATIENCE_MS = 20_000;

/** Lives until the test ends. */
export async function makeNamespace(t: TestContext): Promise<Namespace> {
  // It holds the namespaces, and goes when its input does, also when the test's process is killed.
  const holder = spawn("unshare", ["--net", "--mount", "sh", "-c", "echo up; read _"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const gone = once(holder, "exit");
  t.after(async () => {
    holder.stdin.end();
    await gone;
  });
  await within("the namespace to be there", once(holder.stdout, "data"));
  // unshare becomes the shell, so the pid is that of a process inside.
  const enter = ["--target", String(holder.pid), "--net", "--mount"];
  const run = (command: string, ...args: string[]): Outcome => {
    const { status, stdout, stderr } = spawnSync("nsenter", [...enter, command, ...args], {
      encoding: "utf8",
      timeout: PATIENCE_MS,
    });
    return { code: status, stdout, stderr };
  };
  return {
    run,
    shell(script) {
      const { code, stdout, stderr } = run("sh", "-euc", script);
      if (code !== 0) throw new Error(`${script}: exit code ${code}: ${stderr}`);
      return stdout;
    },
  };
}
