/** The event a second: what it says of a status and a snapshot, and that it stays small. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pageEvent } from "#src/admin/page-events.js";
import { MAX_WORKERS } from "#src/base/settings.js";
import { listenerMetrics, metricsSnapshot, NO_TRAFFIC, serverStatus, workerMetrics, workerStatus } from "./figures.js";

test("a worker's figures are those of its slot, also when the slots stand in another order", () => {
  const status = serverStatus({ workers: [workerStatus(0, { open: 7 }), workerStatus(1, { open: 8 })] });
  const loopDelay = { mean: 0.001, p99: 0.02, max: 0.3 };
  const metrics = metricsSnapshot({
    workers: [workerMetrics(1, { generation: 2, loopDelay, inFlight: 3, oldestSeconds: 0.5 }), workerMetrics(0)],
    listeners: [
      listenerMetrics(0, { requests: 5 }),
      listenerMetrics(1, { requests: 6 }),
      listenerMetrics(1, { requests: 7 }),
    ],
  });
  const [first, second] = pageEvent(status, metrics, 0).workers;
  assert.deepEqual([first?.open, first?.generation, first?.requests, first?.inFlight], [7, 1, 5, 0]);
  assert.deepEqual([second?.open, second?.generation, second?.requests, second?.inFlight], [8, 2, 13, 3]);
  assert.deepEqual([second?.loopDelayMs, second?.loopDelayMaxMs, second?.oldestMs], [20, 300, 500]);
});

test("a listener's durations are the sum over its slots, and no other listener's", () => {
  const buckets = (...counts: number[]) => ({ buckets: counts, sum: 1 });
  const metrics = metricsSnapshot({
    listeners: [
      listenerMetrics(0, { duration: buckets(1, 2), accepted: 3 }),
      listenerMetrics(1, { duration: buckets(10, 0, 5), accepted: 4 }),
      listenerMetrics(1, { listener: "other", duration: buckets(100, 100), accepted: 100 }),
    ],
  });
  const [listener] = pageEvent(serverStatus(), metrics, 0).listeners;
  assert.deepEqual(listener?.durations.slice(0, 4), [11, 2, 5, 0]);
  assert.equal(listener?.durations.length, 18);
  assert.equal(listener?.accepted, 7);
});

test("reasons that never happened are left out; those that did are summed", () => {
  const status = serverStatus();
  const event = pageEvent(
    {
      ...status,
      closes: { ...status.closes, "peer-closed": 3, drain: 2 },
      rejections: { ...status.rejections, rate: 4 },
      totals: { ...NO_TRAFFIC, rejected: 4, restarts: 0 },
    },
    metricsSnapshot({
      workers: [0, 1].map((slot) =>
        workerMetrics(slot, { acceptErrors: { ...workerMetrics(slot).acceptErrors, EMFILE: slot + 1 } }),
      ),
    }),
    0,
  );
  assert.deepEqual(event.closes, { "peer-closed": 3, drain: 2 });
  assert.equal(event.totals.closed, 5);
  assert.deepEqual(event.rejections, { rate: 4 });
  assert.deepEqual(event.acceptErrors, { EMFILE: 3 });
});

test("a worker that nobody has counted yet is shown all the same", () => {
  const event = pageEvent(serverStatus({ generation: 5 }), metricsSnapshot({ workers: [], listeners: [] }), 0);
  assert.deepEqual(
    event.workers.map(({ slot, generation }) => [slot, generation]),
    [
      [0, 5],
      [1, 5],
    ],
  );
});

test("the first certificate to end, and what is wrong with the others", () => {
  const certificate = (notAfter: string) => ({ file: "c.pem", names: [], notAfter });
  const { tls } = pageEvent(
    serverStatus({
      tls: [
        { listener: "a", certificates: [certificate("2027-03-01T00:00:00Z")], loadedAt: "" },
        {
          ...{ listener: "b", certificates: [certificate("2027-01-01T00:00:00Z")], loadedAt: "" },
          problem: { message: "no key", at: "" },
        },
      ],
    }),
    metricsSnapshot(),
    0,
  );
  assert.deepEqual(tls, { notAfter: "2027-01-01T00:00:00Z", problems: ["b: no key"] });
});

test(`${MAX_WORKERS} workers and a hundred thousand connections make an event of less than 128 KiB`, () => {
  const slots = Array.from({ length: MAX_WORKERS }, (_, slot) => slot);
  const busy = { open: 400, requests: 1e9, bytesReceived: 1e12, bytesSent: 1e12, cpuPercent: 99.9, memoryBytes: 1e9 };
  const event = pageEvent(
    serverStatus({ workers: slots.map((slot) => workerStatus(slot, busy)) }),
    metricsSnapshot({ workers: slots.map((slot) => workerMetrics(slot, { heapBytes: 123_456_789 })) }),
    0,
  );
  assert.ok(JSON.stringify(event).length < 128 << 10, `${JSON.stringify(event).length}`);
});
