/** What services say and do about a move: who moves and when, what is handed over, and what is said in the log. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Logger, pino } from "pino";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { openChannel } from "#src/os/descriptors.js";
import { type AnyService, defineService } from "#src/service/define.js";
import { sendConnections } from "#src/worker/migration.js";
import { openPeer, type Peer } from "../support/peer.js";
import { openServing, type Serving, type ServingOptions } from "../support/serving.js";
import { until } from "../support/until.js";
import { Hand, helloOf, type MoveChoice, move } from "./moving.js";

interface Entry {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

function capture(): { readonly log: Logger; readonly entries: Entry[] } {
  const entries: Entry[] = [];
  const stream = { write: (text: string) => void entries.push(JSON.parse(text) as Entry) };
  return { log: pino({ level: "info" }, stream), entries };
}

interface Pair {
  readonly a: Serving;
  readonly b: Serving;
  readonly said: Entry[];
  move(choice?: MoveChoice): Promise<{ readonly moved: number; readonly kept: number }>;
}

/** A worker with `service` and one with `other`; what both say is written down. */
async function pair(
  t: TestContext,
  service: AnyService,
  other: AnyService = service,
  options: ServingOptions = {},
): Promise<Pair> {
  const { log, entries } = capture();
  const a = await openServing(t, service, { ...options, log });
  const b = await openServing(t, other, { ...options, log, beside: a });
  return {
    a,
    b,
    said: entries,
    async move(choice = {}) {
      const { moved, kept } = await move(a, b, { log, ...choice });
      return { moved, kept };
    },
  };
}

async function peersOf(t: TestContext, serving: Serving, count: number): Promise<Peer[]> {
  const peers = [];
  for (let i = 0; i < count; i++) peers.push(await openPeer(t, serving.port));
  await until("all open", () => serving.figure("active") === count);
  return peers;
}

async function echoes(peers: readonly Peer[], text: string, reply: string): Promise<void> {
  for (const peer of peers) {
    const before = peer.length;
    peer.write(text);
    await peer.receives(before + reply.length);
    assert.equal(peer.text.slice(before), reply);
  }
}

const upper = { codec: line(), onMessage: (text: string) => text.toUpperCase() };

/** Answers "wait" when told to. */
function waiting(concurrency: "serial" | "ordered" | "unordered") {
  const releases: (() => void)[] = [];
  const handled: string[] = [];
  const service = defineService({
    codec: line(),
    concurrency,
    onMessage(text, { connection }): Promise<string> | string {
      handled.push(text);
      if (text !== "wait") return text;
      return new Promise((resolve) => releases.push(() => resolve(`done ${connection.closed}`)));
    },
  });
  return { service, releases, handled };
}

for (const concurrency of ["serial", "ordered", "unordered"] as const) {
  test(`${concurrency}: a connection moves when its request is answered; what comes meanwhile is handled there`, async (t) => {
    const { service, releases, handled } = waiting(concurrency);
    const { a, b, move: moveAll } = await pair(t, service);
    const [peer, idle] = await peersOf(t, a, 2);
    peer?.write("wait\n");
    await until("the request", () => releases.length === 1);
    const moving = moveAll();
    await until("the idle one", () => b.figure("active") === 1);
    assert.equal(a.server.connections().length, 1);
    peer?.write("next\nlast\n");
    await echoes([idle as Peer], "x\n", "x\n");
    assert.deepEqual(handled, ["wait", "x"], "it takes no more requests");
    assert.equal(a.figure("inFlight"), 1);
    releases[0]?.();
    assert.deepEqual(await moving, { moved: 2, kept: 0 });
    await peer?.receives(21);
    assert.equal(peer?.text, "done false\nnext\nlast\n");
    assert.equal(b.figure("requests"), 3);
  });
}

test("a request that takes too long keeps its connection, which then goes on as if nothing had been", async (t) => {
  const { service, releases } = waiting("ordered");
  const { a, move: moveAll } = await pair(t, service);
  const [peer] = await peersOf(t, a, 1);
  peer?.write("wait\n");
  await until("the request", () => releases.length === 1);
  assert.deepEqual(await moveAll({ withinMs: 50 }), { moved: 0, kept: 1 });
  peer?.write("next\n");
  await until("the next one", () => a.figure("requests") === 2);
  releases[0]?.();
  await peer?.receives(16);
  assert.equal(peer?.text, "done false\nnext\n");
});

test("part of the connections: as many as asked for, none that is busy, and no service that hands off", async (t) => {
  const { service, releases } = waiting("serial");
  const { a, b, move: moveAll } = await pair(t, service);
  const [busy, ...idle] = await peersOf(t, a, 10);
  busy?.write("wait\n");
  await until("the request", () => releases.length === 1);
  assert.deepEqual(await moveAll({ most: 4, handOff: false }), { moved: 4, kept: 6 });
  assert.deepEqual(await moveAll({ most: 100, handOff: false }), { moved: 5, kept: 1 });
  assert.equal(b.figure("active"), 9);
  await echoes(idle, "x\n", "x\n");
  releases[0]?.();
  await busy?.receives(11);

  const sharing = defineService({ ...upper, handOff: () => Buffer.alloc(1), takeOver: () => {} });
  const other = await pair(t, sharing);
  await peersOf(t, other.a, 2);
  assert.deepEqual(await other.move({ most: 1, handOff: false }), { moved: 0, kept: 2 });
  assert.deepEqual(other.said, []);
});

test("no more connections than the other worker has descriptors for", async (t) => {
  const { a, said } = await pair(t, defineService(upper));
  const peers = await peersOf(t, a, 5);
  const [there, here] = openChannel();
  const { log } = { log: a.server.endpoints[0]?.log as Logger };
  const sending = sendConnections({ channel: here, server: a.server, log, handOff: true });
  const hand = new Hand(there);
  hand.send(helloOf(a, 2));
  let came = 0;
  for (;;) {
    const message = await hand.receive();
    if (message.type === "end") break;
    if (message.type !== "batch") continue;
    const { batch, count } = message as unknown as { batch: number; count: number };
    came += count;
    hand.send({ type: "ack", batch, from: 0, count, refused: Array.from({ length: count }, (_, index) => index) });
  }
  hand.close();
  const { moved, kept } = await sending;
  assert.deepEqual({ came, moved, kept }, { came: 2, moved: 0, kept: 5 });
  assert.match(said.map(({ msg }) => msg).join(), /descriptors are short/);
  await echoes(peers, "x\n", "X\n");
});

for (const [what, service, other, said] of [
  ["the service does not migrate", defineService({ ...upper, migrate: false }), undefined, /does not migrate/],
  [
    "another service",
    defineService(upper),
    defineService({ ...upper, name: "other" }),
    /runs another service there: other/,
  ],
  [
    "another codec",
    defineService({ ...upper, name: "same" }),
    defineService({ name: "same", codec: frame(), onMessage: (bytes) => bytes }),
    /runs another service there: same \(frame\)/,
  ],
  [
    "another state version and no resume",
    defineService(upper),
    defineService({ ...upper, stateVersion: 2 }),
    /stateVersion is 1 here and 2 there, and the service there has no resume/,
  ],
  [
    "a hand-off that nobody takes over",
    defineService({ ...upper, handOff: () => Buffer.alloc(1), takeOver: () => {} }),
    defineService(upper),
    /the service there has no takeOver/,
  ],
] as const) {
  test(`${what}: nothing moves, which is said once, and all goes on`, async (t) => {
    const rig = await pair(t, service, other);
    const peers = await peersOf(t, rig.a, 3);
    for (let round = 0; round < 2; round++) assert.deepEqual(await rig.move(), { moved: 0, kept: 3 });
    assert.equal(rig.said.length, 1);
    assert.match(String(rig.said[0]?.reason), said);
    assert.equal(rig.said[0]?.level, 30);
    await echoes(peers, "x\n", "X\n");
  });
}

test("another state version with a resume: it gets the state of the old one, and its number", async (t) => {
  const before = defineService({ codec: line(), state: () => ({ a: 1 }), onMessage: () => undefined });
  const seen: unknown[] = [];
  const after = defineService({
    codec: line(),
    stateVersion: 3,
    state: () => ({ a: 0, b: 0 }),
    onMessage: (_text, { connection }) => JSON.stringify(connection.state),
    resume({ state }, _bytes, _env, version) {
      seen.push(version, { ...state });
      state.b = 2;
    },
  });
  const rig = await pair(t, before, after);
  const peers = await peersOf(t, rig.a, 1);
  assert.deepEqual(await rig.move(), { moved: 1, kept: 0 });
  assert.deepEqual(seen, [1, { a: 1 }]);
  await echoes(peers, "x\n", '{"a":1,"b":2}\n');
});

for (const [what, hooks, level, said] of [
  ["a state that cannot be cloned", { state: () => ({ at: new URL("http://x/") }) }, 40, /state\.at is a URL/],
  ["a suspend that throws", { suspend: () => assert.fail("not now"), resume: () => {} }, 40, /not now/],
  ["a resume that throws", { resume: () => assert.fail("not here") }, 50, /not here/],
  ["a resume that is async", { resume: async () => assert.fail("too late") }, 50, /resume returned a promise/],
] as const) {
  test(`${what}: the connections stay and go on, and it is said once`, async (t) => {
    const service = defineService({ ...upper, ...(hooks as object) });
    const rig = await pair(t, service);
    const peers = await peersOf(t, rig.a, 70);
    for (let round = 0; round < 2; round++) assert.deepEqual(await rig.move(), { moved: 0, kept: 70 });
    assert.equal(rig.said.length, 1, JSON.stringify(rig.said));
    assert.equal(rig.said[0]?.level, level);
    assert.match(JSON.stringify(rig.said[0]?.err), said);
    await echoes(peers, "x\n", "X\n");
    assert.equal(rig.a.admission.count(0), 70);
    assert.equal(rig.b.figure("active"), 0);
    assert.deepEqual(rig.b.closes(), {});
  });
}

test("a service that opens but does not resume is told about once; one that resumes is not", async (t) => {
  const opening = await pair(t, defineService({ ...upper, onOpen: () => {} }));
  await peersOf(t, opening.a, 2);
  assert.deepEqual(await opening.move(), { moved: 2, kept: 0 });
  assert.deepEqual(await move(opening.b, opening.a).then(({ moved }) => moved), 2);
  await opening.move();
  const hints = opening.said.filter(({ msg }) => msg.includes("onOpen is not called again"));
  assert.equal(hints.length, 2, "once in each worker");
  assert.equal(hints[0]?.level, 30);
  const resuming = await pair(t, defineService({ ...upper, onOpen: () => {}, resume: () => {} }));
  await peersOf(t, resuming.a, 1);
  await resuming.move();
  assert.deepEqual(resuming.said, []);
});

// ---- what a worker hands off ----

interface Room {
  /** Of all messages of all connections. */
  total: number;
  log: string[];
}

function addTotal(room: Room, bytes: Uint8Array): void {
  room.total += Number(Buffer.from(bytes).toString());
}

function sharing(
  hooks: { handOff?: (env: Room) => unknown; takeOver?: (env: Room, bytes: Uint8Array) => Promise<void> | void } = {},
) {
  return defineService({
    codec: line(),
    env: (): Room => ({ total: 0, log: [] }),
    state: () => ({ mine: 0 }),
    onMessage: (_text, { connection, env }) => `${++connection.state.mine} ${++env.total}`,
    handOff(env) {
      env.log.push("handOff");
      return (hooks.handOff ?? (({ total }: Room) => Buffer.from(String(total))))(env) as Uint8Array;
    },
    takeOver(env, bytes) {
      env.log.push("takeOver");
      return (hooks.takeOver ?? addTotal)(env, bytes);
    },
    resume: (_connection, _bytes, env) => void env.log.push("resume"),
  });
}

const roomOf = ({ server }: Serving): Room => server.endpoints[0]?.env as Room;

test("what the worker shares is handed over once, before the first connection, and no message falls in between", async (t) => {
  const rig = await pair(t, sharing());
  const peers = await peersOf(t, rig.a, 100);
  let sent = 0;
  let over = false;
  const talk = async (peer: Peer): Promise<void> => {
    for (let mine = 1; !over; mine++) {
      const before = peer.text.split("\n").length;
      peer.write("x\n");
      sent += 1;
      await until("the reply", () => peer.text.split("\n").length > before);
      assert.equal(peer.text.split("\n")[mine - 1]?.split(" ")[0], String(mine));
    }
  };
  const talking = peers.map(talk);
  await until("some talk", () => sent > 300);
  for (let round = 0; round < 3; round++) {
    const [from, to] = round % 2 === 0 ? [rig.a, rig.b] : [rig.b, rig.a];
    roomOf(to).total = 0;
    roomOf(to).log.length = 0;
    const { moved } = await move(from, to);
    assert.equal(moved, 100);
    assert.deepEqual(roomOf(to).log, ["takeOver", ...Array<string>(100).fill("resume")]);
  }
  over = true;
  await Promise.all(talking);
  assert.equal(roomOf(rig.b).total, sent, "every message was counted once");
});

test("async hooks are awaited, and what is handed over may be large", async (t) => {
  const size = 20 << 20;
  let taken = 0;
  const service = sharing({
    handOff: async () => {
      await new Promise((resolve) => setImmediate(resolve));
      return Buffer.alloc(size, "shared");
    },
    takeOver: async (_env, bytes) => {
      await new Promise((resolve) => setImmediate(resolve));
      if (Buffer.alloc(size, "shared").equals(bytes)) taken += 1;
    },
  });
  const rig = await pair(t, service);
  await peersOf(t, rig.a, 1);
  assert.deepEqual(await rig.move(), { moved: 1, kept: 0 });
  assert.equal(taken, 1);
});

test("nothing to hand over, and nobody who moves: takeOver is called all the same", async (t) => {
  const rig = await pair(t, sharing({ handOff: () => new Uint8Array(), takeOver: () => {} }));
  assert.deepEqual(await rig.move(), { moved: 0, kept: 0 });
  assert.deepEqual(roomOf(rig.b).log, ["takeOver"]);
});

for (const [what, hooks, problem] of [
  ["handOff throws", { handOff: () => assert.fail("no paper") }, /no paper/],
  ["handOff rejects", { handOff: async () => assert.fail("no paper") }, /no paper/],
  ["handOff returns text", { handOff: () => "text" }, /handOff returned string/],
  [
    "handOff returns too much",
    { handOff: () => Buffer.alloc((64 << 20) + 1) },
    /67108865 bytes; allowed: at most 67108864/,
  ],
  ["takeOver throws", { takeOver: () => assert.fail("not mine") }, /not mine/],
  ["takeOver rejects", { takeOver: async () => assert.fail("not mine") }, /not mine/],
] as const) {
  test(`${what}: all its connections stay, it is said, and they go on`, async (t) => {
    const rig = await pair(t, sharing(hooks));
    const peers = await peersOf(t, rig.a, 5);
    assert.deepEqual(await rig.move(), { moved: 0, kept: 5 });
    const warned = rig.said.filter(({ level }) => level === 40);
    assert.equal(warned.length, 1);
    assert.match(String(warned[0]?.problem), problem);
    await echoes(peers.slice(0, 1), "x\n", "1 1\n");
  });
}

test("a request that does not end holds the hand-over up, and then it is off", async (t) => {
  const releases: (() => void)[] = [];
  const service = defineService({
    codec: line(),
    env: () => ({ total: 0 }),
    onMessage: (text): string | Promise<string> =>
      text === "wait" ? new Promise((resolve) => releases.push(() => resolve("done"))) : text,
    handOff: () => assert.fail("a request is in flight"),
    takeOver: () => {},
  });
  const rig = await pair(t, service);
  const [busy, ...idle] = await peersOf(t, rig.a, 3);
  busy?.write("wait\n");
  await until("the request", () => releases.length === 1);
  assert.deepEqual(await rig.move({ withinMs: 200 }), { moved: 0, kept: 3 });
  assert.match(String(rig.said.find(({ level }) => level === 40)?.problem), /in flight/);
  await echoes(idle, "x\n", "x\n");
  releases[0]?.();
  await busy?.receives(5);
});
