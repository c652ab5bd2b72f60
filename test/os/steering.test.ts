/** A SO_REUSEPORT group that loses a member: steered away from, emptied, closed, and no client is reset or left hanging. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { boundPort, duplicateDescriptor } from "#src/os/descriptors.js";
import { check, errnoName } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { openDescriptors } from "../support/census.js";
import { openEngine, openListener, openLoopback, PLAIN_OPTIONS, Recorder } from "../support/loopback.js";
import { until, within } from "../support/until.js";

const MEMBERS = 4;

/** Listening sockets of one port, in the order of their listen(). */
function openGroup(t: TestContext): number[] {
  const first = openListener(t);
  const port = boundPort(first);
  const others = Array.from({ length: MEMBERS - 1 }, () =>
    check(addon().socketListen("127.0.0.1", port, false, packSocketOptions(DEFAULT_SOCKET)), "join"),
  );
  for (const fd of others) t.after(() => addon().fdClose(fd));
  return [first, ...others];
}

const queues = (group: readonly number[]): number[] => group.map((fd) => addon().socketQueue(fd));
const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

/** `count` more clients, connected: the kernel has put each into a queue. */
async function addClients(t: TestContext, group: readonly number[], count: number): Promise<void> {
  const before = sum(queues(group));
  const port = boundPort(group[0] as number);
  await Promise.all(
    Array.from({ length: count }, async () => {
      const socket: Socket = connect(port, "127.0.0.1");
      t.after(() => socket.destroy());
      await once(socket, "connect");
    }),
  );
  await until("all in the queues", () => sum(queues(group)) === before + count);
}

test("steered to all but the last: it gets no new connection, keeps what waits, and gets some again afterwards", async (t) => {
  const group = openGroup(t);
  await addClients(t, group, 200);
  const before = queues(group);
  assert.ok(
    before.every((count) => count > 10),
    `${before}`,
  );
  // Through any member: the program is the group's.
  assert.equal(addon().socketSteer(group[2] as number, MEMBERS - 1), 0);
  await addClients(t, group, 200);
  const steered = queues(group);
  assert.equal(steered[3], before[3]);
  for (const member of [0, 1, 2]) {
    const gained = (steered[member] as number) - (before[member] as number);
    assert.ok(gained > 25, `member ${member}: ${gained} of 200`);
  }
  assert.equal(addon().socketSteer(group[0] as number, 1), 0);
  await addClients(t, group, 50);
  assert.deepEqual(queues(group), [(steered[0] as number) + 50, ...steered.slice(1)]);
  assert.equal(addon().socketUnsteer(group[3] as number), 0);
  await addClients(t, group, 200);
  assert.ok((queues(group)[3] as number) > (steered[3] as number) + 10);
});

test("removed: steered, emptied and closed under connecting clients, none is reset and none hangs", async (t) => {
  const group = openGroup(t);
  const [engine, peers] = [openEngine(t, { slots: 4_096 }), openEngine(t, { slots: 4_096 })];
  const perSocket = group.map(() => 0);
  for (const [watch, fd] of group.entries()) {
    engine.listen(watch, watch, fd, {
      onAccept: (slot, generation) => {
        perSocket[watch] = (perSocket[watch] as number) + 1;
        const served: Recorder = new Recorder(engine, { onData: () => served.send("served") });
        served.slot = slot;
        served.generation = generation;
        return served;
      },
      onAcceptError: () => {},
    });
  }
  const clients: Recorder[] = [];
  const addClient = (): void => {
    const client: Recorder = new Recorder(peers, { onOpen: () => client.send("?") });
    client.slot = check(
      peers.connect("127.0.0.1", boundPort(group[0] as number), "", PLAIN_OPTIONS, client),
      "connect",
    );
    client.generation = peers.generation(client.slot);
    clients.push(client);
  };
  const more = setInterval(() => {
    for (let i = 0; i < 10; i++) addClient();
  }, 1);
  t.after(() => clearInterval(more));
  const several = async (): Promise<void> => {
    const count = clients.length + 200;
    await until("more clients", () => clients.length >= count);
  };
  await several();
  const last = MEMBERS - 1;
  addon().socketSteer(group[0] as number, last);
  await several();
  const left = perSocket[last];
  engine.unlisten(last, { queued: true });
  addon().fdClose(group.pop() as number);
  addon().socketUnsteer(group[0] as number);
  await several();
  clearInterval(more);
  await until("an answer to each", () => clients.every(({ text, errno }) => text === "served" || errno !== 0));
  assert.deepEqual(
    clients.filter(({ errno }) => errno !== 0).map(({ errno }) => errnoName(errno)),
    [],
  );
  assert.ok((left as number) > 0);
});

test("nothing to steer: errnos, and unsteering where nothing was steered is no error", (t) => {
  const [first] = openGroup(t) as [number];
  assert.equal(addon().socketUnsteer(first), 0);
  assert.equal(errnoName(addon().socketSteer(first, 0)), "EINVAL");
  assert.equal(errnoName(addon().socketSteer(first, -1)), "EINVAL");
  assert.equal(errnoName(addon().socketSteer(-1, 1)), "EBADF");
  assert.equal(errnoName(addon().socketUnsteer(-1)), "EBADF");
});

test("the queue is what waits, whoever asks; only of a listening TCP socket", async (t) => {
  const loopback = openLoopback(t, { accepting: false });
  assert.equal(addon().socketQueue(loopback.fd), 0);
  await addClients(t, [loopback.fd], 7);
  const copy = duplicateDescriptor(loopback.fd);
  assert.equal(addon().socketQueue(copy), 7);
  addon().fdClose(copy);
  const client = loopback.connect();
  assert.ok(addon().socketQueue(-1) < 0);
  await until("connected", () => client.opened);
  const { fd } = client.engine.release(client.slot, client.generation);
  assert.equal(errnoName(addon().socketQueue(fd)), "EINVAL");
  addon().fdClose(fd);
});

test("the cookie is the socket's: the same for a copy, another for each socket", (t) => {
  const group = openGroup(t);
  const cookies = group.map((fd) => addon().socketCookie(fd) as string);
  assert.ok(
    cookies.every((cookie) => /^[1-9]\d*$/.test(cookie)),
    `${cookies}`,
  );
  assert.equal(new Set(cookies).size, MEMBERS);
  const copy = duplicateDescriptor(group[1] as number);
  assert.equal(addon().socketCookie(copy), cookies[1]);
  addon().fdClose(copy);
  assert.ok((addon().socketCookie(-1) as number) < 0);
});

test("the kind of a socket", async (t) => {
  const [v4, v6] = [openListener(t), openListener(t, {}, "::1")];
  assert.deepEqual(addon().socketKind(v4), { type: "stream", family: "ipv4", listening: true });
  assert.deepEqual(addon().socketKind(v6), { type: "stream", family: "ipv6", listening: true });
  const [a, b] = check(addon().fdPair(), "socketpair");
  assert.deepEqual(addon().socketKind(a), { type: "other", family: "unix", listening: false });
  for (const fd of [a, b]) addon().fdClose(fd);
  const file = addon().memoryCreate("no socket", 1);
  assert.equal(errnoName(addon().socketKind(file) as number), "ENOTSOCK");
  addon().fdClose(file);
  const before = openDescriptors();
  const datagram = createSocket("udp4").bind(0, "127.0.0.1");
  await within("bound", once(datagram, "listening"));
  const opened = openDescriptors().filter((each) => !before.includes(each) && each.includes("socket:"));
  const kinds = opened.map((each) => addon().socketKind(Number.parseInt(each, 10)));
  assert.deepEqual(kinds, [{ type: "datagram", family: "ipv4", listening: false }]);
  datagram.close();
});
