import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { type LoadFlags, readLoad } from "#src/load/flags.js";
import { shareOf } from "#src/load/options.js";

const TARGET = "127.0.0.1:9000";

function refused(flags: LoadFlags, option: string, words: RegExp, target = TARGET): void {
  assert.throws(
    () => readLoad(target, flags),
    (error) => {
      assert(error instanceof HeadraceError);
      assert.equal(error.code, "usage");
      assert.equal(error.fields.option, option);
      assert.match(error.message, words);
      return true;
    },
  );
}

test("without flags: one connection, a closed loop, lines of 64 bytes", () => {
  assert.deepEqual(readLoad(TARGET, {}), {
    host: "127.0.0.1",
    port: 9000,
    codec: "line",
    sizeBytes: 64,
    mode: "closed",
    connections: 1,
    pipeline: 1,
    tls: "off",
    close: "finish",
    warmupMs: 1_000,
    durationMs: 5_000,
    timeoutMs: 10_000,
    sources: [],
    processes: 1,
  });
});

test("every flag is read in its unit", () => {
  const options = readLoad("[::1]:9001", {
    codec: "frame",
    size: "1KiB",
    connections: "100",
    connectRate: "5000/s",
    rate: "20000",
    pipeline: "4",
    tls: true,
    close: "reset",
    duration: "2m",
    warmup: "0s",
    source: "::1, ::2",
    timeout: "500ms",
    processes: "2",
  });
  assert.deepEqual(options, {
    host: "::1",
    port: 9001,
    codec: "frame",
    sizeBytes: 1024,
    mode: "open",
    connections: 100,
    messagesPerSecond: 20_000,
    connectsPerSecond: 5_000,
    pipeline: 4,
    tls: "full",
    close: "reset",
    warmupMs: 0,
    durationMs: 120_000,
    timeoutMs: 500,
    sources: ["::1", "::2"],
    processes: 2,
  });
});

test("flags that contradict each other are refused, and both are named", () => {
  refused({ tlsResume: true }, "--tls-resume", /is for --churn/);
  refused({ rate: "10", flood: true }, "--flood", /contradicts --rate/);
  refused({ churn: true, hold: true }, "--hold", /contradicts --churn/);
  refused({ flood: true, pipeline: "2" }, "--pipeline", /contradicts --flood/);
  refused({ churn: true, pipeline: "2" }, "--pipeline", /contradicts --churn/);
  refused({ churn: true, connectRate: "5" }, "--connect-rate", /contradicts --churn/);
  refused({ hold: true, duration: "5s" }, "--duration", /contradicts --hold/);
  refused({ hold: true, warmup: "5s" }, "--warmup", /contradicts --hold/);
  refused({ connections: "2", processes: "3" }, "--processes", /3 processes cannot share 2 connections/);
});

test("values that are not allowed are refused, with what is", () => {
  refused({ codec: "rpc" }, "--codec", /"rpc" is not known; allowed: line, frame, raw/);
  refused({ size: "1" }, "--size", /out of range; allowed: 2 to/);
  refused({ size: "2MiB" }, "--size", /out of range/);
  refused({ connections: "0" }, "--connections", /out of range; allowed: 1 to/);
  refused({ connections: "many" }, "--connections", /not a whole number/);
  refused({ duration: "5" }, "--duration", /has no unit/);
  refused({ rate: "5/m" }, "--rate", /not a whole number/);
  refused({ close: "hang" }, "--close", /allowed: fin, reset/);
  refused({ source: "127.0.0.1,::1" }, "--source", /"::1" is not an IPv4 address/);
  refused({}, "HOST:PORT", /is not an address/, "nonsense");
  refused({}, "HOST:PORT", /port 0/, "127.0.0.1:0");
});

test("the shares of the processes add up, and their connection numbers are unique", () => {
  const options = readLoad(TARGET, { connections: "10", processes: "3", rate: "1000", connectRate: "100" });
  const shares = [0, 1, 2].map((index) => shareOf(options, index));
  const numbers = shares.flatMap(({ first, connections }) =>
    Array.from({ length: connections }, (_, at) => first + at),
  );
  assert.deepEqual(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const rate = shares.reduce((sum, share) => sum + (share.messagesPerSecond ?? 0), 0);
  assert.equal(Math.round(rate), 1000);
});
