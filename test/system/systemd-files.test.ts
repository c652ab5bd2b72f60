/** The user and the folders of deploy/systemd, made by the real systemd-sysusers and systemd-tmpfiles in an empty root. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "../support/folder.js";

const UNITS = join(packageRoot(), "deploy", "systemd");
const USER = join(UNITS, "sysusers.d", "headrace.conf");
const FOLDERS = join(UNITS, "tmpfiles.d", "headrace.conf");

/** What it says about a file that has nothing wrong with it: nothing. */
function quietly(command: string, ...args: string[]): void {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  assert.deepEqual({ status, stdout }, { status: 0, stdout: "" }, stderr);
  const faults = stderr.split("\n").filter((line) => line !== "" && !/^Creating (user|group) /.test(line));
  assert.deepEqual(faults, []);
}

test("the user that sysusers.d makes owns the folders that tmpfiles.d makes; twice is as good as once", (t) => {
  const root = makeFolder(t);
  mkdirSync(join(root, "etc", "headrace"), { recursive: true });
  const configuration = join(root, "etc", "headrace", "headrace.yaml");
  writeFileSync(configuration, "workers: 2\n", { mode: 0o644 });
  for (let time = 0; time < 2; time++) {
    quietly("systemd-sysusers", `--root=${root}`, USER);
    quietly("systemd-tmpfiles", `--root=${root}`, "--create", FOLDERS);
  }
  const line = readFileSync(join(root, "etc", "passwd"), "utf8")
    .split("\n")
    .find((each) => each.startsWith("headrace:"));
  const [, , uid = "", gid = "", , home, shell] = line?.split(":") ?? [];
  assert.deepEqual([home, shell], ["/var/lib/headrace", "/usr/sbin/nologin"]);
  assert.ok(Number(uid) > 0 && Number(uid) < 1000, "a system user");
  const owned = (path: string): string => {
    const { mode, uid: owner, gid: group } = statSync(join(root, path));
    const name = (id: number, own: string): string => (id === 0 ? "root" : id === Number(own) ? "headrace" : `${id}`);
    return `${(mode & 0o7777).toString(8)} ${name(owner, uid)} ${name(group, gid)}`;
  };
  assert.equal(owned("etc/headrace"), "750 root headrace");
  assert.equal(owned("etc/headrace/headrace.yaml"), "640 root headrace");
  assert.equal(owned("var/log/headrace"), "750 headrace headrace");
  assert.equal(owned("opt/releases"), "755 root root");
  assert.equal(owned("var/lib/headrace-diagnosis"), "700 root root");
});

test("what has been there too long is removed, from these folders only", (t) => {
  const root = makeFolder(t);
  mkdirSync(join(root, "etc"));
  quietly("systemd-sysusers", `--root=${root}`, USER);
  quietly("systemd-tmpfiles", `--root=${root}`, "--create", FOLDERS);
  const [old, fresh] = ["old.log", "fresh.log"].map((name) => join(root, "var", "log", "headrace", name));
  for (const path of [old, fresh]) writeFileSync(path ?? "", "");
  // Its times of change and birth cannot be set: the age that counts is moved instead.
  const rules = join(root, "rules.conf");
  writeFileSync(rules, readFileSync(FOLDERS, "utf8").replaceAll(" 30d", " m:30d").replaceAll(" 14d", " m:14d"));
  execFileSync("touch", ["-d", "40 days ago", old ?? ""]);
  quietly("systemd-tmpfiles", `--root=${root}`, "--clean", rules);
  assert.throws(() => statSync(old ?? ""), /ENOENT/);
  assert.ok(statSync(fresh ?? "").isFile());
});
