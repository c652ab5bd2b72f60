/** UDP sockets by themselves: one server per address, the group that joins on purpose, and steering it. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { Engine } from "#src/engine/engine.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check, errnoName } from "#src/os/errno.js";
import { LISTENER_DATAGRAMS } from "#src/os/scoreboard.js";
import { packSocketOptions } from "#src/os/socket.js";
import { openListener } from "../support/loopback.js";
import { bindUdp, UdpClient } from "../support/udp.js";
import { until } from "../support/until.js";

const OPTIONS = packSocketOptions(DEFAULT_SOCKET);
const MEMBERS = 4;

function bindOn(host: string, port: number, exclusive: boolean): string {
  const fd = addon().udpBind(host, port, exclusive, OPTIONS);
  if (fd < 0) return errnoName(fd);
  addon().fdClose(fd);
  return "ok";
}

test("a rival is refused on the same address, on a wider and on a narrower one; TCP is none", (t) => {
  for (const [first, rivals] of [
    ["127.0.0.1", ["127.0.0.1", "0.0.0.0", "::"]],
    ["0.0.0.0", ["127.0.0.1", "0.0.0.0", "::"]],
    ["::", ["::", "::1", "127.0.0.1", "0.0.0.0"]],
  ] as const) {
    const port = boundPort(bindUdp(t, first));
    for (const rival of rivals) {
      assert.equal(bindOn(rival, port, true), "EADDRINUSE", `${rival} beside ${first}`);
      assert.equal(errnoName(addon().udpProbe(rival, port, OPTIONS)), "EADDRINUSE", `probe ${rival} beside ${first}`);
    }
    assert.equal(bindOn("127.0.0.2", port, true), first === "127.0.0.1" ? "ok" : "EADDRINUSE");
  }
  // Of several, because anybody else on the machine may have the same port.
  const shared = Array.from({ length: 5 }, () => addon().udpProbe("127.0.0.1", boundPort(openListener(t)), OPTIONS));
  assert.ok(shared.includes(0), `${shared}`);
});

test("also a rival that uses SO_REUSEPORT itself is noticed, and one of another program", async (t) => {
  const group = check(addon().udpBind("127.0.0.1", 0, false, OPTIONS), "bind");
  t.after(() => addon().fdClose(group));
  assert.equal(bindOn("127.0.0.1", boundPort(group), true), "EADDRINUSE");
  const other = createSocket({ type: "udp4", reuseAddr: true }).bind(0, "127.0.0.1");
  t.after(() => other.close());
  await once(other, "listening");
  for (const exclusive of [true, false]) {
    assert.equal(bindOn("127.0.0.1", other.address().port, exclusive), "EADDRINUSE");
  }
});

test("buffers: 4 MiB to receive unless said otherwise, as far as the kernel lets us; changed in place", (t) => {
  const size = (fd: number): number => addon().socketOption(fd, 8);
  const fd = bindUdp(t);
  const plain = check(addon().socketListen("127.0.0.1", 0, true, OPTIONS), "listen");
  t.after(() => addon().fdClose(plain));
  assert.ok(size(fd) > size(plain), `${size(fd)}`);
  assert.equal(addon().udpApply(fd, packSocketOptions({ ...DEFAULT_SOCKET, receiveBuffer: 65_536 })), 0);
  assert.equal(size(fd), 131_072, "the kernel doubles it");
});

/** Members of one group, in the order of their bind(), and how many datagrams each has got. */
function openGroup(t: TestContext, host: string): { members: number[]; port: number; counts: () => number[] } {
  const first = bindUdp(t, host);
  const port = boundPort(first);
  const members = [first, ...Array.from({ length: MEMBERS - 1 }, () => bindUdp(t, host, {}, port))];
  const engine = new Engine();
  t.after(() => engine.shutdown());
  const got = members.map((fd, index) => {
    const counters = new Float64Array(LISTENER_DATAGRAMS);
    engine.datagrams.rule(index, { mostBytes: 100, factor: 0, counters });
    engine.datagrams.receive(index, index, fd, { onDatagram() {} });
    return counters;
  });
  return { members, port, counts: () => got.map((counters) => counters[0] as number) };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

for (const [host, to] of [
  ["127.0.0.1", "127.0.0.1"],
  ["::1", "::1"],
  ["::", "127.0.0.1"],
] as const) {
  test(`a group on ${host}, steered to all but the last: each flow stays together, and the last gets nothing`, async (t) => {
    const { members, port, counts } = openGroup(t, host);
    const clients = await Promise.all(Array.from({ length: 60 }, () => UdpClient.open(t, port, to)));
    let sent = 0;
    const sendAll = async (): Promise<number[]> => {
      const before = counts();
      for (const client of clients) await client.send("x");
      sent += clients.length;
      await until("all have arrived", () => sum(counts()) === sent);
      return counts().map((count, index) => count - (before[index] as number));
    };
    assert.ok((await sendAll()).every((count) => count > 3));
    // Through any member: the program is the group's.
    assert.equal(addon().udpSteer(members[2] as number, MEMBERS - 1), 0);
    const steered = await sendAll();
    assert.equal(steered[3], 0);
    assert.ok(
      steered.slice(0, 3).every((count) => count > 8),
      `${steered}`,
    );
    for (let turn = 0; turn < 5; turn++) assert.deepEqual(await sendAll(), steered);
    const perClient = new Set<string>();
    for (const client of clients.slice(0, 10)) {
      const before = counts();
      for (let nth = 0; nth < 3; nth++) await client.send("x");
      sent += 3;
      await until("all have arrived", () => sum(counts()) === sent);
      const gained = counts().map((count, index) => count - (before[index] as number));
      assert.deepEqual(gained.toSorted(), [0, 0, 0, 3]);
      perClient.add(gained.join());
    }
    assert.ok(perClient.size > 1);
    assert.equal(addon().udpSteer(members[0] as number, 1), 0);
    assert.deepEqual(await sendAll(), [clients.length, 0, 0, 0]);
    assert.equal(addon().socketUnsteer(members[0] as number), 0);
    assert.ok((await sendAll()).every((count) => count > 3));
  });
}

test("what cannot be: errnos", (t) => {
  const fd = bindUdp(t);
  assert.equal(errnoName(addon().udpSteer(fd, 0)), "EINVAL");
  assert.equal(errnoName(addon().udpDrops(9_999)), "EBADF");
  assert.equal(bindOn("192.0.2.1", 0, true), "EADDRNOTAVAIL");
  const engine = new Engine();
  t.after(() => engine.shutdown());
  const { datagrams } = engine;
  const counters = new Float64Array(8);
  assert.throws(() => datagrams.receive(0, 0, fd, { onDatagram() {} }), /EINVAL/);
  assert.throws(() => datagrams.rule(0, { mostBytes: 65_508, factor: 0, counters }), /EINVAL/);
  assert.throws(() => datagrams.rule(64, { mostBytes: 100, factor: 0, counters }), /EINVAL/);
  datagrams.rule(0, { mostBytes: 100, factor: 3, counters });
  datagrams.receive(0, 0, fd, { onDatagram() {} });
  assert.throws(() => datagrams.receive(0, 0, fd, { onDatagram() {} }), /EBUSY/);
  assert.throws(() => datagrams.receive(16_384, 0, fd, { onDatagram() {} }), /EINVAL/);
  datagrams.stop(0, { queued: true });
  datagrams.stop(0, { queued: true });
});
