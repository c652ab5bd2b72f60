/** Descriptors over a channel: they arrive as what they were, and nothing leaks whatever goes wrong. */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { addon } from "#src/os/addon.js";
import {
  closeDescriptor,
  lockDescriptor,
  openChannel,
  peerOf,
  receiveDescriptors,
  sendDescriptors,
} from "#src/os/descriptors.js";
import { errnoName } from "#src/os/errno.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { makeFolder } from "../support/folder.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

const MOST = 253;

for (const count of [0, 1, 2, MOST]) {
  test(`${count} descriptors arrive, each the same open file, and nothing else`, async () => {
    const before = openDescriptors();
    const [a, b] = openChannel();
    const file = openSync("/proc/self/stat", "r");
    const fds = Array.from({ length: count }, () => file);
    sendDescriptors(a, "files", fds);
    const received = receiveDescriptors(b, "files", count);
    assert.equal(new Set(received).size, count);
    const into = Buffer.alloc(10);
    for (const fd of received) {
      readSync(fd, into, 0, 10, 0);
      assert.equal(into.toString("latin1", 0, String(process.pid).length), String(process.pid));
    }
    for (const fd of [a, b, file, ...received]) closeDescriptor(fd);
    await sameDescriptors(before);
  });
}

test("more than 253, or more than 64 KiB, or nothing at all is refused by the sender", async () => {
  const before = openDescriptors();
  const [a, b] = openChannel();
  assert.equal(errnoName(addon().fdSend(a, Buffer.from("x"), new Array<number>(MOST + 1).fill(a))), "EMSGSIZE");
  assert.equal(errnoName(addon().fdSend(a, Buffer.alloc(64 * 1024 + 1), [])), "EMSGSIZE");
  assert.equal(errnoName(addon().fdSend(a, Buffer.alloc(0), [a])), "EINVAL");
  assert.equal(errnoName(addon().fdSend(a, Buffer.from("x"), [9_999])), "EBADF");
  assert.equal(errnoName(addon().fdReceive(b, Buffer.alloc(10)) as number), "EAGAIN");
  assert.throws(() => addon().fdSend(a, Buffer.from("x"), ["no"] as never), TypeError);
  for (const fd of [a, b]) closeDescriptor(fd);
  await sameDescriptors(before);
});

test("a message that does not fit is refused and its descriptors are closed", async () => {
  const before = openDescriptors();
  const [a, b] = openChannel();
  sendDescriptors(a, "x".repeat(100), [a, a, a]);
  const held = openDescriptors().length;
  assert.equal(errnoName(addon().fdReceive(b, Buffer.alloc(50)) as number), "EMSGSIZE");
  assert.equal(openDescriptors().length, held);
  sendDescriptors(a, "other", [a]);
  assert.throws(() => receiveDescriptors(b, "wanted", 1), /expected 1 of "wanted", got 1 of "other"/);
  sendDescriptors(a, "wanted", [a, a]);
  assert.throws(() => receiveDescriptors(b, "wanted", 1), /got 2/);
  for (const fd of [a, b]) closeDescriptor(fd);
  await sameDescriptors(before);
});

test("a receiver without room for all of them gets none, and leaks none", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { openSync, closeSync, readdirSync } from "node:fs";
    import { addon } from ${moduleUrl("#src/os/addon.js")};
    import { errnoName } from ${moduleUrl("#src/os/errno.js")};
    const [a, b] = addon().fdPair();
    addon().fdSend(a, Buffer.from("x"), new Array(50).fill(a));
    const taken = [];
    try { for (;;) taken.push(openSync("/dev/null")); } catch {}
    for (const fd of taken.splice(0, 10)) closeSync(fd);
    const before = readdirSync("/proc/self/fd").length;
    const answer = addon().fdReceive(b, Buffer.alloc(10));
    const after = readdirSync("/proc/self/fd").length;
    console.log(typeof answer === "number" ? errnoName(answer) : "received", after - before);
    `,
    "ulimit -n 64",
  );
  assert.equal(outcome.stdout, "EMSGSIZE 0\n", outcome.stderr);
});

test("the other end is closed: the receiver reads 0 bytes, the sender gets EPIPE", () => {
  const [a, b] = openChannel();
  closeDescriptor(a);
  assert.deepEqual(addon().fdReceive(b, Buffer.alloc(10)), { length: 0, fds: [] });
  assert.throws(() => receiveDescriptors(b, "x", 0), /got 0 of ""/);
  assert.equal(errnoName(addon().fdSend(b, Buffer.from("x"), [])), "EPIPE");
  closeDescriptor(b);
});

test("messages keep their bounds and their order", () => {
  const [a, b] = openChannel();
  for (const text of ["one", "two", "three"]) sendDescriptors(a, text, []);
  for (const text of ["one", "two", "three"]) assert.deepEqual(receiveDescriptors(b, text, 0), []);
  for (const fd of [a, b]) closeDescriptor(fd);
});

test("a lock is held by one descriptor at a time and ends with it", (t) => {
  const path = join(makeFolder(t), "lock");
  const [first, second] = [openSync(path, "w"), openSync(path, "w")];
  assert.equal(lockDescriptor(first), true);
  assert.equal(lockDescriptor(second), false);
  const copy = addon().fdDuplicate(first);
  closeSync(first);
  assert.equal(lockDescriptor(second), false, "a duplicate holds it on");
  closeDescriptor(copy);
  assert.equal(lockDescriptor(second), true);
  closeSync(second);
});

test("the peer of a unix socket is this process; a TCP socket has none", async (t) => {
  const path = join(makeFolder(t), "socket");
  const server = createServer((socket) => socket.on("error", () => {})).listen(path);
  t.after(() => server.close());
  await until("listening", () => server.listening);
  const client = createConnection(path);
  t.after(() => client.destroy());
  await until("connected", () => !client.connecting);
  assert.deepEqual(peerOf(client), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  client.destroy();
  assert.equal(peerOf(client), undefined);
});

test("shared memory is one memory, zeroed, however often it is mapped", () => {
  const fd = addon().memoryCreate("test", 8_192);
  const [a, b] = [new Uint8Array(addon().memoryMap(fd, 8_192, 0)), new Uint8Array(addon().memoryMap(fd, 8_192, 0))];
  assert.ok(a.every((byte) => byte === 0));
  a[5_000] = 42;
  assert.equal(b[5_000], 42);
  writeSync(fd, Buffer.from("file"), 0, 4, 0);
  assert.equal(Buffer.from(b.subarray(0, 4)).toString(), "file");
  closeDescriptor(fd);
  assert.equal(a[5_000], 42);
  assert.throws(() => addon().memoryMap(-1, 8_192, 0));
  assert.throws(() => addon().memoryCreate("test", -1), TypeError);
});
