/** What happened between two events, in words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { changesBetween } from "#src/admin/page/changes.js";
import { type PageEvent, pageEvent } from "#src/admin/page-events.js";
import type { ServerStatus } from "#src/control/status.js";
import { metricsSnapshot, serverStatus, workerStatus } from "../figures.js";

function event(own: Partial<ServerStatus> = {}): PageEvent {
  return pageEvent(serverStatus(own), metricsSnapshot(), 1_000_000);
}

function told(before: PageEvent | undefined, now: PageEvent): string[] {
  return changesBetween(before, now).map(({ kind, text }) => `${kind}: ${text}`);
}

const change = (outcome: "running" | "done" | "failed", message: string, at = "2026-01-01T00:00:00.000Z") =>
  ({ kind: "reload", outcome, message, at }) as const;

test("nothing happened: nothing to tell", () => {
  assert.deepEqual(told(event(), event()), []);
  assert.deepEqual(told(undefined, event()), []);
});

test("a change's beginning and its end", () => {
  const running = event({ lastChange: change("running", "reload began") });
  assert.deepEqual(told(event(), running), ["change: reload began"]);
  assert.deepEqual(told(running, running), []);
  assert.deepEqual(told(running, event({ lastChange: change("done", "reloaded") })), ["done: reloaded"]);
  assert.deepEqual(told(running, event({ lastChange: change("failed", "no") })), ["failed: no"]);
});

test("workers with new processes; many of them in one line", () => {
  const workers = (count: number, pid: number) =>
    Array.from({ length: count }, (_, slot) => workerStatus(slot, { pid: pid + slot }));
  assert.deepEqual(
    told(event({ workers: workers(2, 100) }), event({ workers: [...workers(1, 100), workerStatus(1, { pid: 7 })] })),
    ["process: worker 1: process 101 → 7"],
  );
  assert.deepEqual(told(event({ workers: workers(9, 100) }), event({ workers: workers(9, 200) })), [
    "process: 9 workers have new processes",
  ]);
  assert.deepEqual(told(event({ workers: workers(2, 100) }), event({ workers: workers(3, 100) })), [
    "process: workers: 2 → 3",
  ]);
});

test("another generation, another start, another health, and who has left", () => {
  assert.deepEqual(told(event(), event({ generation: 2, pid: 43 })), ["change: generation 2 serves (process 43)"]);
  assert.deepEqual(told(event(), event({ pid: 43 })), ["change: the server was started again (process 43)"]);
  assert.deepEqual(told(event(), event({ health: "degraded" })), ["failed: health: degraded"]);
  const draining = [{ pid: 7, generation: 1, open: 2, since: "2026-01-01T00:00:00.000Z" }];
  assert.deepEqual(told(event({ draining }), event()), ["process: process 7 has drained and left"]);
});
