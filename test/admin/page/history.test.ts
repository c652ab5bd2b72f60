/** Ten minutes of figures: rates, gaps, and no more after a day. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HISTORY_LENGTH, History } from "#src/admin/page/history.js";
import { type PageEvent, pageEvent } from "#src/admin/page-events.js";
import { metricsSnapshot, NO_TRAFFIC, serverStatus } from "../figures.js";

function event(second: number, requests: number, own: { pid?: number; uptimeMs?: number } = {}): PageEvent {
  const status = serverStatus({ uptimeMs: second * 1000, ...own, totals: { ...NO_TRAFFIC, requests, restarts: 0 } });
  return pageEvent(status, metricsSnapshot(), 1_000_000 + second * 1000);
}

test("rates are differences over the server's own time, and the first has none", () => {
  const history = new History();
  assert.equal(history.push(event(1, 500))?.requests, null);
  assert.equal(history.push(event(2, 600))?.requests, 100);
  assert.equal(history.push(event(4, 700))?.requests, 50);
});

test("another primary, or counts that went back: a gap instead of a false rate", () => {
  const history = new History();
  history.push(event(1, 500));
  assert.equal(history.push(event(2, 100))?.requests, null);
  assert.equal(history.push(event(3, 900, { pid: 43 }))?.requests, null);
  assert.equal(history.push(event(4, 950, { pid: 43 }))?.requests, 50);
});

test("where nothing was heard the lines are interrupted", () => {
  const history = new History();
  history.push(event(1, 0));
  history.push(event(2, 10));
  history.push(event(60, 20));
  assert.deepEqual(history.series("open"), [0, 0, null, 0]);
  assert.equal(history.times.length, 4);
});

test("a stream that begins anew repeats what was said: that is no new moment", () => {
  const history = new History();
  history.push(event(1, 500));
  assert.equal(history.push(event(1.01, 510)), undefined);
  assert.equal(history.push(event(2, 600))?.requests, 100);
  assert.equal(history.times.length, 2);
});

test("time never runs backwards", () => {
  const history = new History();
  history.push(event(10, 0));
  history.push({ ...event(11, 0), atMs: 0 });
  const [first = 0, second = 0] = history.times;
  assert.ok(second > first);
});

test("a day is as long as ten minutes, also one of outages", () => {
  const history = new History();
  for (let second = 0; second < 5 * HISTORY_LENGTH; second++) history.push(event(second, second * 10));
  for (let second = 5 * HISTORY_LENGTH; second < 20 * HISTORY_LENGTH; second += 10) history.push(event(second, second));
  assert.equal(history.times.length, HISTORY_LENGTH);
  for (const name of ["open", "requests", "p99", "memory"] as const) {
    assert.equal(history.series(name).length, HISTORY_LENGTH, name);
  }
});
