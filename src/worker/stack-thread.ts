/** The thread of stack-watch.ts. */
import { writeSync } from "node:fs";
import { type Debugger, Session } from "node:inspector";
import { setTimeout as pause } from "node:timers/promises";
import { workerData } from "node:worker_threads";
import { writeLogLine } from "../base/log-line.ts";
import { BEAT, type StackThreadData } from "./stack-watch.ts";

/** The stack is logged when this part of the time until the kill has passed. */
const EARLY = 0.8;
const LOOK_MS = 500;
/** V8 answers when the main thread next runs JavaScript: at once in a loop, never in a system call. */
const ANSWER_MS = 1_000;
const STDOUT = 1;
const ERROR_LEVEL = 50;

const { beat, worker, pretty, file } = workerData as StackThreadData;
const words = new Int32Array(beat);

function formatFrame({ functionName, location }: Debugger.CallFrame, scripts: ReadonlyMap<string, string>): string {
  const { scriptId, lineNumber, columnNumber = 0 } = location;
  const place = `${scripts.get(scriptId) ?? "unknown"}:${lineNumber + 1}:${columnNumber + 1}`;
  return `    at ${functionName || "(anonymous)"} (${place})`;
}

/** Where the main thread is; nothing when it does not say. */
function stackOfMain(): Promise<string | undefined> {
  const session = new Session();
  session.connectToMainThread();
  const scripts = new Map<string, string>();
  session.on("Debugger.scriptParsed", ({ params }) => scripts.set(params.scriptId, params.url));
  return new Promise((resolve) => {
    const settle = (stack: string | undefined): void => {
      session.disconnect();
      resolve(stack);
    };
    const timer = setTimeout(() => settle(undefined), ANSWER_MS);
    session.once("Debugger.paused", ({ params }) => {
      clearTimeout(timer);
      session.post("Debugger.resume");
      settle(params.callFrames.map((frame) => formatFrame(frame, scripts)).join("\n"));
    });
    session.post("Debugger.enable");
    session.post("Debugger.pause");
  });
}

function log(stillMs: number, stack: string | undefined): void {
  const msg = `the event loop has stood still for ${(stillMs / 1000).toFixed(1)} s`;
  const told = stack ?? "    (not in JavaScript: no stack)";
  const line = { level: ERROR_LEVEL, time: Date.now(), pid: process.pid, worker, stillMs, stack: told, msg };
  try {
    if (pretty && file === undefined) writeSync(STDOUT, `worker ${worker}: ${msg}\n${told}\n`);
    else writeLogLine(line, file);
  } catch {
    // Nobody reads the log.
  }
}

let seen = -1;
let since = 0;
let told = false;
for (;;) {
  await pause(LOOK_MS);
  const count = Atomics.load(words, BEAT.count);
  const limit = Atomics.load(words, BEAT.hangMs);
  if (count !== seen) {
    seen = count;
    since = performance.now();
    told = false;
    continue;
  }
  const stillMs = Math.round(performance.now() - since);
  if (told || limit === 0 || stillMs < EARLY * limit) continue;
  told = true;
  log(stillMs, await stackOfMain());
}
