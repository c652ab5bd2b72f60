/** What testDatagrams does not show: what is kept of handlers in flight, a reload meanwhile, and `from` in production. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { pino } from "pino";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import { EarlySocket } from "#src/connection/datagram-socket.js";
import { DatagramEndpoint } from "#src/connection/datagrams.js";
import { FakeDatagrams } from "#src/connection/fake-datagrams.js";
import { Gate } from "#src/connection/gate.js";
import { Timing } from "#src/connection/timing.js";
import { endWords } from "#src/engine/datagram-end.js";
import { ROW_CELLS } from "#src/os/scoreboard.js";
import { type AnyUdpService, type DatagramSource, defineUdpService } from "#src/service/udp.js";
import { until } from "../support/until.js";

/** An endpoint as a worker makes it, in production, with a clock of its own. */
class Tested {
  now = 1_000_000;
  readonly transport: FakeDatagrams = new FakeDatagrams(DEFAULT_LIMITS.amplification as number, () => this.now);
  readonly socket: EarlySocket = new EarlySocket(0);
  readonly endpoint: DatagramEndpoint;

  constructor(service: AnyUdpService, requestMs: number) {
    this.endpoint = new DatagramEndpoint({
      listener: "test",
      index: 0,
      service,
      env: undefined,
      transport: this.transport,
      now: () => this.now,
      limits: DEFAULT_LIMITS,
      timeouts: { ...DEFAULT_TIMEOUTS, request: requestMs },
      row: new Float64Array(ROW_CELLS),
      timing: new Timing(),
      gate: new Gate(),
      log: pino({ level: "silent" }),
      poison: false,
    });
    this.socket.attach(this.endpoint);
  }

  receive(text: string, host = "192.0.2.1"): void {
    this.endpoint.onDatagram(this.transport.arrive(endWords(host, 40_000, 0), Buffer.from(text)), text.length);
  }

  tick(ms: number): void {
    this.now += ms;
    this.endpoint.tick(this.now);
  }
}

test("a handler that hangs keeps nothing of those that have ended", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const ended: WeakRef<DatagramSource>[] = [];
  const tested = new Tested(
    defineUdpService({
      onDatagram(message, from) {
        if (message.toString() === "hang") return new Promise<undefined>(() => {});
        ended.push(new WeakRef(from));
        return Promise.resolve("done");
      },
    }),
    3_600_000,
  );
  tested.receive("hang");
  for (let nth = 0; nth < 100; nth++) tested.receive("quick");
  await until("all others have ended", () => tested.endpoint.inFlight === 1);
  tested.receive("hang");
  await until("nothing of them is kept", () => {
    collect();
    return ended.every((from) => from.deref() === undefined);
  });
  assert.equal(tested.endpoint.inFlight, 2);
});

test("timeouts.request is shortened: handlers that begin then are on time, those before keep theirs", () => {
  const late: string[] = [];
  const tested = new Tested(
    defineUdpService({
      onDatagram: () => new Promise<undefined>(() => {}),
      onError: (_, { host }) => void late.push(host),
    }),
    60_000,
  );
  tested.receive("before", "192.0.2.1");
  tested.endpoint.configure({ limits: DEFAULT_LIMITS, timeouts: { ...DEFAULT_TIMEOUTS, request: 1_000 } });
  tested.receive("after", "192.0.2.2");
  tested.tick(999);
  assert.deepEqual(late, []);
  tested.tick(1);
  assert.deepEqual(late, ["192.0.2.2"]);
  tested.receive("after", "192.0.2.3");
  tested.tick(58_999);
  assert.deepEqual(late, ["192.0.2.2", "192.0.2.3"]);
  tested.tick(1);
  assert.deepEqual(late, ["192.0.2.2", "192.0.2.3", "192.0.2.1"]);
  assert.equal(tested.endpoint.inFlight, 0);
});

test("a `from` that is used when no handler runs throws, whatever is asked of it", async () => {
  const reused: DatagramSource[] = [];
  const tested = new Tested(
    defineUdpService({
      onDatagram(message, from) {
        reused.push(from);
        assert.equal(from.host, "192.0.2.1");
        return message.toString() === "later" ? Promise.resolve() : undefined;
      },
    }),
    60_000,
  );
  tested.receive("now");
  const [from] = reused as [DatagramSource];
  const uses = {
    host: () => from.host,
    port: () => from.port,
    verified: () => from.verified,
    verify: () => from.verify(),
    keep: () => from.keep(),
    send: () => from.send("x"),
    "socket.send": () => tested.socket.send("x", from),
  };
  for (const [use, throws] of Object.entries(uses)) {
    assert.throws(throws, { code: "service-invalid", message: /valid until its handler returns/ }, use);
  }
  // One whose handler has returned a promise is its own.
  tested.receive("later");
  await until("it has ended", () => tested.endpoint.inFlight === 0);
  assert.deepEqual([reused[1]?.host, reused[1]?.port, reused[1]?.keep().host], ["192.0.2.1", 40_000, "192.0.2.1"]);
});
