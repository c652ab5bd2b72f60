/** Datagrams through the engine with real sockets: batches, sources, what is dropped and counted, and what is not lost. */
import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { SOURCE, SOURCE_SILENT_MS, SOURCE_VERIFIED } from "#src/engine/layout.js";
import { addon } from "#src/os/addon.js";
import { duplicateDescriptor } from "#src/os/descriptors.js";
import { type DatagramSource, defineUdpService, type UdpSocket } from "#src/service/udp.js";
import { bindUdp, openUdpServing, UdpClient } from "../support/udp.js";
import { until } from "../support/until.js";

const echo = defineUdpService({ onDatagram: (message) => message });

for (const [host, to] of [
  ["127.0.0.1", "127.0.0.1"],
  ["::1", "::1"],
  ["0.0.0.0", "127.0.0.1"],
  ["::", "::1"],
  ["::", "127.0.0.1"],
] as const) {
  test(`a listener on ${host} answers a client that asks ${to}, whatever the length`, async (t) => {
    const serving = await openUdpServing(t, echo, { host });
    const client = await UdpClient.open(t, serving.port, to);
    for (const length of [0, 1, 3, 64, 65, 1_399, 1_400]) {
      const asked = Buffer.alloc(length, String(length));
      const { bytes, port, host: from } = await client.ask(asked);
      assert.deepEqual(bytes, asked);
      assert.deepEqual([port, from], [serving.port, to]);
    }
    assert.deepEqual([serving.figures().received, serving.figures().sent], [7, 7]);
    assert.equal(serving.block.get("bytesReceived"), serving.block.get("bytesSent"));
  });
}

test("the service sees the client's address and port, IPv4 on an IPv6 listener too", async (t) => {
  const service = defineUdpService({ onDatagram: (_, { host, port }) => `${host} ${port}` });
  const { port } = await openUdpServing(t, service, { host: "::", limits: { amplification: "off" } });
  for (const to of ["127.0.0.1", "::1"]) {
    const client = await UdpClient.open(t, port, to);
    assert.equal((await client.ask("?")).bytes.toString(), `${to} ${client.port}`);
  }
});

test("on all addresses: an answer comes from the one that was asked, also a late one", async (t) => {
  for (const [host, asked] of [
    ["0.0.0.0", "127.0.0.77"],
    ["::", "127.0.0.78"],
  ] as const) {
    const service = defineUdpService({
      onDatagram: (message) =>
        message[0] === 0x6c ? new Promise<Buffer>((resolve) => setImmediate(() => resolve(message))) : message,
    });
    const { port } = await openUdpServing(t, service, { host });
    const client = await UdpClient.open(t, port, asked);
    assert.equal((await client.ask("now")).host, asked);
    assert.equal((await client.ask("later")).host, asked);
  }
});

test("asked by broadcast or through a group, it answers from an address of its own", async (t) => {
  const group = "239.255.77.1";
  for (const [host, asked] of [
    ["0.0.0.0", "127.255.255.255"],
    ["0.0.0.0", group],
    ["::", "127.255.255.255"],
  ] as const) {
    const { port, figures } = await openUdpServing(t, echo, { host });
    const client = await UdpClient.open(t, port, asked, "127.0.0.1");
    client.socket.setBroadcast(true);
    // The machine takes what comes to a group while somebody is in it.
    client.socket.addMembership(group, "127.0.0.1");
    client.socket.setMulticastInterface("127.0.0.1");
    await client.send("who is there?");
    await until("it is answered", () => figures().sent + figures().failed === 1);
    assert.equal(figures().failed, 0, `${host} asked at ${asked}`);
    const answer = await until("the answer", () => client.got[0]);
    assert.deepEqual([answer.host, answer.bytes.toString()], ["127.0.0.1", "who is there?"]);
  }
});

test("what waits in the socket comes in batches: one call into the service's worker for all of them", async (t) => {
  const serving = await openUdpServing(t, echo, { silent: true });
  const client = await UdpClient.open(t, serving.port);
  const count = 200;
  for (let index = 0; index < count; index++) await client.send(`${index}`);
  const { block } = serving;
  const [rounds, receives, sends] = [block.get("rounds"), block.get("receives"), block.get("sends")];
  serving.server.accept(0, [serving.fd]);
  await until("all answers", () => client.got.length === count);
  assert.deepEqual(
    client.texts,
    Array.from({ length: count }, (_, index) => `${index}`),
  );
  assert.ok(block.get("rounds") - rounds <= 8, `${block.get("rounds") - rounds} rounds`);
  assert.ok(block.get("receives") - receives <= 8, `${block.get("receives") - receives} calls`);
  assert.ok(block.get("sends") - sends <= 6, `${block.get("sends") - sends} calls`);
});

describe("nothing is mixed up", () => {
  test("many clients, datagrams of every length, answered at once and later: each gets its own", async (t) => {
    const service = defineUdpService({
      onDatagram(message, from) {
        const answer = async (): Promise<Buffer> => {
          await new Promise((resolve) => setTimeout(resolve, (message.length * 7) % 40));
          return message;
        };
        if (message.length % 3 === 0) return message;
        if (message.length % 3 === 1) return answer();
        const [kept, copy] = [from.keep(), Buffer.from(message)];
        setTimeout(() => kept.send(copy), (message.length * 5) % 40);
        return undefined;
      },
    });
    const { port } = await openUdpServing(t, service);
    const clients = await Promise.all(Array.from({ length: 20 }, () => UdpClient.open(t, port)));
    const asked = clients.map((_, index) =>
      Array.from({ length: 60 }, (__, nth) => `${index}/${nth}/`.padEnd(8 + ((index * 61 + nth * 37) % 1_390), "y")),
    );
    for (let nth = 0; nth < 60; nth++) {
      await Promise.all(clients.map((client, index) => client.send(asked[index]?.[nth] ?? "")));
    }
    await until("all answers", () => clients.every(({ got }) => got.length >= 60));
    for (const [index, client] of clients.entries()) assert.deepEqual(client.texts.sort(), asked[index]?.sort());
  });

  test("a service that sends to others: from a handler, and when nothing came", async (t) => {
    const peers: DatagramSource[] = [];
    let socket: UdpSocket | undefined;
    const service = defineUdpService({
      env(worker) {
        socket = worker.socket;
      },
      onDatagram(message, from) {
        if (message.toString() === "join") {
          from.verify();
          peers.push(from.keep());
          return "joined";
        }
        for (const peer of peers) peer.send(message);
        return undefined;
      },
    });
    const { port } = await openUdpServing(t, service);
    const clients = await Promise.all(Array.from({ length: 5 }, () => UdpClient.open(t, port)));
    for (const client of clients) assert.equal((await client.ask("join")).bytes.toString(), "joined");
    await clients[0]?.send("hello all");
    await until("all have heard", () => clients.every(({ got }) => got.length === 2));
    for (const [index, peer] of peers.entries()) assert.equal(socket?.send(`for ${index}`, peer), "ok");
    await until("all have heard again", () => clients.every(({ got }) => got.length === 3));
    assert.deepEqual(
      clients.map(({ texts }) => texts[2]),
      clients.map((_, index) => `for ${index}`),
    );
  });
});

describe("dropped and counted", () => {
  test("longer than limits.datagram; a reload may change that", async (t) => {
    const { server, port, figures } = await openUdpServing(t, echo, { limits: { datagram: 100 } });
    const client = await UdpClient.open(t, port);
    await client.send("x".repeat(101));
    await client.send("x".repeat(9_000));
    assert.equal((await client.ask("x".repeat(100))).bytes.length, 100);
    assert.deepEqual([figures().truncated, figures().received], [2, 1]);
    server.abort();
  });

  test("the largest there is", async (t) => {
    const { port } = await openUdpServing(t, echo, { limits: { datagram: 65_507 } });
    const client = await UdpClient.open(t, port);
    const largest = Buffer.alloc(65_507, "largest");
    assert.deepEqual((await client.ask(largest)).bytes, largest);
    for (let nth = 0; nth < 40; nth++) await client.send(Buffer.alloc(65_000, String(nth)));
    await until("all", () => client.got.length === 41);
  });

  test("addresses that may not come", async (t) => {
    const { port, figures } = await openUdpServing(t, echo, {
      host: "0.0.0.0",
      admission: { allow: ["127.0.0.0/24"], deny: ["127.0.0.9"] },
    });
    const allowed = await UdpClient.open(t, port);
    for (const from of ["127.0.0.9", "127.0.1.1"]) {
      await (await UdpClient.open(t, port, "127.0.0.1", from)).send("no");
    }
    assert.equal((await allowed.ask("yes")).bytes.toString(), "yes");
    await until("both were denied", () => figures().denied === 2);
    assert.equal(figures().received, 1);
  });

  test("an address that sends too fast, from however many ports; others do not notice", async (t) => {
    const { port, figures } = await openUdpServing(t, echo, {
      host: "0.0.0.0",
      limits: { datagramRate: 1, datagramBurst: 10 },
    });
    const fast = await Promise.all([1, 2, 3].map(() => UdpClient.open(t, port)));
    for (let nth = 0; nth < 10; nth++) for (const client of fast) await client.send("x");
    await until("all were seen", () => figures().received + figures().limited === 30);
    assert.ok(figures().received >= 10 && figures().received <= 12, `${figures().received}`);
    const other = await UdpClient.open(t, port, "127.0.0.1", "127.0.0.5");
    assert.equal((await other.ask("me")).bytes.toString(), "me");
  });

  test("what does not fit the socket's buffer, by the kernel's own count", async (t) => {
    const { fd, port } = await openUdpServing(t, echo, { silent: true, socket: { receiveBuffer: 4_096 } });
    const client = await UdpClient.open(t, port);
    for (let nth = 0; nth < 200; nth++) await client.send("x".repeat(100));
    const dropped = addon().udpDrops(fd);
    assert.ok(dropped > 100 && dropped < 200, `${dropped}`);
  });

  test("sent to where nothing can be sent", async (t) => {
    let socket: UdpSocket | undefined;
    const service = defineUdpService({
      limits: { amplification: "off" },
      env(worker) {
        socket = worker.socket;
      },
      onDatagram: (message) => message,
    });
    const { server, port, figures } = await openUdpServing(t, service);
    // No IPv6 from an IPv4 socket, and nothing to a network's own address.
    socket?.send("x", socket.source("::1", 9));
    socket?.send("x", socket.source("255.255.255.255", 9));
    socket?.send("x", socket.source("127.0.0.1", port));
    server.engine.flush();
    assert.deepEqual([figures().failed, figures().sent], [2, 1]);
  });
});

describe("the guard, with the engine's table", () => {
  test("an answer that is too long for what came is refused; a verified source gets it", async (t) => {
    const service = defineUdpService({
      onDatagram(message, from) {
        if (message.toString() === "secret") from.verify();
        return "x".repeat(1_000);
      },
    });
    const { port, figures } = await openUdpServing(t, service);
    const client = await UdpClient.open(t, port);
    await client.send("a");
    await until("it is refused", () => figures().unverified === 1);
    assert.equal((await client.ask("secret")).bytes.length, 1_000);
    assert.equal((await client.ask("a")).bytes.length, 1_000);
    const other = await UdpClient.open(t, port);
    await other.send("a");
    await until("it is refused", () => figures().unverified === 2);
    assert.equal((await other.ask("x".repeat(400))).bytes.length, 1_000);
  });
});

test("a source that was silent for too long is verified no more, by the engine's clock and table", async (t) => {
  const peers: DatagramSource[] = [];
  const service = defineUdpService({
    onDatagram(_, from) {
      from.verify();
      peers.push(from.keep());
    },
  });
  const { server, port, figures } = await openUdpServing(t, service);
  const client = await UdpClient.open(t, port);
  await client.send("hello");
  const peer = await until("it is known", () => peers[0]);
  assert.deepEqual([peer.verified, peer.send("x".repeat(1_000))], [true, "ok"]);
  const { sources } = server.engine.datagrams;
  const entry = sources.indexOf(SOURCE_VERIFIED) - SOURCE.credit;
  const heard = entry + SOURCE.heard;
  assert.ok(Math.abs((sources[heard] as number) - (server.engine.now | 0)) < 10_000, "the same clock");
  sources[heard] = (sources[heard] as number) - SOURCE_SILENT_MS + 10_000;
  assert.equal(peer.verified, true);
  sources[heard] = (sources[heard] as number) - 10_001;
  await until("the clock has moved on", () => !peer.verified);
  assert.equal(peer.send("x".repeat(1_000)), "refused");
  assert.equal(figures().unverified, 1);
});

describe("sockets that pass from hand to hand", () => {
  async function queued(t: TestContext, client: UdpClient, count: number): Promise<string[]> {
    const texts = Array.from({ length: count }, (_, index) => `${index}`);
    for (const text of texts) await client.send(text);
    t.after(() => {});
    return texts;
  }

  test("what waits when a worker ceases to receive is the next one's", async (t) => {
    const first = await openUdpServing(t, echo);
    const client = await UdpClient.open(t, first.port);
    assert.equal((await client.ask("first")).bytes.toString(), "first");
    first.server.refuse(0, { queued: false });
    const texts = await queued(t, client, 100);
    const second = await openUdpServing(t, echo, { silent: true });
    second.server.accept(0, [first.fd]);
    await until("all answers", () => client.got.length === 101);
    assert.deepEqual(client.texts.slice(1).sort(), texts.sort());
    assert.deepEqual([first.figures().received, second.figures().received], [1, 100]);
  });

  test("a worker that stops answers first what waits", async (t) => {
    const { server, port, fd } = await openUdpServing(t, echo, { silent: true });
    const client = await UdpClient.open(t, port);
    const texts = await queued(t, client, 1_000);
    server.accept(0, [fd]);
    await server.stop({ drainMs: 2_000 });
    await until("all answers", () => client.got.length === 1_000);
    assert.deepEqual(client.texts.sort(), texts.sort());
  });

  test("two that receive from one socket answer each datagram once", async (t) => {
    const first = await openUdpServing(t, echo);
    const second = await openUdpServing(t, echo, { silent: true });
    second.server.accept(0, [first.fd]);
    const client = await UdpClient.open(t, first.port);
    const texts = await queued(t, client, 500);
    await until("all answers", () => client.got.length === 500);
    assert.deepEqual(client.texts.sort(), texts.sort());
  });

  test("handlers in flight still answer when their worker receives no more, and then its socket is let go", async (t) => {
    const waiting: (() => void)[] = [];
    const slow = defineUdpService({
      onDatagram: (message) => new Promise<Buffer>((resolve) => waiting.push(() => resolve(message))),
    });
    const { server, port, fd } = await openUdpServing(t, slow);
    const client = await UdpClient.open(t, port);
    await client.send("slow");
    await until("it is in flight", () => waiting.length === 1);
    const stopped = server.stop({ drainMs: 10_000 });
    addon().fdClose(fd);
    assert.equal(addon().udpProbe("127.0.0.1", port, new Int32Array(12).fill(-1)), -98, "held for the answer");
    for (const answer of waiting) answer();
    await until("the answer", () => client.got.length === 1);
    assert.deepEqual(await stopped, { closed: 1, forced: 0 });
    assert.equal(addon().udpProbe("127.0.0.1", port, new Int32Array(12).fill(-1)), 0);
  });

  test("an answer to a datagram of a slot that is removed leaves by another slot's socket", async (t) => {
    const waiting: (() => void)[] = [];
    const slow = defineUdpService({
      onDatagram: (message) => new Promise<Buffer>((resolve) => waiting.push(() => resolve(message))),
    });
    const { server, port, fd } = await openUdpServing(t, slow);
    const sibling = bindUdp(t, "127.0.0.1", {}, port);
    // The kernel gives some of them to the sibling.
    const clients = await Promise.all(Array.from({ length: 20 }, () => UdpClient.open(t, port)));
    for (const client of clients) await client.send("slow");
    await until("some are in flight", () => waiting.length > 0);
    const held = duplicateDescriptor(fd);
    t.after(() => addon().fdClose(held));
    server.refuse(0, { queued: true, substitutes: [sibling] });
    const inFlight = waiting.length;
    for (const answer of waiting) answer();
    const answers = (): readonly { port: number }[] => clients.flatMap(({ got }) => got);
    await until("the answers", () => answers().length === inFlight);
    assert.ok(answers().every((got) => got.port === port));
  });
});
