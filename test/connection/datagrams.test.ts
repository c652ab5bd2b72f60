/** A UDP service without a socket: replies, the guard, what is refused, and nothing ever at the wrong address. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DeadlineExceeded } from "#src/base/errors.js";
import { type TestDatagrams, testDatagrams } from "#src/connection/datagram-harness.js";
import { type DatagramSource, defineUdpService, type UdpSocket } from "#src/service/udp.js";

const CLIENTS = Array.from({ length: 50 }, (_, index) => ({ host: `198.51.100.${index}`, port: 1_000 + index }));

/** README: so long a verified source may be silent. */
const SILENT_MS = 300_000;

const textsOf = (tested: TestDatagrams): string[] =>
  tested.sent().map(({ to, bytes }) => `${to.host} ${to.port} ${bytes}`);

/** What client `index` sends: of another length than most others'. */
const messageOf = (index: number): string => `${index}:`.padEnd(10 + index * 7, "x");

describe("replies", () => {
  test("text, bytes and borrowed bytes go back to the source; nothing is no reply", () => {
    const tested = testDatagrams(
      defineUdpService({
        onDatagram(message, { host, port }) {
          if (message.length === 0) return "";
          if (message[0] === 0x71) return undefined;
          return message[0] === 0x74 ? `${host} ${port}` : message;
        },
      }),
    );
    tested.receive("text of some length", { host: "2001:db8::1", port: 7 });
    tested.receive("bytes");
    tested.receive("quiet");
    tested.receive("");
    assert.deepEqual(textsOf(tested), ["2001:db8::1 7 2001:db8::1 7", "192.0.2.1 40000 bytes", "192.0.2.1 40000 "]);
    assert.deepEqual([tested.figures.received, tested.figures.sent], [4, 3]);
  });

  test("what is neither text nor bytes is an error of the handler", () => {
    const tested = testDatagrams(defineUdpService({ onDatagram: () => 7 as unknown as string }));
    tested.receive("x");
    assert.deepEqual(textsOf(tested), []);
    assert.equal(tested.figures.errors, 1);
  });

  test("a handler that throws: counted, and onError may answer", () => {
    const onDatagram = (): never => {
      throw new Error("broken");
    };
    const silent = testDatagrams(defineUdpService({ onDatagram }));
    silent.receive("x");
    assert.deepEqual(textsOf(silent), []);
    assert.equal(silent.figures.errors, 1);
    const tells = testDatagrams(
      defineUdpService({ onDatagram, onError: (error) => (error as Error).message.slice(0, 2) }),
    );
    tells.receive("xy");
    assert.deepEqual(textsOf(tells), ["192.0.2.1 40000 br"]);
  });

  test("longer than limits.datagram: refused, and counted", () => {
    const results: string[] = [];
    const tested = testDatagrams(
      defineUdpService({
        limits: { datagram: 10 },
        onDatagram(message, from) {
          results.push(from.send("x".repeat(11)), from.send("é".repeat(6)), from.send("y".repeat(10)));
          return Buffer.concat([message, message]);
        },
      }),
    );
    tested.receive("123456");
    assert.deepEqual(results, ["refused", "refused", "ok"]);
    assert.deepEqual(textsOf(tested), ["192.0.2.1 40000 yyyyyyyyyy"]);
    assert.equal(tested.figures.oversized, 3);
    tested.receive("longer than that");
    assert.equal(tested.figures.truncated, 1);
  });

  test("a worker that serves no more says closed", () => {
    const tested = testDatagrams(defineUdpService({ onDatagram: (_, from) => from.send("x") }));
    tested.stop();
    tested.receive("message");
    assert.deepEqual(textsOf(tested), []);
    assert.equal(tested.figures.failed, 2);
  });
});

describe("later", () => {
  test("async handlers, answered in any order: each gets its own bytes, at its own address", async () => {
    const waiting: (() => void)[] = [];
    const tested = testDatagrams(
      defineUdpService({
        async onDatagram(message, from) {
          const [before, host] = [message.toString(), from.host];
          await new Promise<void>((resolve) => waiting.push(resolve));
          assert.equal(message.toString(), before);
          assert.equal(from.host, host);
          return message;
        },
      }),
    );
    for (const [index, client] of CLIENTS.entries()) tested.receive(messageOf(index), client);
    assert.equal(tested.inFlight, CLIENTS.length);
    const order = CLIENTS.map((_, index) => (index * 17) % CLIENTS.length);
    for (const index of order) waiting[index]?.();
    await tested.settle();
    assert.deepEqual(
      textsOf(tested),
      order.map((index) => `198.51.100.${index} ${1_000 + index} ${messageOf(index)}`),
    );
    assert.equal(tested.inFlight, 0);
  });

  test("a handler that is async only sometimes: what it kept is not overwritten by those after it", async () => {
    const tested = testDatagrams(
      defineUdpService({
        onDatagram: (message) =>
          message.length % 2 === 0 ? message : new Promise<Buffer>((resolve) => setImmediate(() => resolve(message))),
      }),
    );
    for (const [index, client] of CLIENTS.entries()) tested.receive(messageOf(index), client);
    await tested.settle();
    const expected = CLIENTS.map((_, index) => `198.51.100.${index} ${1_000 + index} ${messageOf(index)}`);
    assert.deepEqual(textsOf(tested).sort(), expected.sort());
  });

  test("a source that was kept; one that was not throws wherever it is used", async () => {
    const kept: DatagramSource[] = [];
    const reused: DatagramSource[] = [];
    const bytes: Buffer[] = [];
    const tested = testDatagrams(
      defineUdpService({
        onDatagram(message, from) {
          kept.push(from.keep());
          reused.push(from);
          bytes.push(message);
        },
      }),
    );
    for (const [index, client] of CLIENTS.entries()) tested.receive(messageOf(index), client);
    for (const [index, to] of kept.entries()) assert.equal(tested.socket.send(`to ${index}`, to), "ok");
    assert.deepEqual(
      textsOf(tested),
      CLIENTS.map(({ host, port }, index) => `${host} ${port} to ${index}`),
    );
    for (const from of reused) {
      for (const use of [() => from.host, () => from.port, () => from.keep(), () => from.verify()]) {
        assert.throws(use, /valid until its handler returns/);
      }
      assert.throws(() => tested.socket.send("x", from), /valid until its handler returns/);
    }
    assert.ok(
      bytes.every((each) => each.every((byte) => byte === 0xdb)),
      "borrowed bytes are overwritten",
    );
  });

  test("as bytes: each message is the handler's", () => {
    const bytes: Buffer[] = [];
    const service = defineUdpService({ as: "bytes", onDatagram: (message) => void bytes.push(message) });
    const tested = testDatagrams(service);
    for (const index of CLIENTS.keys()) tested.receive(messageOf(index));
    assert.deepEqual(
      bytes.map(String),
      CLIENTS.map((_, index) => messageOf(index)),
    );
  });

  test("timeouts.request: the handler's answer is late, onError's is not", async () => {
    const waiting: (() => void)[] = [];
    const errors: unknown[] = [];
    const tested = testDatagrams(
      defineUdpService({
        timeouts: { request: "1s" },
        onDatagram: (message) => new Promise<Buffer>((resolve) => waiting.push(() => resolve(message))),
        onError(error, { host }) {
          errors.push(error);
          return host;
        },
      }),
    );
    tested.receive("0123456789", CLIENTS[1]);
    tested.tick(999);
    tested.receive("0123456789", CLIENTS[2]);
    tested.tick(1);
    assert.deepEqual(textsOf(tested), ["198.51.100.1 1001 198.51.100.1"]);
    assert.ok(errors[0] instanceof DeadlineExceeded);
    assert.equal(tested.inFlight, 1);
    for (const answer of waiting) answer();
    await tested.settle();
    assert.deepEqual(textsOf(tested), ["198.51.100.2 1002 0123456789"]);
    assert.deepEqual([tested.inFlight, tested.figures.errors], [0, 1]);
  });

  test("a promise that rejects is an error like one that is thrown", async () => {
    const tested = testDatagrams(defineUdpService({ onDatagram: () => Promise.reject(new Error("late")) }));
    tested.receive("x");
    await tested.settle();
    assert.deepEqual([tested.inFlight, tested.figures.errors], [0, 1]);
  });
});

describe("the guard against amplification", () => {
  const answering = (size: (message: Buffer) => number): TestDatagrams =>
    testDatagrams(defineUdpService({ onDatagram: (message) => "x".repeat(size(message)) }));

  test("three times what came, and not a byte more", () => {
    const tested = answering((message) => message[0] as number);
    tested.receive(Buffer.from([6, 0]));
    tested.receive(Buffer.from([7, 0]));
    assert.deepEqual(
      tested.sent().map(({ bytes }) => bytes.length),
      [6],
    );
    assert.equal(tested.figures.unverified, 1);
    // What the second one did not use is there for the third, from the same port.
    tested.receive(Buffer.from([12, 0]));
    tested.receive(Buffer.from([1, 0]), { host: "192.0.2.1", port: 1 });
    assert.deepEqual(
      tested.sent().map(({ bytes }) => bytes.length),
      [12, 1],
    );
  });

  test("over all of its answers together, whenever they are made", async () => {
    const tested = testDatagrams(
      defineUdpService({
        onDatagram: (message, from) => {
          const results = [1, 2, 3, 4].map(() => from.send(message));
          assert.deepEqual(results, ["ok", "ok", "ok", "refused"]);
          return new Promise<Buffer>((resolve) => setImmediate(() => resolve(message)));
        },
      }),
    );
    tested.receive("abc");
    await tested.settle();
    assert.equal(tested.sent().length, 3);
    assert.equal(tested.figures.unverified, 2);
  });

  test("a source that is verified gets anything; so does a kept one of the same address", () => {
    const kept: DatagramSource[] = [];
    const tested = testDatagrams(
      defineUdpService({
        onDatagram(message, from) {
          if (message.toString() === "secret") from.verify();
          if (kept.length === 0) kept.push(from.keep());
          return from.verified ? "x".repeat(1_000) : "who?";
        },
      }),
    );
    const lengths = (): number[] => tested.sent().map(({ bytes }) => bytes.length);
    tested.receive("hello");
    assert.equal(tested.socket.send("x".repeat(1_000), kept[0] as DatagramSource), "refused");
    tested.receive("secret");
    tested.receive("hello", { host: "192.0.2.1", port: 2 });
    assert.deepEqual(lengths(), [4, 1_000, 4]);
    assert.equal(kept[0]?.verified, true);
    assert.equal(tested.socket.send("x".repeat(1_000), kept[0] as DatagramSource), "ok");
    assert.equal(tested.socket.send("x".repeat(1_000), tested.socket.source("192.0.2.1", 40_000)), "ok");
    assert.equal(tested.socket.send("x", tested.socket.source("192.0.2.1", 3)), "refused");
  });

  test("silent for five minutes it is verified no more, for what is pushed to it either", () => {
    const kept: DatagramSource[] = [];
    const tested = testDatagrams(
      defineUdpService({
        onDatagram(message, from) {
          if (message.toString() === "secret") from.verify();
          if (kept.length === 0) kept.push(from.keep());
        },
      }),
    );
    tested.receive("secret");
    const [peer] = kept as [DatagramSource];
    const push = (): string => tested.socket.send("x".repeat(1_000), peer);
    tested.tick(SILENT_MS);
    assert.deepEqual([peer.verified, push()], [true, "ok"]);
    tested.tick(1);
    assert.deepEqual([peer.verified, push()], [false, "refused"]);
    assert.equal(tested.socket.send("x", tested.socket.source("192.0.2.1", 40_000)), "refused");
    // What it sends then earns credit, and no more.
    tested.receive("hello");
    assert.deepEqual([peer.verified, tested.socket.send("x".repeat(15), peer), push()], [false, "ok", "refused"]);
    tested.receive("secret");
    tested.tick(SILENT_MS - 1);
    tested.receive("hello");
    tested.tick(SILENT_MS);
    assert.deepEqual([peer.verified, push()], [true, "ok"]);
  });

  test("whoever is verified without having sent anything is so from then on, again and again", () => {
    const tested = testDatagrams(defineUdpService({ onDatagram() {} }));
    const peer = tested.socket.source("192.0.2.9", 9);
    for (let time = 0; time < 3; time++) {
      assert.equal(tested.socket.send("x", peer), "refused");
      peer.verify();
      tested.tick(SILENT_MS);
      assert.equal(tested.socket.send("x".repeat(1_000), peer), "ok");
      tested.tick(1);
    }
  });

  test("switched off", () => {
    const service = defineUdpService({ limits: { amplification: "off" }, onDatagram: () => "x".repeat(1_000) });
    const tested = testDatagrams(service);
    tested.receive("");
    assert.equal(tested.sent()[0]?.bytes.length, 1_000);
    assert.equal(tested.socket.send("x", tested.socket.source("2001:db8::2", 9)), "ok");
  });
});

test("overload: refused before the handler is called, with the service's own busy, of low priority first", () => {
  const handled: string[] = [];
  const tested = testDatagrams(
    defineUdpService({
      limits: { inFlightPerWorker: 2 },
      priority: (message) => (message[0] === 0x6c ? "low" : "high"),
      busy: () => "busy",
      onDatagram(message) {
        handled.push(message.toString());
        return new Promise<undefined>(() => {});
      },
    }),
  );
  for (const text of ["low 1", "low 2", "high 1", "high 2"]) tested.receive(text);
  assert.deepEqual(handled, ["low 1", "high 1"]);
  assert.deepEqual(textsOf(tested), ["192.0.2.1 40000 busy", "192.0.2.1 40000 busy"]);
});

test("overload: a priority that throws is an error of the handler, and concerns that datagram alone", () => {
  const tested = testDatagrams(
    defineUdpService({
      limits: { inFlightPerWorker: 2 },
      priority(message) {
        if (message.length === 3) throw new Error("broken");
        return "normal";
      },
      busy: () => "busy",
      onError: (error) => (error as Error).message.slice(0, 4),
      onDatagram: () => new Promise<undefined>(() => {}),
    }),
  );
  for (const text of ["long 1", "long 2", "bad", "long 3"]) tested.receive(text);
  assert.deepEqual(
    textsOf(tested),
    ["busy", "brok", "busy"].map((text) => `192.0.2.1 40000 ${text}`),
  );
  assert.equal(tested.figures.errors, 1);
});

describe("what is wrong is said at once", () => {
  for (const [definition, message] of [
    [{}, /onDatagram: missing/],
    [{ onDatagram: 1 }, /onDatagram: not a function/],
    [{ onDatagram() {}, onMesage() {} }, /onMesage: unknown/],
    [{ onDatagram() {}, ondatagram() {} }, /did you mean onDatagram\?/],
    [{ onDatagram() {}, as: "text" }, /as: unknown; allowed: borrowed, bytes/],
    [{ onDatagram() {}, limits: { frame: 1 } }, /limits\.frame: unknown; allowed: datagram, /],
    [{ onDatagram() {}, limits: { datagram: 70_000 } }, /limits\.datagram: 70000 is out of range/],
    [{ onDatagram() {}, timeouts: { idle: "1s" } }, /timeouts\.idle: unknown; allowed: request/],
    [{ onDatagram() {}, pools: [1] }, /pools: not a list of pools/],
    [null, /expects an object with onDatagram/],
  ] as const) {
    test(String(message), () => assert.throws(() => defineUdpService(definition as never), message));
  }

  test("an address that is none, and what is no source", () => {
    const { socket } = testDatagrams(defineUdpService({ onDatagram() {} }));
    for (const [host, port] of [
      ["example.org", 1],
      ["10.0.0.0/8", 1],
      ["10.0.0.1", 0],
      ["10.0.0.1", 65_536],
      ["10.0.0.1", 1.5],
    ] as const) {
      assert.throws(() => socket.source(host, port), { code: "address-unavailable" });
    }
    const send = socket.send as (message: string, to: unknown) => unknown;
    assert.throws(() => send.call(socket, "x", { host: "10.0.0.1", port: 1 }), /nowhere to send to/);
  });

  test("before the worker serves nothing is sent", () => {
    let early: UdpSocket | undefined;
    const service = defineUdpService({ limits: { amplification: "off" }, onDatagram() {} });
    testDatagrams(service, {
      env(socket) {
        early = socket;
        assert.equal(socket.send("x", socket.source("10.0.0.1", 1)), "closed");
      },
    });
    assert.equal(early?.send("x", early.source("10.0.0.1", 1)), "ok");
  });
});

test("addresses as text: IPv4, IPv6, IPv4 in IPv6", () => {
  const seen: string[] = [];
  const service = defineUdpService({ onDatagram: (_, { host, port }) => void seen.push(`${host} ${port}`) });
  const tested = testDatagrams(service);
  const given = ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::ff00:42:8329", "fe80::1", "::"];
  for (const host of given) tested.receive("x", { host, port: 65_535 });
  tested.receive("x", { host: "::ffff:10.1.2.3", port: 1 });
  assert.deepEqual(seen, [...given.map((host) => `${host} 65535`), "10.1.2.3 1"]);
});
