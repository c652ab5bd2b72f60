/** What `headrace top` makes of answers of `status`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS, type RejectReason } from "#src/base/reasons.js";
import { topFigures } from "#src/cli/top-figures.js";
import { sorted, type ViewState, viewLine, viewOnce, viewTop } from "#src/cli/top-view.js";
import type { ServerStatus, WorkerStatus } from "#src/control/status.js";

const NO_TRAFFIC = {
  ...{ open: 0, accepted: 0, rejected: 0, requests: 0, shed: 0, late: 0, cancelled: 0, logDropped: 0 },
  ...{ bytesReceived: 0, bytesSent: 0, bytesHeldIn: 0, bytesHeldOut: 0, published: 0, dropped: 0 },
};

const worker = (index: number, more: Partial<WorkerStatus> = {}): WorkerStatus => ({
  ...NO_TRAFFIC,
  ...{ index, slot: index, pid: 200 + index, state: "accepting", restarts: 0, movedIn: 0, movedOut: 0, waiting: 0 },
  ...more,
});

const zeros = <Reason extends string>(reasons: readonly Reason[]): Record<Reason, number> =>
  Object.fromEntries(reasons.map((reason) => [reason, 0])) as Record<Reason, number>;

const status = (uptimeMs: number, more: Partial<ServerStatus> = {}): ServerStatus => ({
  ...{ pid: 100, version: "1.2.3", state: "running", health: "ok", generation: 1, configVersion: 1, uptimeMs },
  ...{ startedAt: "2030-01-01T00:00:00.000Z", control: "/c", source: "-", slots: 1, tls: [], draining: [] },
  listeners: [],
  workers: [],
  totals: { ...NO_TRAFFIC, restarts: 0 },
  unaccounted: 0,
  closes: zeros<CloseReason>(CLOSE_REASONS),
  rejections: zeros<RejectReason>(REJECT_REASONS),
  ...more,
});

const state = (figures: ViewState["figures"], more: Partial<ViewState> = {}): ViewState => ({
  ...{ figures, sort: "worker", reversed: false, paused: false, problem: undefined },
  ...more,
});

test("rates are differences over the server's own time", () => {
  const before = status(10_000, {
    workers: [worker(0, { requests: 100, bytesReceived: 1000 })],
    totals: { ...NO_TRAFFIC, restarts: 0, requests: 100 },
  });
  const after = status(12_000, {
    workers: [worker(0, { requests: 300, bytesReceived: 3000 })],
    totals: { ...NO_TRAFFIC, restarts: 0, requests: 300 },
    closes: { ...before.closes, "idle-timeout": 3, "peer-closed": 8 },
    rejections: { ...before.rejections, rate: 1 },
  });
  const figures = topFigures(before, after);
  assert.equal(figures.rates?.requests, 100);
  assert.deepEqual(figures.workers[0]?.rates, {
    accepted: 0,
    requests: 100,
    shed: 0,
    bytesReceived: 1000,
    bytesSent: 0,
  });
  assert.deepEqual(figures.closes, [
    ["peer-closed", 4],
    ["idle-timeout", 1.5],
  ]);
  assert.deepEqual(figures.rejections, [["rate", 0.5]]);
});

test("where there is nothing to compare with there is no rate, and never a negative one", () => {
  const one = status(10_000, {
    workers: [worker(0, { requests: 100 })],
    totals: { ...NO_TRAFFIC, restarts: 0, requests: 100 },
  });
  assert.equal(topFigures(undefined, one).rates, undefined);
  // Another primary, after an upgrade: it counts from 0.
  assert.equal(topFigures(one, status(1_000, { pid: 101 })).rates, undefined);
  // A worker that was replaced.
  const replaced = status(11_000, { workers: [worker(0, { pid: 999, requests: 1 })], totals: one.totals });
  assert.equal(topFigures(one, replaced).workers[0]?.rates, undefined);
  assert.equal(topFigures(one, replaced).rates?.requests, 0);
  // Twice the same answer.
  assert.equal(topFigures(one, one).rates, undefined);
  assert.match(viewLine(topFigures(undefined, one)), /^ +0 +- +- +- /);
});

test("workers are sorted as asked, the largest first, by number where they are equal", () => {
  const workers = [
    worker(0, { open: 5, cpuPercent: 1 }),
    worker(1, { open: 9, cpuPercent: 90 }),
    worker(2, { open: 5 }),
  ];
  const all = topFigures(undefined, status(1, { workers })).workers;
  const order = (sort: ViewState["sort"], reversed = false): number[] =>
    sorted(all, sort, reversed).map(({ status: { index } }) => index);
  assert.deepEqual(order("worker"), [0, 1, 2]);
  assert.deepEqual(order("worker", true), [2, 1, 0]);
  assert.deepEqual(order("open"), [1, 0, 2]);
  assert.deepEqual(order("CPU"), [1, 0, 2]);
  assert.deepEqual(order("open", true), [2, 0, 1]);
});

test("no frame is wider or longer than its room, however many workers there are", () => {
  const workers = Array.from({ length: 256 }, (_, index) =>
    worker(index, { bytesReceived: 2 ** 50, requests: 2 ** 50 }),
  );
  const listeners = Array.from({ length: 64 }, (_, index) => ({
    ...{ name: `listener-${index}`, address: "[::]:65535", service: "x".repeat(300) },
    ...{ open: 1, prefaces: 0, opened: 1, requests: 1, shed: 0, handshakes: 0, resumed: 0 },
  }));
  const lastChange = {
    kind: "reload",
    outcome: "failed",
    message: "reload failed:\n\u001b[31m…".repeat(50),
    at: "2030-01-01T00:00:00.000Z",
  } as const;
  const figures = topFigures(undefined, status(1_000, { workers, listeners, lastChange }));
  for (const columns of [1, 20, 80, 200]) {
    for (const rows of [1, 2, 5, 10, 24, 60]) {
      const lines = viewTop(state(figures, { problem: "p".repeat(500) }), { columns, rows }, true);
      assert.ok(lines.length <= rows, `${lines.length} lines in ${rows}`);
      for (const { text } of lines) {
        assert.ok([...text].length <= columns, `${text.length} columns in ${columns}`);
        assert.doesNotMatch(text, /\p{Cc}/u);
      }
    }
  }
  const texts = viewTop(state(figures), { columns: 120, rows: 40 }, true).map(({ text }) => text);
  assert.ok(texts.some((text) => /^… and \d+ more workers$/.test(text)));
  assert.ok(texts.some((text) => /^… and \d+ more listeners$/.test(text)));
  assert.equal(viewOnce(figures).split("\n").length > 320, true, "a pipe gets them all");
});

test("what is wrong stands out", () => {
  const workers = [worker(0), worker(1, { state: "starting" })];
  const lines = viewTop(
    state(topFigures(undefined, status(1, { workers, health: "degraded" }))),
    { columns: 80, rows: 24 },
    false,
  );
  const alarm = lines.find(({ emphasis }) => emphasis === "alarm");
  assert.match(alarm?.text ?? "", /^health degraded {2}1 of 2 workers accept/);
});
