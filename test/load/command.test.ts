/** `headrace bench` as a process: what it prints, and how it ends. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { LoadResult } from "#src/load/result.js";
import { packageRoot } from "#src/os/addon.js";
import { startPeer } from "./peer.js";

const MAIN = fileURLToPath(new URL("dist/cli/main.js", `file://${packageRoot()}/`));

interface Bench {
  readonly child: ChildProcess;
  readonly lines: string[];
  readonly complaint: { text: string };
  /** Resolves at the next line that `wanted` accepts. */
  line(wanted: RegExp): Promise<void>;
  ended(): Promise<number | null>;
}

function startBench(...args: string[]): Bench {
  const child = spawn(process.execPath, [MAIN, "bench", ...args], { stdio: "pipe" });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on("line", (line) => lines.push(line));
  const complaint = { text: "" };
  child.stderr.on("data", (bytes) => {
    complaint.text += bytes;
  });
  const closed = once(child, "close");
  return {
    child,
    lines,
    complaint,
    async line(wanted) {
      while (!lines.some((line) => wanted.test(line))) await once(reader, "line");
    },
    async ended() {
      const [code] = (await closed) as [number | null];
      return code;
    },
  };
}

describe("headrace bench", { concurrency: 4 }, () => {
  test("--json: two events, then one object with every field", async () => {
    const peer = await startPeer(64);
    const bench = startBench(
      `127.0.0.1:${peer.port}`,
      "--connections",
      "3",
      "--duration",
      "200ms",
      "--warmup",
      "100ms",
      "--json",
    );
    assert.equal(await bench.ended(), 0);
    await peer.close();
    const [measuring, measured, ...rest] = bench.lines.map((line) => JSON.parse(line) as LoadResult);
    assert.deepEqual([measuring, measured], [{ event: "measuring" }, { event: "measured" }]);
    assert.equal(rest.length, 1);
    const [result] = rest;
    assert(result);
    assert.deepEqual(Object.keys(result), [
      ...[
        "connections",
        "messages",
        "bytes",
        "seconds",
        "perSecond",
        "latencyMs",
        "histogram",
        "cpuSeconds",
        "windows",
      ],
    ]);
    assert.deepEqual(Object.keys(result.messages), [
      ...["sent", "received", "verified", "mismatched", "outstanding", "unsent"],
    ]);
    assert.deepEqual(Object.keys(result.latencyMs ?? {}), ["p50", "p90", "p99", "p999", "p9999", "max"]);
    const { messages, seconds, perSecond, bytes, windows, cpuSeconds } = result;
    assert(seconds > 0.15 && seconds < 1);
    assert.equal(Math.round(perSecond), Math.round(messages.received / seconds));
    assert.equal(bytes.received, messages.received * 64);
    assert.equal(bytes.sent, messages.sent * 64);
    assert(Math.abs((windows.endedAt - windows.startedAt) / 1000 - seconds) < 0.05);
    assert(cpuSeconds > 0 && cpuSeconds <= seconds + 0.05);
  });

  test("under a pipe: a plain summary and no control characters", async () => {
    const peer = await startPeer(64);
    const bench = startBench(`127.0.0.1:${peer.port}`, "--duration", "200ms", "--warmup", "0s");
    assert.equal(await bench.ended(), 0);
    await peer.close();
    const text = bench.lines.join("\n");
    assert.match(text, /messages\/s over 0\.\d+ s/);
    assert.match(text, /latency +p50/);
    assert(!(text + bench.complaint.text).includes("\u001b"));
  });

  test("a wrong reply: exit code 1 and the reason in one line", async () => {
    const peer = await startPeer(64, (socket, message) => void socket.write(Buffer.alloc(message.length, "x")));
    const bench = startBench(`127.0.0.1:${peer.port}`, "--duration", "200ms", "--json");
    assert.equal(await bench.ended(), 1);
    await peer.close();
    assert.match(
      bench.complaint.text,
      /^headrace: 1 wrong replies, the first on connection 0, message 0, offset 0.*\n$/,
    );
    assert.equal((JSON.parse(bench.lines.at(-1) ?? "") as LoadResult).messages.mismatched, 1);
  });

  test("contradictions: exit code 2, nothing on stdout", async () => {
    const bench = startBench("127.0.0.1:9000", "--flood", "--churn");
    assert.equal(await bench.ended(), 2);
    assert.match(bench.complaint.text, /^headrace: --churn: contradicts --flood/);
    assert.deepEqual(bench.lines, []);
  });

  test("--hold: the result at once, the connections until stdin is closed", async () => {
    const peer = await startPeer(64);
    const bench = startBench(`127.0.0.1:${peer.port}`, "--hold", "--connections", "10", "--json");
    await bench.line(/"verified":10/);
    assert.equal(peer.sockets.size, 10);
    assert.equal(bench.child.exitCode, null);
    bench.child.stdin?.end();
    assert.equal(await bench.ended(), 0);
    assert.equal(bench.lines.length, 1);
    while (peer.sockets.size > 0) await new Promise(setImmediate);
    await peer.close();
  });

  test("Ctrl-C: the result so far", async () => {
    const peer = await startPeer(64);
    const bench = startBench(`127.0.0.1:${peer.port}`, "--duration", "1h", "--warmup", "0s", "--json");
    await bench.line(/measuring/);
    bench.child.kill("SIGINT");
    assert.equal(await bench.ended(), 0);
    await peer.close();
    assert.equal(bench.lines.length, 3);
    assert((JSON.parse(bench.lines[2] ?? "") as LoadResult).seconds < 60);
  });
});
