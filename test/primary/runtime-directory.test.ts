import assert from "node:assert/strict";
import { chmodSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { defaultControlPath, openRuntimeDirectory, ownUid, runtimeDirectory } from "#src/primary/runtime-directory.js";
import { makeFolder } from "../support/folder.js";

const uid = ownUid();

test("the directory is systemd's, else the session's, else one in /tmp", (t) => {
  const session = makeFolder(t);
  assert.equal(runtimeDirectory({ RUNTIME_DIRECTORY: "/run/a:/run/b", XDG_RUNTIME_DIR: session }, 7), "/run/a");
  assert.equal(runtimeDirectory({ RUNTIME_DIRECTORY: "", XDG_RUNTIME_DIR: session }, 7), join(session, "headrace"));
  assert.equal(runtimeDirectory({ XDG_RUNTIME_DIR: "/nowhere/at/all" }, 7), "/tmp/headrace-7");
  assert.equal(defaultControlPath({}, 7), "/tmp/headrace-7/control.sock");
});

test("it is made, and made private", (t) => {
  const env = { XDG_RUNTIME_DIR: makeFolder(t) };
  const path = defaultControlPath(env, uid);
  const directory = join(env.XDG_RUNTIME_DIR, "headrace");
  openRuntimeDirectory(path, env, uid);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  chmodSync(directory, 0o755);
  openRuntimeDirectory(path, env, uid);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
});

test("one that others own, could have written to, or placed there as a link is refused", (t) => {
  const env = { XDG_RUNTIME_DIR: makeFolder(t) };
  const directory = join(env.XDG_RUNTIME_DIR, "headrace");
  const open = (as: number): void => openRuntimeDirectory(defaultControlPath(env, uid), env, as);
  const refused = (problem: RegExp): ((error: unknown) => boolean) => {
    return (error) => error instanceof HeadraceError && error.code === "control-refused" && problem.test(error.message);
  };
  mkdirSync(directory);
  chmodSync(directory, 0o770);
  assert.throws(() => open(uid), refused(/written by other users/));
  chmodSync(directory, 0o700);
  assert.throws(() => open(uid + 1), refused(/belongs to user/));

  const elsewhere = { XDG_RUNTIME_DIR: makeFolder(t) };
  symlinkSync(directory, join(elsewhere.XDG_RUNTIME_DIR, "headrace"));
  const linked = defaultControlPath(elsewhere, uid);
  assert.throws(() => openRuntimeDirectory(linked, elsewhere, uid), refused(/not a directory/));

  const file = { XDG_RUNTIME_DIR: makeFolder(t) };
  writeFileSync(join(file.XDG_RUNTIME_DIR, "headrace"), "");
  assert.throws(() => openRuntimeDirectory(defaultControlPath(file, uid), file, uid), refused(/not a directory/));
});

test("a path of the user's own is taken as it is, where its directory exists", (t) => {
  const folder = makeFolder(t);
  chmodSync(folder, 0o755);
  openRuntimeDirectory(join(folder, "mine.sock"), {}, uid);
  assert.equal(statSync(folder).mode & 0o777, 0o755);
  assert.throws(() => openRuntimeDirectory(join(folder, "no/mine.sock"), {}, uid), /does not exist/);
});
