/** Unix sockets by path: the one that is served from, and the datagram to a service manager. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { openSync, statSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { addon } from "#src/os/addon.js";
import { closeDescriptor } from "#src/os/descriptors.js";
import { errnoName } from "#src/os/errno.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { makeFolder } from "../support/folder.js";
import { openNotifySocket } from "../support/notify-socket.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

const NOBODY = 65_534;

const errnoOf = (result: number): string => (result < 0 ? errnoName(result) : "none");

test("a listening socket: node:net serves from it, and again from a copy when the first server has gone", async (t) => {
  const before = openDescriptors();
  const path = join(makeFolder(t), "control");
  const fd = addon().unixListen(path);
  assert.ok(fd >= 0);
  assert.deepEqual(addon().socketKind(fd), { type: "stream", family: "unix", listening: true });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  for (const answer of ["first", "second"]) {
    const server = createServer((socket) => socket.end(answer)).listen({ fd: addon().fdDuplicate(fd) });
    await once(server, "listening");
    const client = createConnection(path);
    const [text] = await once(client, "data");
    assert.equal(String(text), answer);
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
    assert.ok(statSync(path).isSocket(), "a server that was given a descriptor leaves the file alone");
  }
  assert.equal(errnoOf(addon().unixListen(path)), "EADDRINUSE");
  closeDescriptor(fd);
  await sameDescriptors(before);
});

for (const umask of ["000", "077", "027"]) {
  test(`the socket's file is 0600 whatever the umask: ${umask}`, async (t) => {
    const path = join(makeFolder(t), "control");
    const outcome = await runScript(
      t,
      `
      import { statSync } from "node:fs";
      import { addon } from ${moduleUrl("#src/os/addon.js")};
      const fd = addon().unixListen(${JSON.stringify(path)});
      console.log((statSync(${JSON.stringify(path)}).mode & 0o777).toString(8), process.umask().toString(8));
      `,
      `umask ${umask}`,
    );
    assert.equal(outcome.stdout, `600 ${Number(umask)}\n`, outcome.stderr);
  });
}

test("nobody else may connect", {
  skip: process.getuid?.() !== 0 && "only root can become somebody else",
}, async (t) => {
  const path = join(makeFolder(t), "control");
  const fd = addon().unixListen(path);
  const outcome = await runScript(
    t,
    `
    import { connect } from "node:net";
    process.setgid(${NOBODY});
    process.setuid(${NOBODY});
    connect(${JSON.stringify(path)}).on("error", ({ code }) => console.log(code)).on("connect", () => process.exit(1));
    `,
    `chmod 755 ${JSON.stringify(join(path, ".."))}`,
  );
  closeDescriptor(fd);
  assert.equal(outcome.stdout, "EACCES\n", outcome.stderr);
});

test("paths that cannot be are errnos, never cut short", (t) => {
  const folder = makeFolder(t);
  for (const call of [
    (path: string) => addon().unixListen(path),
    (path: string) => addon().unixSend(path, Buffer.from("x"), []),
  ]) {
    assert.equal(errnoOf(call("")), "EINVAL");
    assert.equal(errnoOf(call("x".repeat(108))), "ENAMETOOLONG");
    assert.equal(errnoOf(call(`/tmp/${"x".repeat(5_000)}`)), "ENAMETOOLONG");
    assert.equal(errnoOf(call(join(folder, "none", "such"))), "ENOENT");
  }
  assert.equal(errnoOf(addon().unixSend(join(folder, "none"), Buffer.from("x"), [])), "ENOENT");
  assert.equal(errnoOf(addon().unixSend("@headrace-test-none", Buffer.from("x"), [])), "ECONNREFUSED");
  writeFileSync(join(folder, "file"), "");
  assert.equal(errnoOf(addon().unixSend(join(folder, "file"), Buffer.from("x"), [])), "ECONNREFUSED");
  assert.throws(() => addon().unixSend("@x", "text" as never, []), TypeError);
});

/** A file system path, and an abstract name. */
function addresses(t: TestContext): string[] {
  return [join(makeFolder(t), "notify"), `@headrace-test-${process.pid}`];
}

test("one datagram, to a path and to an abstract name, with copies of descriptors", async (t) => {
  for (const address of addresses(t)) {
    const inbox = await openNotifySocket(t, address);
    const before = openDescriptors();
    const file = openSync("/proc/self/stat", "r");
    assert.equal(addon().unixSend(address, Buffer.from("READY=1\nSTATUS=grüß dich"), []), 0);
    assert.equal(addon().unixSend(address, Buffer.from("FDSTORE=1"), [file, file]), 0);
    await until("both", () => inbox.messages.length === 2);
    assert.deepEqual(inbox.messages[0], { pid: process.pid, lines: ["READY=1", "STATUS=grüß dich"], fds: [] });
    assert.equal(inbox.messages[1]?.fds.length, 2);
    assert.match(inbox.messages[1]?.fds[0] ?? "", /stat$/);
    closeDescriptor(file);
    assert.equal(errnoOf(addon().unixSend(address, Buffer.alloc(0), [])), "EINVAL");
    assert.equal(errnoOf(addon().unixSend(address, Buffer.from("x"), [9_999])), "EBADF");
    assert.equal(errnoOf(addon().unixSend(address, Buffer.from("x"), new Array(254).fill(0))), "EMSGSIZE");
    await sameDescriptors(before);
  }
});
