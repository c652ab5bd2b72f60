/** What stands before a service, without a socket and with a clock that the test moves. */
import assert from "node:assert/strict";
import { constants } from "node:os";
import { test } from "node:test";
import fc from "fast-check";
import { pino } from "pino";
import { HeadraceError } from "#src/base/errors.js";
import { CLOSE_REASONS, type CloseReason, type RejectReason } from "#src/base/reasons.js";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS, type ProxyProtocol, type Timeouts } from "#src/base/settings.js";
import { raw } from "#src/codec/raw.js";
import { BufferMemory } from "#src/connection/buffer-memory.js";
import type { ServedConnection } from "#src/connection/connection.js";
import { Endpoint } from "#src/connection/endpoint.js";
import { FakeTransport, GENERATION, SLOT } from "#src/connection/fake-transport.js";
import { Gate } from "#src/connection/gate.js";
import { Handshakes } from "#src/connection/handshakes.js";
import { Preface, type PrefaceStage } from "#src/connection/preface.js";
import { ProxyStage } from "#src/connection/proxy-stage.js";
import { Timing } from "#src/connection/timing.js";
import { TlsStage } from "#src/connection/tls-stage.js";
import { Topics } from "#src/connection/topics.js";
import { Wheel } from "#src/connection/wheel.js";
import { COUNTER } from "#src/engine/layout.js";
import { LISTENER_CLOSED, LISTENER_DATAGRAMS, ROW_CELLS, WORKER_FIELDS, type WorkerBlock } from "#src/os/scoreboard.js";
import type { TlsContext } from "#src/os/tls-addon.js";
import { defineService } from "#src/service/define.js";
import { ENDS, v1, v2, v2Local } from "../support/proxy-headers.js";
import { byteByByte, cutPlaces, splitAt } from "../support/splits.js";

const PROXY = { host: "10.0.0.1", port: 5 };
const TRUSTING: ProxyProtocol = { trust: ["10.0.0.0/8"], required: true };
const HELD_IN = WORKER_FIELDS.indexOf("bytesHeldIn");

interface Bench {
  readonly endpoint: Endpoint;
  readonly transport: FakeTransport;
  readonly preface: Preface;
  /** What the service got. */
  readonly received: Buffer[];
  readonly opened: ServedConnection[];
  /** Bytes held by it, now and at most. */
  readonly held: { now: number; most: number };
  /** As the engine does it. */
  push(bytes: Uint8Array): void;
  end(): void;
  tick(ms: number): void;
  closed(): CloseReason | undefined;
}

/** One connection, whose owner is told what happens as by the engine. */
function bench(stages: (endpoint: Endpoint) => PrefaceStage[], timeouts: Partial<Timeouts> = {}): Bench {
  const transport = new FakeTransport({ ...PROXY });
  const row = new Float64Array(ROW_CELLS);
  const head = new Float64Array(WORKER_FIELDS.length);
  const log = pino({ level: "silent" });
  const memory = new BufferMemory({ transport, budget: 1 << 20, head, log, holders: () => [] });
  const received: Buffer[] = [];
  const service = defineService({ codec: raw(), onMessage: (bytes) => void received.push(Buffer.from(bytes)) });
  const wheel = new Wheel(transport.now, (_slot, now) => ownerNow().onDue(now));
  const topics = new Topics({ flush() {}, hold() {}, head, log });
  const endpoint = new Endpoint({
    ...{
      listener: "test",
      key: "test",
      index: 0,
      service,
      env: undefined,
      transport,
      wheel,
      alarm: wheel,
      memory,
      topics,
      timing: new Timing(transport.laps),
    },
    limits: { ...DEFAULT_LIMITS, proxyHeader: 600 },
    timeouts: { ...DEFAULT_TIMEOUTS, ...timeouts },
    ...{ drainMs: 1_000, coalesce: true, row, log, gate: new Gate(), idPrefix: "test", poison: false },
  });
  endpoint.stages = stages(endpoint);
  const opened: ServedConnection[] = [];
  endpoint.onPrefaceEnd = (connection) => {
    if (connection) opened.push(connection);
  };
  const preface = new Preface(endpoint, SLOT, GENERATION);
  const ownerNow = (): Preface | ServedConnection => (transport.owner as ServedConnection | undefined) ?? preface;
  const held = { now: 0, most: 0 };
  const look = (): void => {
    held.now = head[HELD_IN] as number;
    held.most = Math.max(held.most, held.now);
  };
  preface.onOpen();
  return {
    endpoint,
    transport,
    preface,
    received,
    opened,
    held,
    push(bytes) {
      if (!preface.open && opened.length === 0) return;
      transport.counters[COUNTER.received] = (transport.counters[COUNTER.received] as number) + bytes.length;
      // The memory is reused: nobody may have kept a view of it.
      const input = Buffer.from(bytes);
      if (bytes.length > 0) ownerNow().onData(input, 0, input.length);
      input.fill(0xee);
      look();
    },
    end() {
      if (preface.open || opened.length > 0) ownerNow().onEnd();
      look();
    },
    tick(ms) {
      transport.now += ms;
      wheel.advance(transport.now);
      look();
    },
    closed() {
      const index = row.subarray(LISTENER_CLOSED, LISTENER_DATAGRAMS).indexOf(1);
      return index < 0 ? undefined : CLOSE_REASONS[index];
    },
  };
}

const proxied = (settings: Partial<ProxyProtocol> = {}, timeouts: Partial<Timeouts> = {}): Bench =>
  bench((endpoint) => [new ProxyStage(endpoint, { ...TRUSTING, ...settings })], timeouts);

/** What became of it, all that can be seen. */
function outcome({ closed, opened, received, transport, endpoint, held, preface }: Bench): object {
  const [connection] = opened;
  return {
    closed: closed(),
    bytes: Buffer.concat(received).toString("latin1"),
    remote: connection?.remote,
    peer: connection?.peer,
    proxy: connection?.proxy,
    prefaces: endpoint.prefaces,
    open: preface.open,
    counted: connection ? transport.counters[COUNTER.received] : 0,
    held: preface.open ? "" : held.now,
  };
}

const changed = fc
  .tuple(
    fc.constantFrom(v1(), v2(), v2Local(), v2(ENDS, [{ type: 5, value: Buffer.alloc(40, 7) }], true), Buffer.alloc(0)),
    fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 2 }),
    fc.uint8Array({ maxLength: 300 }),
  )
  .map(([header, changes, rest]) => {
    const bytes = Buffer.concat([header, rest]);
    for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
    return bytes;
  });

for (const required of [true, false]) {
  test(`required: ${required}: the outcome is the same for any split, nothing throws, little is held and nothing left`, () => {
    fc.assert(
      fc.property(changed, cutPlaces, fc.boolean(), fc.boolean(), (bytes, cuts, trusted, ending) => {
        const results = [[bytes], splitAt(bytes, cuts), byteByByte(bytes)].map((parts) => {
          const it = proxied({ required, trust: trusted ? TRUSTING.trust : ["192.0.2.0/24"] });
          for (const part of parts) it.push(part);
          if (ending) it.end();
          assert.ok(it.held.most <= 1_200, `${it.held.most} bytes held`);
          if (!it.preface.open) assert.equal(it.held.now, 0);
          return outcome(it);
        });
        assert.deepEqual(results[1], results[0]);
        assert.deepEqual(results[2], results[0]);
      }),
      { numRuns: 500 },
    );
  });
}

test("counters begin behind the header, so that deadlines are the client's", () => {
  const it = proxied();
  it.push(v1());
  assert.equal(it.transport.counters[COUNTER.received], 0);
  it.tick(DEFAULT_TIMEOUTS.firstByte as number);
  it.tick(100);
  assert.equal(it.closed(), "first-byte-timeout");
});

test("the deadline runs from accept; a worker that comes late to read does not hold it against the proxy for a while", () => {
  const it = proxied({}, { proxyHeader: 1_000 });
  it.push(v2().subarray(0, 15));
  it.tick(950);
  assert.equal(it.closed(), undefined);
  let unread = 1;
  it.transport.unread = () => unread;
  it.tick(500);
  assert.equal(it.closed(), undefined);
  unread = 0;
  it.tick(100);
  assert.equal(it.closed(), "proxy-header-timeout");
  assert.equal(it.held.now, 0);
  const never = proxied({}, { proxyHeader: 1_000 });
  never.transport.unread = () => 1;
  for (let ms = 0; ms < 2_200; ms += 50) never.tick(50);
  assert.equal(never.closed(), "proxy-header-timeout");
});

test("what comes after the deadline does not extend it, even if something always waits to be read", () => {
  const it = proxied({}, { proxyHeader: 1_000 });
  it.push(v2().subarray(0, 15));
  it.transport.unread = () => 1;
  it.tick(1_050);
  assert.equal(it.closed(), undefined, "it may have come in time");
  it.push(v2().subarray(15, 16));
  it.tick(100);
  assert.equal(it.closed(), "proxy-header-timeout");
});

test("timeouts.proxyHeader: off waits for ever", () => {
  const it = proxied({}, { proxyHeader: "off" });
  it.tick(3_600_000);
  assert.equal(it.closed(), undefined);
  it.push(v1());
  assert.equal(it.opened.length, 1);
});

test("who may not come is not opened, and closed as rejected", () => {
  const it = proxied();
  it.transport.rejects = "per-address" satisfies RejectReason;
  it.push(v1());
  assert.deepEqual([it.preface.open, it.closed(), it.opened.length, it.endpoint.prefaces], [false, "rejected", 0, 0]);
});

test("a socket that fails has its reason", () => {
  for (const [errno, reason] of [
    [104, "peer-reset"],
    [110, "io-error"],
  ] as const) {
    const it = proxied();
    it.push(v1().subarray(0, 9));
    it.preface.onError(errno);
    it.tick(0);
    assert.equal(it.closed(), reason);
    assert.deepEqual([it.held.now, it.endpoint.prefaces], [0, 0]);
  }
});

// ---- several stages ----

/** Takes `size` bytes and passes on; writes down what it hears. */
class Taking implements PrefaceStage {
  readonly timeoutMs: number;
  readonly timeoutReason = "io-error";
  readonly heard: string[] = [];
  readonly #size: number;

  constructor(size: number, timeoutMs: number) {
    this.#size = size;
    this.timeoutMs = timeoutMs;
  }

  begin(preface: Preface, early: Buffer): void {
    this.heard.push(`begin ${early}`);
    if (early.length > 0) this.onData(preface, early, 0, early.length);
  }

  onData(preface: Preface, input: Buffer, from: number, to: number): void {
    this.heard.push(`data ${input.subarray(from, to)}`);
    if (to - from >= this.#size) preface.pass(input, from + this.#size, to);
  }

  onSecured(): void {
    this.heard.push("secured");
  }

  onLeft(): void {
    this.heard.push("left");
  }
}

test("stages follow one another, each with its own deadline, and each hears once that it is over", () => {
  const stages = [new Taking(3, 1_000), new Taking(2, 500)] as const;
  const it = bench(() => [...stages]);
  it.tick(900);
  it.push(Buffer.from("abcde12"));
  assert.deepEqual(stages[0].heard, ["begin ", "data abcde12", "left"]);
  assert.deepEqual(stages[1].heard, ["begin de12", "data de12", "left"]);
  assert.equal(Buffer.concat(it.received).toString(), "12");

  const [first, second] = [new Taking(3, 1_000), new Taking(2, 500)];
  const late = bench(() => [first, second]);
  late.tick(900);
  late.push(Buffer.from("abc"));
  late.preface.onSecured();
  late.tick(450);
  assert.equal(late.closed(), undefined);
  late.tick(100);
  assert.equal(late.closed(), "io-error");
  assert.deepEqual(second.heard, ["begin ", "secured", "left"]);
  assert.deepEqual(late.opened, []);
});

test("a PROXY header in pieces, then another stage: it begins with what came behind the header", () => {
  const second = new Taking(2, 500);
  const it = bench((endpoint) => [new ProxyStage(endpoint, TRUSTING), second]);
  it.push(v1().subarray(0, 20));
  it.push(Buffer.concat([v1().subarray(20), Buffer.from("xyz")]));
  assert.deepEqual(second.heard, ["begin xyz", "data xyz", "left"]);
  assert.equal(it.opened[0]?.remote.host, ENDS.source);
  assert.equal(Buffer.concat(it.received).toString(), "z");
  assert.equal(it.held.now, 0);
});

// ---- TLS ----

interface Securing {
  readonly stage: TlsStage;
  readonly handshakes: Handshakes;
}

/** Handshakes that somebody else makes: `secure` stands for the engine. */
function securing(secure: () => void = () => {}, limit = 10): Securing {
  const block = { head: new Float64Array(WORKER_FIELDS.length) } as WorkerBlock;
  const handshakes = new Handshakes(limit, block, pino({ level: "silent" }));
  const engine = { secure, tls: () => undefined, tlsError: () => "no shared cipher" };
  const context = {} as TlsContext;
  return { stage: new TlsStage({ engine, context, handshakes, timeoutMs: 5_000 }), handshakes };
}

test("a handshake that fails is closed, not reset: the alert is still on its way", () => {
  const { stage, handshakes } = securing();
  const it = bench(() => [stage]);
  const ends: string[] = [];
  it.transport.close = () => void ends.push("close");
  it.transport.reset = () => void ends.push("reset");
  it.preface.onError(constants.errno.EPROTO);
  assert.equal(it.closed(), "tls-error");
  assert.deepEqual(ends, ["close"]);
  assert.equal(handshakes.inProgress, 0);
});

test("a handshake that cannot begin costs its connection, and nobody else's", () => {
  const { stage, handshakes } = securing(() => {
    throw new HeadraceError("system", "beginning TLS: ENOMEM");
  });
  const it = bench(() => [stage]);
  assert.equal(it.closed(), "io-error");
  assert.deepEqual([it.preface.open, it.endpoint.prefaces, handshakes.inProgress], [false, 0, 0]);
});

test("a newcomer takes the place of one that has said nothing for long", () => {
  const { stage, handshakes } = securing(() => {}, 1);
  const [silent, next] = [bench(() => [stage]), bench(() => [stage])];
  assert.deepEqual([silent.preface.open, next.preface.open], [true, false]);
  silent.transport.now += 1_000;
  const late = new Preface(silent.endpoint, SLOT, GENERATION);
  late.onOpen();
  assert.deepEqual([silent.preface.open, late.open, silent.closed()], [false, true, "handshake-timeout"]);
  assert.equal(handshakes.inProgress, 1);
});

test("who has half-closed cannot finish a handshake: nobody waits for it", () => {
  const { stage, handshakes } = securing();
  const it = bench((endpoint) => [new ProxyStage(endpoint, { ...TRUSTING, required: false }), stage]);
  it.end();
  assert.equal(it.closed(), "peer-closed");
  assert.deepEqual([it.preface.open, it.endpoint.prefaces, handshakes.inProgress], [false, 0, 0]);
});
