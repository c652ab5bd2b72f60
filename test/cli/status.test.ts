import assert from "node:assert/strict";
import { test } from "node:test";
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS, type RejectReason } from "#src/base/reasons.js";
import { showStatus } from "#src/cli/status.js";
import type { ChangeStatus, ServerStatus, WorkerStatus } from "#src/control/status.js";

const TRAFFIC = {
  open: 5,
  accepted: 9,
  rejected: 0,
  requests: 12,
  shed: 3,
  late: 0,
  cancelled: 0,
  bytesReceived: 2048,
  bytesSent: 4096,
  bytesHeldIn: 0,
  bytesHeldOut: 512,
  published: 0,
  dropped: 0,
};
const worker = (index: number): WorkerStatus => ({
  ...TRAFFIC,
  index,
  pid: 200 + index,
  slot: index,
  state: "accepting",
  restarts: 1,
  movedIn: 1024,
  movedOut: 7,
  waiting: 2,
});

const STATUS: ServerStatus = {
  pid: 100,
  version: "1.2.3",
  state: "running",
  health: "ok",
  generation: 2,
  configVersion: 3,
  startedAt: "2030-01-01T00:00:00.000Z",
  uptimeMs: 3_600_000,
  control: "/run/control.sock",
  source: "headrace.yaml",
  slots: 2,
  listeners: [
    {
      name: "lines",
      address: "0.0.0.0:9000",
      service: "echo-line",
      open: 10,
      prefaces: 0,
      opened: 18,
      requests: 24,
      shed: 6,
      handshakes: 0,
      resumed: 0,
    },
  ],
  tls: [],
  workers: [worker(0), worker(1)],
  draining: [],
  totals: { ...TRAFFIC, restarts: 2 },
  unaccounted: 0,
  closes: Object.fromEntries(CLOSE_REASONS.map((reason) => [reason, 0])) as Record<CloseReason, number>,
  rejections: Object.fromEntries(REJECT_REASONS.map((reason) => [reason, 0])) as Record<RejectReason, number>,
};

test("the head says state, generation, configuration and health", () => {
  const [first, second, third] = showStatus(STATUS).split("\n");
  assert.equal(first, "headrace 1.2.3 is running, process 100, for 1h 0m");
  assert.equal(second, "generation 2, configuration 3, health: ok");
  assert.equal(third, "", "nothing was changed yet");
});

test("the last change is told with its age on the server's clock, a running one as such", () => {
  const at = "2030-01-01T00:59:18.000Z";
  const message = "reloaded: configuration 3, 2 workers replaced";
  const done = { kind: "reload", outcome: "done", message, at } as const;
  const line = (lastChange: ChangeStatus): string | undefined => showStatus({ ...STATUS, lastChange }).split("\n")[2];
  assert.equal(line(done), `last change 42s ago: ${message}`);
  const running = { ...done, kind: "upgrade", outcome: "running", message: "upgrade began" } as const;
  assert.equal(line(running), "changing for 42s: upgrade began");
  assert.equal(line({ ...done, at: "2030-01-01T01:00:01.000Z" }), `last change 0s ago: ${message}`, "never negative");
});

test("a failed change keeps its lines, and a degraded server says so", () => {
  const text = showStatus({
    ...STATUS,
    health: "degraded",
    lastChange: {
      kind: "reload",
      outcome: "failed",
      message: "reload failed: headrace.yaml:1: workers: …\nheadrace.yaml:2: limits: …",
      at: STATUS.startedAt,
    },
  });
  assert.match(text, /health: degraded/);
  assert.match(text, /^last change 1h 0m ago: reload failed: headrace\.yaml:1: .*\n {2}headrace\.yaml:2: /m);
});

test("workers show what moved, what was shed and what waits", () => {
  const text = showStatus(STATUS);
  assert.match(text, /restarts {2}moved in {2}moved out {2}shed {2}waiting$/m);
  assert.match(text, /^ +0 {2}200 .* 1 {6}1024 {10}7 {5}3 {8}2$/m);
});

test("processes that drain have a table of their own while there are any", () => {
  assert.doesNotMatch(showStatus(STATUS), /draining/);
  const since = "2030-01-01T00:59:50.000Z";
  const text = showStatus({ ...STATUS, draining: [{ pid: 90, generation: 1, open: 31, since }] });
  assert.match(text, /^draining {2}generation {2}open {2}for\n +90 {11}1 {4}31 {2}10s$/m);
});

test("requests that were late or cancelled are told once there are any", () => {
  assert.doesNotMatch(showStatus(STATUS), /late/);
  const text = showStatus({ ...STATUS, totals: { ...STATUS.totals, late: 4, cancelled: 1 } });
  assert.match(text, /^requests: 4 late, 1 cancelled$/m);
});

test("certificates are listed with their end, and why newer files are not used", () => {
  assert.ok(!showStatus(STATUS).includes("certificate"));
  const certificates = [{ file: "/etc/a.pem", names: ["a.example", "*.a.example"], notAfter: "2030-02-01T00:00:00Z" }];
  const problem = { message: "/etc/a.key does not exist", at: "2030-01-01T00:30:00.000Z" };
  const entry = { listener: "secure", certificates, loadedAt: "2030-01-01T00:00:00.000Z" };
  const lines = showStatus({ ...STATUS, tls: [{ ...entry, problem }] }).split("\n");
  const at = lines.findIndex((line) => /^TLS +certificate +names +expires/.test(line));
  assert.match(lines[at + 1] ?? "", /^secure +\/etc\/a\.pem +a\.example \*\.a\.example +2030-02-01T00:00:00Z/);
  assert.equal(
    lines[at + 2],
    "listener secure keeps its certificate since 2030-01-01T00:30:00.000Z: /etc/a.key does not exist",
  );
});
