/** `headrace bench`: puts a server under load and checks every reply. */
import type { Command } from "commander";
import { HeadraceError } from "../base/errors.ts";
import type { LoadFlags } from "../load/flags.ts";
import type { LoadOptions } from "../load/options.ts";
import type { LoadListener } from "../load/run.ts";

interface BenchOptions extends LoadFlags {
  readonly json?: boolean;
}

const HELP = `
The server must echo. Without --rate, --flood, --churn or --hold each connection sends its next message when the reply
to the last one came (closed loop): that finds the highest rate. For latencies use --rate at 50, 70 and 90 % of it: there
messages are due at fixed times, and one that a slow server holds up counts from the time it was due.

Sizes: 64, 16KiB. Durations: 500ms, 5s. Every reply is compared byte for byte.
Ctrl-C ends the run early, with the result so far. Exit code 1 when a connection failed, was reset or closed by the
server, a reply was wrong, or replies never came.

--json prints {"event":"measuring"} and {"event":"measured"} when the window begins and ends, then the result, one
object a line. --hold prints its result when every connection has its reply, and leaves when its input is closed.

Examples:
  $ headrace bench 127.0.0.1:9000 --connections 1000
  $ headrace bench 127.0.0.1:9000 --connections 1000 --rate 50000 --duration 30s
  $ headrace bench 127.0.0.1:9001 --codec frame --size 1KiB --connections 100 --pipeline 16
  $ headrace bench 127.0.0.1:9000 --churn --connections 100 --source 127.0.0.2,127.0.0.3
  $ headrace bench 127.0.0.1:9443 --tls --connections 1000
  $ headrace bench 127.0.0.1:9000 --hold --connections 10000 --connect-rate 5000`;

export function addBench(program: Command): void {
  program
    .command("bench")
    .description("put an echo server under load and check every reply")
    .argument("<host:port>", "where it listens: an IP address (or localhost) and a port")
    .option("--codec <codec>", "line, frame, raw or rpc (default: line)")
    .option("--size <bytes>", 'payload of a message; of a line, "\\n" included (default: 64)')
    .option("--connections <n>", "connections at once (default: 1)")
    .option("--connect-rate <n/s>", "new connections per second (default: as fast as they are accepted)")
    .option("--pipeline <n>", "messages without a reply on each connection (default: 1)")
    .option("--rate <n/s>", "open loop: messages due per second, over all connections")
    .option("--flood", "send as much as the sockets take")
    .option("--churn", "connect, one message, close, over and over")
    .option("--hold", "connect, one message, then stay idle until the input is closed")
    .option("--tls", "over TLS; the server's certificate is not looked at")
    .option("--tls-resume", "with --churn, over TLS: all connections but the first take up its session")
    .option("--close <how>", "how connections end: fin or reset (default: fin)")
    .option("--duration <time>", "length of the measured window (default: 5s)")
    .option("--warmup <time>", "load before the window (default: 1s)")
    .option("--timeout <time>", "for a connect; with --churn and --hold also for the reply (default: 10s)")
    .option("--source <addresses>", "addresses to connect from, a,b,c (default: the kernel's choice)")
    .option("--processes <n>", "load processes (default: 1)")
    .option("--json", "the result as JSON")
    .addHelpText("after", HELP)
    .action(async (target: string, { json = false, ...flags }: BenchOptions) => {
      const { readLoad } = await import("../load/flags.ts");
      await bench(readLoad(target, flags), json);
    });
}

/** Throws when the load could not run or the server failed it. */
async function bench(options: LoadOptions, json: boolean): Promise<void> {
  const { runLoad } = await import("../load/run.ts");
  const { faultOf } = await import("../load/result.ts");
  const { showResult } = await import("../load/summary.ts");
  const early = captureEnd();
  const progress = await progressListener(json);
  const listener: LoadListener = json ? { onEvent: (event) => print({ event }) } : progress;
  const { result, leave } = await runLoad(options, listener, early).finally(() => progress.erase());
  if (json) print(result);
  else process.stdout.write(showResult(options, result));
  if (options.mode === "hold" && !early.aborted) await inputClosed(early);
  await leave();
  const fault = faultOf(result);
  if (fault !== undefined) throw new HeadraceError("system", fault);
}

/** One line, written at once: pipes and files are synchronous on Linux. */
function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Aborted by the first SIGINT or SIGTERM; the second ends the process as ever. */
function captureEnd(): AbortSignal {
  const early = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => early.abort());
  return early.signal;
}

/** Shows how far the run has come, where somebody is looking. */
async function progressListener(json: boolean): Promise<LoadListener & { erase(): void }> {
  if (json || !process.stderr.isTTY || !process.stdout.isTTY) return { erase() {} };
  const { ERASE_PROGRESS, showProgress } = await import("../load/progress.ts");
  return {
    onProgress: (progress) => {
      process.stderr.write(showProgress(progress));
    },
    erase: () => {
      process.stderr.write(ERASE_PROGRESS);
    },
  };
}

function inputClosed(early: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    early.addEventListener("abort", () => resolve(), { once: true });
    process.stdin.on("error", () => resolve());
    process.stdin.on("close", () => resolve());
    process.stdin.on("end", () => resolve());
    process.stdin.resume();
  });
}
