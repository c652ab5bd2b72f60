/** Connections that begin with a PROXY header, over real sockets: who is believed, who is the client, and what is not. */
import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { REJECT_REASONS, type RejectReason } from "#src/base/reasons.js";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { WORKER_REJECTED } from "#src/os/scoreboard.js";
import type { ConnectionInfo } from "#src/service/connection.js";
import { defineService } from "#src/service/define.js";
import { attemptPeer, openPeer, type Peer } from "../support/peer.js";
import { ENDS, packValues, V2_SIGNATURE, v1, v2, v2Local, v2Raw } from "../support/proxy-headers.js";
import { openServing, type Serving, type ServingOptions } from "../support/serving.js";
import { byteByByte } from "../support/splits.js";
import { until } from "../support/until.js";

const TRUSTED = { trust: ["10.0.0.0/8", "127.0.0.0/8"], required: true };
const OPTIONAL = { ...TRUSTED, required: false };
const STRANGE = { trust: ["10.0.0.0/8"], required: true };

interface Told extends Serving {
  /** What `onOpen` saw, in order. */
  readonly opened: Pick<ConnectionInfo, "remote" | "peer" | "proxy">[];
  readonly closed: string[];
  rejected(): Partial<Record<RejectReason, number>>;
}

/** An echo of lines that writes down whom it serves. */
async function open(t: TestContext, options: ServingOptions = {}): Promise<Told> {
  const opened: Told["opened"] = [];
  const closed: string[] = [];
  const service = defineService({
    codec: line(),
    onOpen: ({ remote, peer, proxy }) => void opened.push({ remote, peer, proxy }),
    onMessage: (text) => text,
    onDraining: () => "goodbye",
    onClose: (_connection, reason) => void closed.push(reason),
  });
  const serving = await openServing(t, service, { proxyProtocol: TRUSTED, ...options });
  const head = serving.scoreboard.block(0).head;
  return {
    ...serving,
    opened,
    closed,
    rejected: () =>
      Object.fromEntries(
        REJECT_REASONS.map((reason, index) => [reason, head[WORKER_REJECTED + index] ?? 0] as const).filter(
          ([, count]) => count > 0,
        ),
      ),
  };
}

async function pieces(peer: Peer, parts: readonly Uint8Array[]): Promise<void> {
  for (const part of parts) {
    peer.write(part);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Not ended: whoever writes meanwhile may be told so by EPIPE. */
const wasReset = (peer: Peer): Promise<true> =>
  until("a reset", () => (peer.error !== undefined && !peer.ended) || undefined);
const stranger = (host: string, sourcePort = 7): Buffer => v1({ ...ENDS, source: host, sourcePort });

for (const [what, header] of [
  ["version 1", v1()],
  ["version 2", v2()],
  ["version 2 with values and a checksum", v2(ENDS, [{ type: 5, value: Buffer.from("unique") }], true)],
] as const) {
  test(`${what}: the service sees the client, the proxy and the rest of the bytes, however they were cut`, async (t) => {
    const serving = await open(t);
    const client = { host: ENDS.source, port: ENDS.sourcePort };
    const ways = [
      (peer: Peer) => peer.write(Buffer.concat([header, Buffer.from("hello\n")])),
      (peer: Peer) => pieces(peer, byteByByte(Buffer.concat([header, Buffer.from("hello\n")]))),
      (peer: Peer) => pieces(peer, [header, Buffer.from("hello\n")]),
      (peer: Peer) =>
        pieces(peer, [header.subarray(0, 9), Buffer.concat([header.subarray(9), Buffer.from("hello\n")])]),
    ];
    for (const [index, way] of ways.entries()) {
      const peer = await openPeer(t, serving.port);
      await way(peer);
      await peer.receives(6);
      assert.equal(peer.text, "hello\n");
      const seen = serving.opened[index];
      assert.deepEqual(seen?.remote, client);
      assert.deepEqual(seen?.peer, { host: "127.0.0.1", port: peer.socket.localPort });
      assert.equal(seen?.proxy?.version, what === "version 1" ? 1 : 2);
      assert.deepEqual(seen?.proxy?.destination, { host: ENDS.destination, port: ENDS.destinationPort });
      assert.deepEqual(
        seen?.proxy?.tlvs.map(({ type }) => type),
        what.includes("values") ? [5, 3] : [],
      );
    }
    assert.equal(serving.figure("opened"), ways.length);
    assert.equal(serving.figure("prefaces"), 0);
    assert.equal(serving.scoreboard.block(0).get("bytesHeldIn"), 0);
  });
}

test("a megabyte in the same breath as the header", async (t) => {
  const serving = await open(t);
  const peer = await openPeer(t, serving.port);
  const lines = `${"x".repeat(99)}\n`.repeat(10_486);
  peer.write(Buffer.concat([v2(), Buffer.from(lines)]));
  await peer.receives(lines.length);
  assert.equal(peer.text, lines);
});

test("the peer's FIN: behind a header and a request it is answered; before the header's end nobody hears of it", async (t) => {
  const serving = await open(t);
  const whole = await openPeer(t, serving.port);
  whole.socket.end(Buffer.concat([v1(), Buffer.from("last\n")]));
  await until("the end", () => whole.ended);
  assert.equal(whole.text, "last\n");
  for (const bytes of [Buffer.alloc(0), v1().subarray(0, 20)]) (await openPeer(t, serving.port)).socket.end(bytes);
  await until("all have ended", () => serving.closes()["peer-closed"] === 3);
  assert.deepEqual(serving.closed, ["peer-closed"]);
  assert.equal(serving.figure("prefaces"), 0);
  const reset = await openPeer(t, serving.port);
  reset.write(v1().subarray(0, 20));
  await until("it is there", () => serving.figure("prefaces") === 1);
  reset.reset();
  await until("it has gone", () => serving.closes()["peer-reset"] === 1);
  assert.equal(serving.scoreboard.block(0).get("bytesHeldIn"), 0);
});

test("from a network that is not trusted nobody is let in, whatever he says", async (t) => {
  const serving = await open(t, { proxyProtocol: STRANGE });
  for (const bytes of [v1(), v2(), v2Local(), Buffer.from("hello\n"), Buffer.alloc(0)]) {
    const peer = await attemptPeer(t, serving.port);
    peer.write(bytes);
    await wasReset(peer);
    assert.equal(peer.length, 0);
  }
  assert.deepEqual(serving.closes(), { "proxy-untrusted": 5 });
  assert.deepEqual([serving.opened.length, serving.closed.length], [0, 0]);
});

test("what is no header, or a wrong or too long one, closes as proxy-invalid, and the log says why once a second", async (t) => {
  const said: string[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      said.push(String(chunk));
      done();
    },
  });
  const serving = await open(t, { limits: { proxyHeader: 300 }, log: pino({ level: "warn" }, sink) });
  for (const bytes of [
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    Buffer.from("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"),
    v2Raw(0x21, 0x11, Buffer.alloc(11)),
    v2(ENDS, [{ type: 0xe0, value: Buffer.alloc(270) }]).subarray(0, 16),
    Buffer.from(`PROXY UNKNOWN ${"x".repeat(100)}`),
  ]) {
    const peer = await openPeer(t, serving.port);
    peer.write(bytes);
    await wasReset(peer);
  }
  assert.deepEqual(serving.closes(), { "proxy-invalid": 5 });
  assert.deepEqual(serving.opened, []);
  assert.ok(said.length >= 1 && said.length <= 2, said.join());
  const first = JSON.parse(said[0] ?? "{}");
  assert.match(first.msg, /^PROXY header: the connection does not begin with one; closed/);
  assert.deepEqual([first.reason, first.peer.host, first.connections], ["proxy-invalid", "127.0.0.1", 1]);
});

for (const [what, begun] of [
  ["never begun", Buffer.alloc(0)],
  ["never finished", v2().subarray(0, 20)],
] as const) {
  test(`a header that is ${what} ends by its deadline, which dribbling does not extend`, async (t) => {
    const serving = await open(t, { timeouts: { proxyHeader: 400 } });
    const peers = await Promise.all([0, 1].map(() => openPeer(t, serving.port)));
    const began = performance.now();
    for (const peer of peers) peer.write(begun);
    const dribble = setInterval(() => peers[1]?.socket.write(begun.length > 0 ? "\0" : ""), 100);
    t.after(() => clearInterval(dribble));
    await Promise.all(peers.map(wasReset));
    clearInterval(dribble);
    const after = performance.now() - began;
    assert.ok(after > 300 && after < 1_500, `${after} ms`);
    assert.deepEqual(serving.closes(), { "proxy-header-timeout": 2 });
    assert.equal(serving.figure("prefaces"), 0);
    assert.equal(serving.scoreboard.block(0).get("bytesHeldIn"), 0);
  });
}

test("the deadline of the first byte begins behind the header, whose bytes are none of the client's", async (t) => {
  const serving = await open(t, { timeouts: { firstByte: 300, idle: "off" } });
  const silent = await openPeer(t, serving.port);
  silent.write(v2());
  await until("its end", () => silent.ended);
  assert.deepEqual(serving.closes(), { "first-byte-timeout": 1 });
});

// ---- who the client is ----

test("limits of an address are those of the client that is named; refused ones are reset and counted", async (t) => {
  const serving = await open(t, { limits: { connectionsPerAddress: 2 } });
  const came = async (header: Buffer): Promise<Peer> => {
    const peer = await openPeer(t, serving.port);
    peer.write(Buffer.concat([header, Buffer.from("hi\n")]));
    return peer;
  };
  const first = await came(stranger("192.0.2.1"));
  for (const peer of [first, await came(stranger("192.0.2.1")), await came(stranger("192.0.2.2"))])
    await peer.receives(3);
  await wasReset(await came(stranger("192.0.2.1")));
  assert.deepEqual(serving.rejected(), { "per-address": 1 });
  assert.equal(serving.opened.length, 3);
  first.end();
  await until("a place", () => serving.figure("active") === 2);
  await (await came(stranger("192.0.2.1"))).receives(3);
  assert.equal(serving.figure("prefaces"), 0);
  assert.equal(serving.server.engine.open, 3);
});

test("onLimit: close tells a client of a full address by FIN", async (t) => {
  const serving = await open(t, { limits: { connectionsPerAddress: 1, onLimit: "close" } });
  const peers = [await openPeer(t, serving.port), await openPeer(t, serving.port)];
  peers[0]?.write(stranger("192.0.2.1"));
  await until("the first", () => serving.opened.length === 1);
  peers[1]?.write(stranger("192.0.2.1"));
  await until("its end", () => peers[1]?.ended);
  assert.equal(peers[1]?.error, undefined);
  assert.deepEqual(serving.rejected(), { "per-address": 1 });
});

test("all of them are counted in the total from accept on", async (t) => {
  const serving = await open(t, { connections: 2 });
  await openPeer(t, serving.port);
  await openPeer(t, serving.port);
  await until("both", () => serving.figure("prefaces") === 2);
  const third = await attemptPeer(t, serving.port);
  third.write(v1());
  await wasReset(third);
  assert.deepEqual(serving.rejected(), { "max-connections": 1 });
});

test("a proxy that names nobody is itself the client, and no limit or list of clients is its concern", async (t) => {
  const serving = await open(t, { limits: { connectionsPerAddress: 1 } });
  const unix = v2Raw(0x21, 0x31, Buffer.alloc(216));
  const checked = v2Local(packValues([{ type: 5, value: Buffer.from("check") }]));
  const headers = [Buffer.from("PROXY UNKNOWN\r\n"), v2Local(), checked, v2Raw(0x21, 0, Buffer.alloc(0)), unix];
  for (const [index, header] of headers.entries()) {
    const peer = await openPeer(t, serving.port);
    peer.write(Buffer.concat([header, Buffer.from("check\n")]));
    await peer.receives(6);
    const { remote, peer: proxy, proxy: info } = serving.opened[index] ?? {};
    assert.deepEqual(remote, { host: "127.0.0.1", port: peer.socket.localPort });
    assert.deepEqual(remote, proxy);
    assert.equal(info?.local, header !== unix);
  }
  assert.equal(serving.opened[2]?.proxy?.tlvs[0]?.value.toString(), "check");
  // As HAProxy's checks in version 1: they name their own end of the connection.
  for (const [port, local] of [
    [0, true],
    [1, false],
  ] as const) {
    const peer = await openPeer(t, serving.port);
    const sourcePort = (peer.socket.localPort ?? 0) - port;
    peer.write(v1({ ...ENDS, source: "127.0.0.1", destination: "127.0.0.1", sourcePort }));
    await until("it is served", () => serving.opened.at(-1)?.remote.port === sourcePort);
    assert.equal(serving.opened.at(-1)?.proxy?.local, local);
  }
  assert.deepEqual(serving.rejected(), {});
});

// ---- where a header may be missing ----

test("required: false: without a header the peer is the client, and its limits hold", async (t) => {
  const serving = await open(t, { proxyProtocol: OPTIONAL, limits: { connectionsPerAddress: 1 } });
  const plain = await openPeer(t, serving.port);
  await pieces(plain, byteByByte(Buffer.from("PROX\n")));
  await plain.receives(5);
  assert.equal(plain.text, "PROX\n");
  assert.equal(serving.opened[0]?.proxy, undefined);
  assert.deepEqual(serving.opened[0]?.remote, serving.opened[0]?.peer);
  const behind = await openPeer(t, serving.port);
  behind.write(Buffer.concat([v2(), Buffer.from("hi\n")]));
  await behind.receives(3);
  assert.equal(serving.opened[1]?.remote.host, ENDS.source);
  const second = await openPeer(t, serving.port);
  second.write("second\n");
  await wasReset(second);
  assert.deepEqual(serving.rejected(), { "per-address": 1 });
});

test("required: false: a header from elsewhere is refused, and so is one that is begun and not finished", async (t) => {
  const options = { timeouts: { proxyHeader: 300 } } as const;
  const serving = await open(t, { proxyProtocol: { ...STRANGE, required: false }, ...options });
  for (const bytes of [v1(), v2(), v2Local()]) {
    const peer = await openPeer(t, serving.port);
    peer.write(bytes);
    await wasReset(peer);
  }
  const half = await openPeer(t, serving.port);
  half.write(V2_SIGNATURE);
  await wasReset(half);
  assert.deepEqual(serving.closes(), { "proxy-untrusted": 3, "proxy-header-timeout": 1 });
  assert.deepEqual(serving.opened, []);
});

test("required: false: who is no proxy is limited from the first moment, not only when the header is overdue", async (t) => {
  const options = { timeouts: { proxyHeader: 60_000 }, limits: { connectionsPerAddress: 1 } } as const;
  const serving = await open(t, { proxyProtocol: { ...STRANGE, required: false }, ...options });
  const first = await openPeer(t, serving.port);
  await until("it is there", () => serving.figure("prefaces") === 1);
  await wasReset(await attemptPeer(t, serving.port));
  assert.deepEqual(serving.rejected(), { "per-address": 1 });
  first.write("hi\n");
  await first.receives(3);
  first.socket.end();
  await until("its end", () => first.ended);
  const second = await openPeer(t, serving.port);
  second.write("counted once\n");
  await second.receives(13);
});

test("required: false: who waits for the service to speak is served after the deadline; who half-closes, at once", async (t) => {
  const serving = await open(t, { proxyProtocol: OPTIONAL, timeouts: { proxyHeader: 200, firstByte: "off" } });
  const silent = await openPeer(t, serving.port);
  await until("it is served", () => serving.opened.length === 1);
  silent.write("at last\n");
  await silent.receives(8);
  const brief = await openPeer(t, serving.port);
  brief.socket.end("PROXY");
  await until("its end", () => brief.ended);
  assert.deepEqual(serving.closed, ["peer-closed"]);
  assert.equal(serving.opened.length, 2);
});

// ---- the worker's end ----

test("a worker that stops waits for headers until their deadline, and drains who comes through", async (t) => {
  const serving = await open(t, { timeouts: { proxyHeader: 2_000 } });
  const [late, never] = [await openPeer(t, serving.port), await openPeer(t, serving.port)];
  await until("both", () => serving.figure("prefaces") === 2);
  const stopped = serving.server.stop({ drainMs: 5_000 });
  await until("it accepts no more", () => serving.server.accepting.size === 0);
  assert.equal(serving.figure("prefaces"), 2);
  late.write(v1());
  await until("its goodbye", () => late.ended);
  assert.equal(late.text, "goodbye\n");
  never.reset();
  await stopped;
  assert.deepEqual(serving.closes(), { drain: 1, "peer-reset": 1 });
});

test("at the drain deadline, and when a worker crashes, they are reset", async (t) => {
  for (const end of ["drain", "killed"] as const) {
    const serving = await open(t);
    const peer = await openPeer(t, serving.port);
    await until("it is there", () => serving.figure("prefaces") === 1);
    if (end === "drain") await serving.server.stop({ drainMs: 100 });
    else serving.server.abort();
    await wasReset(peer);
    assert.deepEqual(serving.closes(), { [end]: 1 });
    assert.equal(serving.figure("prefaces"), 0);
  }
});

test("who comes through on a listener that was removed is drained", async (t) => {
  const serving = await open(t);
  const peer = await openPeer(t, serving.port);
  await until("it is there", () => serving.figure("prefaces") === 1);
  serving.server.unlist(0);
  peer.write(v1());
  await until("its goodbye", () => peer.ended);
  assert.equal(peer.text, "goodbye\n");
  assert.deepEqual(serving.closes(), { drain: 1 });
});

test("a listener without the option reads no header", async (t) => {
  const serving = await openServing(t, defineService({ codec: line(), onMessage: (text) => text }));
  const peer = await openPeer(t, serving.port);
  peer.write(v1());
  await peer.receives(v1().length);
  assert.equal(peer.text, String(v1()));
});

test("testConnection: a service is shown what a header would have brought", () => {
  const service = defineService({
    codec: line(),
    onMessage: (_text, { connection: { remote, peer, proxy } }) => `${remote.host} ${peer.host} ${proxy?.version}`,
  });
  const proxy = { version: 2, local: false, tlvs: [] } as const;
  const harness = testConnection(service, { peer: { host: "10.0.0.1", port: 1 }, proxy });
  harness.push("who\n");
  assert.equal(harness.sent().toString(), "192.0.2.1 10.0.0.1 2\n");
  const after = harness.moved();
  after.push("who\n");
  assert.equal(after.sent().toString(), "192.0.2.1 10.0.0.1 2\n");
  const plain = testConnection(service);
  plain.push("who\n");
  assert.equal(plain.sent().toString(), "192.0.2.1 192.0.2.1 undefined\n");
});
