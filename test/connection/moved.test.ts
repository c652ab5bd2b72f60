/** A connection that moves is the same as one that stays: what it sends, how it ends, when its deadlines fall due. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { CloseReason } from "#src/base/reasons.js";
import { type Codec, skip } from "#src/codec/codec.js";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { type TestConnection, testConnection } from "#src/connection/harness.js";
import type { Connection } from "#src/service/connection.js";
import { type Concurrency, defineService, type ServiceDefinition } from "#src/service/define.js";

interface State {
  messages: number;
  writable: number;
}

type Message = Buffer;
type Bytes = string | Uint8Array;

/** Does what the message says; the state counts, so that a state that is lost or stale shows in the replies. */
function obedient(
  codec: Codec<Message, Bytes>,
  concurrency: Concurrency,
  hooks: Partial<ServiceDefinition<State, Message, Bytes, (() => void)[]>>,
) {
  return defineService<Message, Bytes, State, (() => void)[]>({
    codec,
    concurrency,
    limits: { frame: 40, inFlight: 3, highWater: 300, lowWater: 100, buffered: 3_000 },
    timeouts: { age: "90s", ageJitter: "off" },
    heartbeat: { every: "4s", ping: () => "ping", isPong: (message) => message.toString() === "pong" },
    state: () => ({ messages: 0, writable: 0 }),
    ...hooks,
    onMessage(message, { connection, env: waiting }) {
      const { state } = connection;
      const reply = `${++state.messages}.${state.writable} ${message.toString()}`;
      switch (message.toString()) {
        case "later":
          return new Promise((resolve) => waiting.push(() => resolve(reply)));
        case "pause":
          connection.pauseReads();
          return reply;
        case "big":
          for (let i = 0; i < 20; i++) connection.send("x".repeat(30));
          return reply;
        case "patience":
          connection.setTimeouts({ idle: "100s", frame: "15s" });
          return reply;
        case "throw":
          throw new Error("asked to");
        default:
          return reply;
      }
    },
    onWritable: ({ state }) => void state.writable++,
  });
}

const ownHooks: Partial<ServiceDefinition<State, Message, Bytes, (() => void)[]>> = {
  suspend: ({ state }) => Buffer.from(JSON.stringify(state)),
  resume: ({ state }, bytes) => void Object.assign(state, JSON.parse(Buffer.from(bytes).toString())),
};

const CODECS: Record<string, { codec: Codec<Message, Bytes>; wrap: (text: string) => Buffer }> = {
  line: { codec: line({ as: "bytes" }), wrap: (text) => Buffer.from(`${text}\n`) },
  discard: { codec: line({ as: "borrowed", onOversize: "discard" }), wrap: (text) => Buffer.from(`${text}\n`) },
  frame: {
    codec: frame(),
    wrap(text) {
      const bytes = Buffer.alloc(4 + text.length, text);
      bytes.writeUInt32BE(text.length);
      bytes.write(text, 4);
      return bytes;
    },
  },
};

const word = fc.constantFrom(
  "a",
  "b",
  "hello",
  "pong",
  "pong",
  "patience",
  "later",
  "pause",
  "big",
  "later",
  "y".repeat(40),
);
/** What ends most connections. */
const fatal = fc.constantFrom("throw", "z".repeat(90));
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      push: fc.array(fc.oneof({ weight: 30, arbitrary: word }, { weight: 1, arbitrary: fatal }), {
        minLength: 1,
        maxLength: 4,
      }),
      cuts: fc.array(fc.nat(60)),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.constantFrom(
      "stall",
      "unstall",
      "unstall",
      "release",
      "release",
      "resume",
      "resume",
      "hold",
      "settle",
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom("end", "drain", "peer-reset") },
  // Whole ticks of the wheel: a deadline is looked at up to one tick late, and moving may spare a part of that.
  { weight: 3, arbitrary: fc.constantFrom(100, 200, 500, 1_000, 3_000, 8_000, 20_000) },
);
type Action = { readonly push: string[]; readonly cuts: number[] } | string | number;

interface Seen {
  readonly sent: string;
  readonly closed: CloseReason | undefined;
}

/** Plays the actions; before each one for which `moves` says so, the connection moves if it can. */
async function play(
  actions: readonly Action[],
  name: string,
  concurrency: Concurrency,
  own: boolean,
  moves: readonly boolean[],
): Promise<{ seen: Seen[]; moved: number }> {
  const { codec, wrap } = CODECS[name] as (typeof CODECS)[string];
  const waiting: (() => void)[] = [];
  const service = obedient(codec, concurrency, own ? ownHooks : {});
  let current: TestConnection<State, Bytes, (() => void)[]> = testConnection(service, { env: waiting });
  const seen: Seen[] = [];
  let moved = 0;
  for (const [index, step] of actions.entries()) {
    if (moves[index % moves.length]) {
      try {
        current = current.moved();
        moved += 1;
      } catch {
        // It is closed, drains, or has a request in flight.
      }
    }
    if (typeof step === "number") {
      current.tick(step);
    } else if (typeof step === "object") {
      const bytes = Buffer.concat(step.push.map(wrap));
      const places = [0, ...step.cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
      // The last piece of some is kept back: a message begun and never ended.
      const upTo = step.cuts.length % 3 === 1 ? places.length - 1 : places.length;
      for (let i = 1; i < upTo; i++) current.push(bytes.subarray(places[i - 1], places[i]));
    } else {
      await act(step, current, waiting);
    }
    seen.push({ sent: current.sent().toString(), closed: current.closed });
  }
  return { seen, moved };
}

async function act(step: string, current: TestConnection<State, Bytes>, waiting: (() => void)[]): Promise<void> {
  const connection: Connection<State, Bytes> = current.connection;
  switch (step) {
    case "end":
      return current.end();
    case "stall":
      return current.stallWrites();
    case "unstall":
      return current.resumeWrites();
    case "release":
      waiting.shift()?.();
      return current.settle();
    case "hold":
      return connection.pauseReads();
    case "resume":
      return connection.resumeReads();
    case "drain":
      return current.drain();
    case "peer-reset":
      return current.peerReset();
    default:
      return current.settle();
  }
}

test("random events: moved or not, the peer sees the same bytes at the same time and the same end", async () => {
  let moves = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { minLength: 12, maxLength: 40 }),
      fc.constantFrom(...Object.keys(CODECS)),
      fc.constantFrom<Concurrency>("serial", "ordered", "unordered"),
      fc.boolean(),
      fc.array(fc.boolean(), { minLength: 3, maxLength: 10 }),
      async (actions, codec, concurrency, own, when) => {
        const stayed = await play(actions, codec, concurrency, own, [false]);
        const wandered = await play(actions, codec, concurrency, own, when);
        assert.deepEqual(wandered.seen, stayed.seen);
        moves += wandered.moved;
      },
    ),
    { numRuns: 1_500 },
  );
  assert.ok(moves > 3_000, `${moves} moves`);
});

test("its id, peer and listener are the same, its log carries the id, and request ids go on", async () => {
  const ids: string[] = [];
  const service = defineService({
    codec: line(),
    state: () => ({ name: "x" }),
    onMessage: (_text, { id, connection }) => {
      ids.push(id);
      return connection.id;
    },
  });
  const before = testConnection(service, { remote: { host: "198.51.100.7", port: 4_321 } });
  for (let i = 0; i < 3; i++) before.push("a\n");
  const after = before.moved();
  after.push("a\n");
  assert.equal(
    after.sent().toString(),
    before
      .sent()
      .toString()
      .slice(0, after.connection.id.length + 1),
  );
  assert.deepEqual(after.connection.remote, { host: "198.51.100.7", port: 4_321 });
  assert.equal(after.connection.listener, "test");
  assert.deepEqual(after.connection.log.bindings(), { connection: before.connection.id });
  assert.equal(new Set(ids).size, 4, ids.join());
});

test("the one that has gone is closed to whoever holds it: no onClose, no reason, the signal says moved", () => {
  const reasons: string[] = [];
  const service = defineService({
    codec: line(),
    onMessage: (text) => text,
    onClose: (_connection, reason) => void reasons.push(reason),
  });
  const before = testConnection(service);
  const { signal } = before.connection;
  const after = before.moved();
  assert.equal(signal.aborted, true);
  assert.equal(signal.reason.code, "connection-closed");
  assert.equal(signal.reason.fields.given, "moved");
  assert.equal(before.connection.closed, true);
  assert.equal(before.connection.send("x"), "closed");
  assert.equal(before.closed, undefined);
  before.connection.close();
  before.connection.reset();
  before.connection.pauseReads();
  before.connection.resumeReads();
  before.push("x\n");
  assert.deepEqual(reasons, []);
  assert.equal(after.connection.closed, false);
  after.push("a\n");
  assert.equal(after.sent().toString(), "a\n");
  after.connection.close();
  assert.deepEqual(reasons, ["server-close"]);
});

test("what the service sends or ends in resume happens after everything that was unsent", () => {
  const make = (resume: (connection: Connection<undefined, string | Uint8Array>) => void) =>
    defineService({
      codec: line(),
      limits: { highWater: 100, lowWater: 50, buffered: 200 },
      onMessage: (text) => text,
      resume,
    });
  const results: unknown[] = [];
  const talking = make((connection) => {
    results.push(connection.bufferedBytes, connection.send("back"), connection.bufferedBytes);
    results.push(connection.send("x".repeat(99)), connection.send("y".repeat(150)), connection.closed);
  });
  const before = testConnection(talking);
  before.stallWrites();
  before.push("old\n");
  const after = before.moved();
  assert.deepEqual(results, [4, "ok", 9, "slow", "refused", false]);
  after.resumeWrites();
  assert.equal(after.sent().toString(), `old\nback\n${"x".repeat(99)}\n`);
  after.push("on\n");
  assert.equal(after.sent().toString(), "on\n", "no longer held back");

  const closing = make((connection) => {
    connection.send("bye");
    connection.close("killed");
    connection.reset();
  });
  const closed = testConnection(closing).moved();
  assert.equal(closed.closed, "killed");
  assert.equal(closed.sent().toString(), "bye\n");
});

test("suspend and resume: the bytes, the env of the other worker and the version that was left", () => {
  const calls: unknown[] = [];
  const service = defineService({
    codec: line(),
    env: () => "made by the worker",
    state: () => ({ count: 0 }),
    onMessage: (_text, { connection }) => String(++connection.state.count),
    suspend: (connection, env) => {
      calls.push("suspend", env);
      return Buffer.from([connection.state.count]);
    },
    resume(connection, bytes, env, version) {
      calls.push("resume", env, version, connection.state.count);
      connection.state.count = bytes[0] as number;
    },
  });
  const before = testConnection(service, { env: "one" });
  before.push("a\nb\n");
  const after = before.moved({ env: "two", stateVersion: 7 });
  assert.deepEqual(calls, ["suspend", "one", "resume", "two", 7, 0]);
  after.push("c\n");
  assert.equal(after.sent().toString(), "3\n");
});

test("without suspend the state is cloned, and resume gets the clone", () => {
  const states: unknown[] = [];
  const service = defineService({
    codec: line(),
    state: () => ({ seen: new Set<string>(), bytes: Buffer.from("kept") }),
    onMessage: (text, { connection }) => void connection.state.seen.add(text),
    resume: ({ state }, bytes) => void states.push(state, bytes.length > 0),
  });
  const before = testConnection(service);
  before.push("a\n");
  const after = before.moved();
  assert.deepEqual(states, [{ seen: new Set(["a"]), bytes: Buffer.from("kept") }, true]);
  assert.notEqual(after.connection.state, before.connection.state);
});

for (const [what, hooks, problem] of [
  ["suspend throws", { suspend: () => assert.fail("no"), resume() {} }, /no/],
  ["suspend declines", { suspend: () => undefined, resume() {} }, /suspend returned undefined/],
  ["suspend returns text", { suspend: () => "text" as never, resume() {} }, /suspend returned a value of type string/],
  [
    "suspend is async",
    { suspend: async () => assert.fail("late") as never, resume() {} },
    /suspend returned a promise/,
  ],
  ["resume throws", { resume: () => assert.fail("no room") }, /no room/],
  ["resume is async", { resume: async () => assert.fail("late") }, /resume returned a promise/],
  ["the state is no plain data", { state: () => ({ at: new URL("http://x/") }) as never }, /state.at is a URL/],
  ["the state cannot be cloned", { state: () => ({ call: () => 1 }) as never }, /state.call is a function/],
] as const) {
  test(`${what}: it goes on where it is, as if nothing had been`, async () => {
    const service = defineService({
      codec: line(),
      timeouts: { frame: "1s", idle: "off" },
      state: () => ({}),
      onMessage: (text: string) => text,
      ...(hooks as object),
    });
    const tested = testConnection(service);
    const { signal } = tested.connection;
    tested.push("a\nhal");
    tested.tick(600);
    assert.throws(() => tested.moved(), problem);
    await tested.settle();
    assert.equal(tested.connection.closed, false);
    assert.equal(signal.aborted, false);
    tested.push("f\n");
    assert.equal(tested.sent().toString(), "a\nhalf\n");
    tested.push("late");
    tested.tick(600);
    assert.throws(() => tested.moved(), problem);
    tested.tick(500);
    assert.equal(tested.closed, "frame-timeout", "the clock went on");
  });
}

test("after suspend comes resume, also when the move did not come about", () => {
  const room = new Set<string>();
  let full = true;
  const service = defineService({
    codec: line(),
    onOpen: ({ id }) => void room.add(id),
    onMessage: (text) => text,
    suspend({ id }) {
      room.delete(id);
      return Buffer.from("x");
    },
    resume({ id }, bytes, env) {
      assert.equal(bytes.toString(), "120");
      if (env !== undefined && full) throw new Error("no room there");
      room.add(id);
    },
    onClose: ({ id }) => void room.delete(id),
  });
  const before = testConnection<undefined, string, string | Uint8Array, string | undefined>(service as never);
  assert.throws(() => before.moved({ env: "there" }), /no room there/);
  assert.equal(room.size, 1);
  full = false;
  const after = before.moved({ env: "there" });
  assert.equal(room.size, 1);
  after.connection.close();
  assert.equal(room.size, 0);
});

test("what a service packs and then cannot leave with comes back to it", () => {
  const calls: string[] = [];
  const make = (suspend: (connection: Connection<undefined, string | Uint8Array>) => Uint8Array) =>
    testConnection(
      defineService({
        codec: line(),
        limits: { highWater: 10, lowWater: 5 },
        onMessage: (text) => text,
        suspend,
        resume: () => void calls.push("resume"),
      }),
    );
  const large = make(() => Buffer.alloc((64 << 20) + 1));
  assert.throws(() => large.moved(), /holds 67108865 bytes/);
  const waiting = make((connection) => {
    connection.send("a long message");
    connection.drained().catch(() => {});
    return Buffer.alloc(0);
  });
  waiting.stallWrites();
  assert.throws(() => waiting.moved());
  const closing = make((connection) => {
    connection.close();
    return Buffer.alloc(0);
  });
  assert.throws(() => closing.moved());
  assert.deepEqual(calls, ["resume", "resume"]);
  for (const { connection } of [large, waiting]) assert.equal(connection.closed, false);
});

test("reads that are paused stay paused: a connection that drains takes no more because it moved", () => {
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      connection.pauseReads();
      return text;
    },
  });
  for (const moves of [false, true]) {
    let tested = testConnection(service);
    tested.push("a\nb\n");
    tested.connection.resumeReads();
    tested.push("c\n");
    const before = tested.sent().toString();
    if (moves) tested = tested.moved();
    assert.equal(tested.readsPaused, true);
    tested.drain();
    tested.connection.resumeReads();
    assert.equal(before + tested.sent().toString(), "a\nb\n");
    assert.equal(tested.closed, "drain");
  }
});

/** Uses up what comes and remembers only how much it was: a message is the length of a line. */
const lengths: Codec<number, string> = {
  name: "lengths",
  borrowed: false,
  message: 0,
  fault: "protocol-error",
  decode(bytes, from, to, cursor) {
    const end = bytes.subarray(from, to).indexOf("\n");
    if (end < 0) {
      cursor.seen += to - from;
      return skip(to - from);
    }
    (this as { message: number }).message = cursor.seen + end;
    cursor.seen = 0;
    return end + 1;
  },
  sizeOf: (text) => text.length,
  encodeInto: (text, target, at) => target.write(text, at),
};

test("what only the codec remembers goes along", () => {
  const tested = testConnection(defineService({ codec: lengths, onMessage: (length) => `${length} ` }));
  tested.push("hal");
  const after = tested.moved();
  after.push("f\nx\n");
  assert.equal(after.sent().toString(), "4 1 ");
});

test("with a request in flight, or while drained() is awaited, it does not move, and moves afterwards", async () => {
  let release = (): void => {};
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    limits: { highWater: 10, lowWater: 5 },
    onMessage: (text): Promise<string> | string =>
      text === "wait" ? new Promise((resolve) => (release = () => resolve("done"))) : text,
  });
  const tested = testConnection(service);
  tested.push("wait\nnext\n");
  assert.throws(() => tested.moved(), /in flight/);
  release();
  await tested.settle();
  assert.equal(tested.sent().toString(), "done\nnext\n");
  tested.stallWrites();
  assert.equal(tested.connection.send("a long message"), "slow");
  const drained = tested.connection.drained();
  assert.throws(() => tested.moved(), /drained/);
  tested.resumeWrites();
  await drained;
  assert.equal(tested.moved().closed, undefined);
});

test("a connection that is closed, or drains, does not move", () => {
  const service = defineService({ codec: line(), onMessage: (): Promise<string> => new Promise(() => {}) });
  const closed = testConnection(service);
  closed.connection.close();
  assert.throws(() => closed.moved(), /closed/);
  const draining = testConnection(service);
  draining.push("a\n");
  draining.drain();
  assert.throws(() => draining.moved(), /drains/);
});
