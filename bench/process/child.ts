/**
 * Every process that the comparison starts: servers and load generators. None outlives it. An ordinary end is SIGTERM
 * to the root and, after a grace, SIGKILL to what is left of its tree. When the harness itself ends early (an error, a
 * signal) the exit hook kills all trees, and when it is killed the kernel does (setpriv --pdeathsig), after which a
 * server's workers see their primary gone.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { killSurvivors, processTree } from "./tree.ts";

interface Command {
  argv: readonly string[];
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

export interface Child {
  readonly pid: number;
  /** Resolves with what to tell a reader about its end: "exit 1", "SIGKILL". */
  readonly ended: Promise<string>;
  /** The last of what it wrote to stderr. */
  complaint(): string;
  closeInput(): void;
  /** Ends it with its descendants. Returns how many of them had to be killed. */
  end(): Promise<number>;
}

const GRACE_MS = 5_000;
const COMPLAINT_CHARS = 2_000;
const living = new Set<number>();

process.on("exit", () => {
  for (const pid of living) killSurvivors(processTree(pid));
});
for (const [signal, number] of [
  ["SIGHUP", 1],
  ["SIGINT", 2],
  ["SIGTERM", 15],
] as const) {
  process.on(signal, () => process.exit(128 + number));
}

/** Calls `onLine` for each line as soon as its newline has arrived. */
function readLines(child: ChildProcess, onLine: (line: string) => void): void {
  let rest = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  });
}

/** Throws when the program cannot be started. */
export async function startChild(command: Command, onLine: (line: string) => void): Promise<Child> {
  const [program = "", ...args] = command.argv;
  const child = spawn(program, args, { stdio: "pipe", env: command.env ?? process.env, cwd: command.cwd });
  const { pid } = child;
  if (pid !== undefined) living.add(pid); // At once: the exit hook must know it.
  await once(child, "spawn");
  return superviseChild(child, onLine);
}

function superviseChild(child: ChildProcessWithoutNullStreams, onLine: (line: string) => void): Child {
  const pid = child.pid ?? 0; // It has one, having been spawned.
  // "close" and not "exit": by then its last lines have been read.
  const ended = once(child, "close").then(([code, signal]) => {
    living.delete(pid);
    return signal === null ? `exit ${code}` : String(signal);
  });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-COMPLAINT_CHARS);
  });
  child.stdin.on("error", () => {}); // It ended before its input did.
  readLines(child, onLine);
  return {
    pid,
    ended,
    complaint: () => complaint.trim(),
    closeInput: () => child.stdin.end(),
    end: () => endTree(child, pid, ended),
  };
}

async function endTree(child: ChildProcess, pid: number, ended: Promise<string>): Promise<number> {
  const running = child.exitCode === null && child.signalCode === null;
  const tree = running ? processTree(pid) : [];
  if (running) {
    const exit = once(child, "exit"); // Not "close", which a descendant that holds its stdout would delay.
    child.kill("SIGTERM");
    const grace = setTimeout(() => killSurvivors(processTree(pid)), GRACE_MS);
    await exit;
    clearTimeout(grace);
  }
  const killed = killSurvivors(tree);
  await ended;
  return killed;
}
