/** What a terminal shows once the server is ready: what listens where, and what to try next. */
import { basename, relative } from "node:path";
import type { Ready } from "../primary/run.ts";
import { defaultControlPath, ownUid } from "../primary/runtime-directory.ts";
import { table } from "./table.ts";

type Paint = (text: string) => string;

function paint(code: number): Paint {
  return (text) => (process.env.NO_COLOR ? text : `\u001b[${code}m${text}\u001b[0m`);
}

/** How the user can call this program again. */
function programName(): string {
  const [, script = "headrace"] = process.argv;
  return basename(script) === "headrace" ? "headrace" : `node ${relative(process.cwd(), script)}`;
}

/** A line to one of the built-ins that answer lines, by bash alone: netcats differ in when they hang up. */
function tryLine({ listeners }: Ready): string | undefined {
  const lines = listeners.find(({ service }) => service === "echo-line" || service === "hash-line");
  const match = /^\[?(.*?)\]?:(\d+)$/.exec(lines?.address ?? "");
  if (!match) return undefined;
  const [, host = "", port = ""] = match;
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `bash -c 'exec 3<>/dev/tcp/${reachable}/${port}; echo hello >&3; head -n 1 <&3'`;
}

/** The block, as text. */
export function welcome(ready: Ready): string {
  const [bold, dim, green] = [paint(1), paint(2), paint(32)];
  const control = defaultControlPath(process.env, ownUid());
  const elsewhere = ready.control === control ? "" : ` --control ${ready.control}`;
  const name = programName();
  const line = tryLine(ready);
  const listeners = table(ready.listeners.map(({ name, address, service }) => [name, address, service]));
  const next = table([
    ...(line === undefined ? [] : [["try it", line]]),
    ["look at it", `${name} status${elsewhere}`],
    ["stop it", "Ctrl-C (twice: at once)"],
  ]);
  const about = table([
    ["workers", `${ready.workers}, primary process ${process.pid}`],
    ["configuration", ready.source],
    ["control socket", ready.control],
    ...(ready.admin ? [["admin server", `http://${ready.admin.address}`]] : []),
    ...(ready.admin?.tokenFile === undefined ? [] : [["its token is in", ready.admin.tokenFile]]),
  ]);
  const indented = (lines: readonly string[], color: Paint = (text) => text): string[] =>
    lines.map((text) => `  ${color(text)}`);
  return [
    "",
    `  ${bold(`headrace ${ready.version}`)} ${green("is ready")}`,
    "",
    ...indented(listeners),
    "",
    ...indented(about, dim),
    "",
    ...indented(next),
    "",
    "",
  ].join("\n");
}

export function printWelcome(ready: Ready): void {
  process.stdout.write(welcome(ready));
}
