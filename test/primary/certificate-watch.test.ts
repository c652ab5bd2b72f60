import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { CertificateWatch } from "#src/primary/certificate-watch.js";
import { makeFolder } from "../support/folder.js";
import { until } from "../support/until.js";

/** Longer than any of these tests: only what the kernel says is heard. */
const NEVER_MS = 1_000_000;
const POLL_MS = 20;

interface Watched {
  /** Calls so far: whether each said that all is quiet. */
  readonly calls: boolean[];
  readonly watch: CertificateWatch;
}

async function watched(t: TestContext, files: readonly string[], pollMs = NEVER_MS): Promise<Watched> {
  const calls: boolean[] = [];
  const watch = new CertificateWatch({ files: () => files, onChange: (settled) => calls.push(settled), pollMs });
  t.after(() => watch.end());
  // What has changed since the files were read cannot be known, so it looks once.
  await until("the first look", () => calls.length === 2);
  assert.deepEqual(calls.splice(0), [false, true]);
  return { calls, watch };
}

async function noticed({ calls }: Watched): Promise<void> {
  await until("the change is noticed, and that it is over", () => calls.includes(true));
  assert.equal(calls[0], false);
  calls.length = 0;
}

test("a file that is written anew, renamed into place, or removed", async (t) => {
  const folder = makeFolder(t);
  const file = join(folder, "c.pem");
  writeFileSync(file, "one");
  const state = await watched(t, [file]);
  writeFileSync(file, "two");
  await noticed(state);
  writeFileSync(`${file}.new`, "two");
  renameSync(`${file}.new`, file);
  await noticed(state);
  rmSync(file);
  await noticed(state);
  writeFileSync(file, "three");
  await noticed(state);
});

test("what else happens in the folder is not a change", async (t) => {
  const folder = makeFolder(t);
  const file = join(folder, "c.pem");
  writeFileSync(file, "one");
  const { calls } = await watched(t, [file]);
  writeFileSync(join(folder, "other"), "x");
  // Nothing is to come: so there is nothing to wait for but time.
  await pause(600);
  assert.deepEqual(calls, []);
});

test("a volume of Kubernetes: the link to the folder of the data is turned", async (t) => {
  const folder = makeFolder(t);
  for (const version of ["..1", "..2"]) {
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, "tls.crt"), version);
  }
  symlinkSync("..1", join(folder, "..data"));
  symlinkSync(join("..data", "tls.crt"), join(folder, "tls.crt"));
  const state = await watched(t, [join(folder, "tls.crt")]);
  symlinkSync("..2", join(folder, "..data_tmp"));
  renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
  await noticed(state);
});

test("certbot: the link to a file elsewhere is turned", async (t) => {
  const folder = makeFolder(t);
  for (const place of ["archive", "live"]) mkdirSync(join(folder, place));
  for (const version of [1, 2]) writeFileSync(join(folder, "archive", `chain${version}.pem`), String(version));
  const file = join(folder, "live", "chain.pem");
  symlinkSync("../archive/chain1.pem", file);
  const state = await watched(t, [file]);
  symlinkSync("../archive/chain2.pem", `${file}.new`);
  renameSync(`${file}.new`, file);
  await noticed(state);
});

test("without events (a change behind a link, a folder that was not there) looking now and then finds it", async (t) => {
  const folder = makeFolder(t);
  mkdirSync(join(folder, "elsewhere"));
  const target = join(folder, "elsewhere", "c.pem");
  writeFileSync(target, "one");
  const [link, late] = [join(folder, "c.pem"), join(folder, "late", "c.pem")];
  symlinkSync(target, link);
  const state = await watched(t, [link, late], POLL_MS);
  writeFileSync(target, "two!");
  await noticed(state);
  mkdirSync(join(folder, "late"));
  writeFileSync(late, "x");
  await noticed(state);
});

test("other files are followed as soon as it is told", async (t) => {
  const folder = makeFolder(t);
  for (const place of ["a", "b"]) {
    mkdirSync(join(folder, place));
    writeFileSync(join(folder, place, "c.pem"), place);
  }
  const files = [join(folder, "a", "c.pem")];
  const state = await watched(t, files);
  files[0] = join(folder, "b", "c.pem");
  state.watch.follow();
  await noticed(state);
  writeFileSync(join(folder, "b", "c.pem"), "new");
  await noticed(state);
});

test("nothing more is heard once it has ended", async (t) => {
  const folder = makeFolder(t);
  const file = join(folder, "c.pem");
  writeFileSync(file, "one");
  const { calls, watch } = await watched(t, [file], POLL_MS);
  writeFileSync(file, "two");
  watch.end();
  await pause(600);
  assert.deepEqual(calls, []);
});
