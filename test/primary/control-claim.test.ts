import assert from "node:assert/strict";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { addon } from "#src/os/addon.js";
import { adoptControl, claimControl } from "#src/primary/control-claim.js";
import { makeFolder } from "../support/folder.js";

function listen(t: TestContext, path: string): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  t.after(() => server.close());
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}

const refused = (problem: RegExp): ((error: unknown) => boolean) => {
  return (error) => error instanceof HeadraceError && problem.test(error.message);
};

test("a claim locks out the next one and leaves nothing behind", async (t) => {
  const folder = makeFolder(t);
  const path = join(folder, "control.sock");
  const claim = await claimControl(path);
  assert.equal(readFileSync(`${path}.lock`, "utf8"), `${process.pid}\n`);
  await assert.rejects(claimControl(path), refused(new RegExp(`process ${process.pid}, already uses .*--control`)));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  claim.release();
  assert.deepEqual(readdirSync(folder), []);
  (await claimControl(path)).release();
});

test("a stale socket and a stale lock file are replaced", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  const server = await listen(t, `${path}.old`);
  renameSync(`${path}.old`, path);
  await new Promise((resolve) => server.close(resolve));
  writeFileSync(`${path}.lock`, "999999\n");
  const claim = await claimControl(path);
  const client = connect(path);
  await once(client, "connect");
  client.destroy();
  assert.equal(readFileSync(`${path}.lock`, "utf8"), `${process.pid}\n`);
  claim.release();
});

test("a living server is respected also when its lock file was cleaned away", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  await listen(t, path);
  await assert.rejects(claimControl(path), refused(new RegExp(`process ${process.pid}, already uses`)));
  assert.ok(existsSync(path));
});

test("what is not a socket is not touched", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  writeFileSync(path, "precious");
  await assert.rejects(claimControl(path), refused(/is not a socket/));
  assert.equal(readFileSync(path, "utf8"), "precious");
});

test("a lock file that is a link is not followed", async (t) => {
  const folder = makeFolder(t);
  const path = join(folder, "control.sock");
  writeFileSync(join(folder, "precious"), "precious");
  symlinkSync(join(folder, "precious"), `${path}.lock`);
  await assert.rejects(claimControl(path), refused(/cannot lock/));
  assert.equal(readFileSync(join(folder, "precious"), "utf8"), "precious");
});

test("a path that the kernel cannot take is refused before it is tried", async () => {
  await assert.rejects(claimControl(`/tmp/${"x".repeat(120)}`), refused(/longer than 107 bytes/));
});

test("release leaves a socket that is no longer its own", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  const claim = await claimControl(path);
  unlinkSync(path);
  await listen(t, path);
  claim.release();
  assert.ok(existsSync(path));
});

test("a claim that is handed on stays locked, and its new owner removes everything", async (t) => {
  const folder = makeFolder(t);
  const path = join(folder, "control.sock");
  const before = await claimControl(path);
  const claim = adoptControl(path, before.descriptor, addon().fdDuplicate(before.lock));
  closeSync(before.lock);
  await assert.rejects(claimControl(path), refused(/already uses/));
  claim.release();
  assert.deepEqual(readdirSync(folder), []);
});
