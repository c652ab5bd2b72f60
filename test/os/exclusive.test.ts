/** One server per address: the guard against a second one, and the group that joins on purpose. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check, errnoName } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { openListener, openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const OPTIONS = packSocketOptions(DEFAULT_SOCKET);

function listenOn(host: string, port: number, exclusive: boolean): string {
  const fd = addon().socketListen(host, port, exclusive, OPTIONS);
  if (fd < 0) return errnoName(fd);
  addon().fdClose(fd);
  return "ok";
}

/** Ended connections of a local port that the kernel still remembers (/proc/net/tcp, state 06). */
function timeWaits(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/net/tcp", "latin1")
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  return rows.filter(([, address, , state]) => state === "06" && address?.endsWith(local)).length;
}

test("a rival is refused on the same address, on a wider and on a narrower one", (t) => {
  for (const [first, rivals] of [
    ["127.0.0.1", ["127.0.0.1", "0.0.0.0", "::"]],
    ["0.0.0.0", ["127.0.0.1", "0.0.0.0", "::"]],
    ["::", ["::", "::1", "127.0.0.1", "0.0.0.0"]],
  ] as const) {
    const port = boundPort(openListener(t, {}, first));
    for (const rival of rivals) {
      assert.equal(listenOn(rival, port, true), "EADDRINUSE", `${rival} beside ${first}`);
      assert.equal(
        errnoName(addon().socketProbe(rival, port, OPTIONS)),
        "EADDRINUSE",
        `probe ${rival} beside ${first}`,
      );
    }
    assert.equal(listenOn("127.0.0.2", port, true), first === "127.0.0.1" ? "ok" : "EADDRINUSE");
  }
});

test("also a rival that uses SO_REUSEPORT itself is noticed, and one of another program", async (t) => {
  const group = check(addon().socketListen("127.0.0.1", 0, false, OPTIONS), "listen");
  t.after(() => addon().fdClose(group));
  assert.equal(listenOn("127.0.0.1", boundPort(group), true), "EADDRINUSE");
  assert.equal(listenOn("0.0.0.0", boundPort(group), true), "EADDRINUSE");
  const other = createServer().listen(0, "127.0.0.1");
  t.after(() => other.close());
  await until("a port", () => other.address());
  const { port } = other.address() as { port: number };
  for (const exclusive of [true, false]) assert.equal(listenOn("127.0.0.1", port, exclusive), "EADDRINUSE");
});

test("TIME_WAIT around the port refuses neither the owner nor a probe", async (t) => {
  const loopback = openLoopback(t);
  const { port } = loopback;
  for (let i = 0; i < 5; i++) {
    const peer = await openPeer(t, port);
    const served = await loopback.nth(i);
    // Whoever sends FIN first keeps TIME_WAIT: this end.
    served.close();
    await until("FIN", () => peer.ended);
    peer.end();
    await until("the slot to be free", () => loopback.engine.open === 0);
  }
  loopback.engine.unlisten(0, { queued: true });
  addon().fdClose(loopback.fd);
  // The table is read in pieces while others change it: an entry may be missed once.
  await until("TIME_WAIT to be seen", () => timeWaits(port) > 0);
  assert.equal(addon().socketProbe("127.0.0.1", port, OPTIONS), 0);
  assert.equal(listenOn("127.0.0.1", port, true), "ok");
  assert.equal(listenOn("0.0.0.0", port, true), "ok");
});

test("the port of port 0 is the group's: others join it, connections spread, and the rival stays out", async (t) => {
  const first = openLoopback(t, { accepting: false });
  const members = [first.fd];
  for (let i = 0; i < 3; i++) {
    const fd = check(addon().socketListen("127.0.0.1", first.port, false, OPTIONS), "join");
    t.after(() => addon().fdClose(fd));
    members.push(fd);
  }
  assert.equal(listenOn("127.0.0.1", first.port, true), "EADDRINUSE");
  const perMember = members.map(() => 0);
  for (const [id, fd] of members.entries()) {
    first.engine.listen(id, id, fd, {
      onAccept() {
        perMember[id] = (perMember[id] ?? 0) + 1;
        return { onOpen() {}, onData() {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} };
      },
      onAcceptError() {},
    });
  }
  const count = 200;
  for (let i = 0; i < count; i++) first.connect();
  await until("all", () => perMember.reduce((sum, each) => sum + each, 0) === count);
  for (const each of perMember) assert.ok(each > count / 16, `spread: ${perMember.join(", ")}`);
});

test("a probe leaves nothing: the address is free afterwards, and no client saw it", (t) => {
  const port = boundPort(openListener(t));
  assert.equal(addon().socketProbe("127.0.0.3", port, OPTIONS), 0);
  assert.equal(listenOn("127.0.0.3", port, true), "ok");
});

test("an address that is not ours and a privileged port say so", () => {
  assert.equal(listenOn("192.0.2.1", 0, true), "EADDRNOTAVAIL");
  assert.equal(errnoName(addon().socketProbe("192.0.2.1", 0, OPTIONS)), "EADDRNOTAVAIL");
});
