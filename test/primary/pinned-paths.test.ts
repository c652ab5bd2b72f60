import assert from "node:assert/strict";
import { mkdirSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Config } from "#src/config/config.js";
import { loadConfig } from "#src/config/load.js";
import { PinnedPaths } from "#src/primary/pinned-paths.js";
import { makeFolder } from "../support/folder.js";

/** `current` is `v1`; both releases have `a.js`, and only `v2` has `b.js`. */
function makeReleases(t: TestContext): string {
  const root = realpathSync(makeFolder(t));
  for (const path of ["v1/a.js", "v2/a.js", "v2/b.js"]) {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), "");
  }
  symlinkSync("v1", join(root, "current"));
  return root;
}

function turn(root: string): void {
  symlinkSync("v2", join(root, "next"));
  renameSync(join(root, "next"), join(root, "current"));
}

function configure(root: string, ...services: string[]): Config {
  const listen = services.map((_, index) => `127.0.0.1:${9000 + index}`);
  const config = loadConfig({ file: undefined, env: {}, cwd: join(root, "current"), flags: { listen } });
  const listeners = config.listeners.map((listener, index) => {
    const given = services[index] ?? "";
    return { ...listener, service: { kind: "module", path: join(root, "current", given), given } as const };
  });
  return { ...config, listeners };
}

const pathsOf = ({ listeners }: Config): string[] =>
  listeners.map(({ service }) => (service.kind === "module" ? service.path : service.name));

test("the module of tracing is one of the release, too", (t) => {
  const root = makeReleases(t);
  const plain = configure(root, "a.js");
  const given = join(root, "current", "a.js");
  const config = { ...plain, tracing: { ...plain.tracing, module: { path: given, given } } };
  const pins = new PinnedPaths();
  const before = pins.pin(config).tracing.module;
  turn(root);
  assert.deepEqual(pins.pin(config).tracing.module, before);
  assert.deepEqual(before, { path: join(root, "v1", "a.js"), given });
});

test("a module stays at the release it was first seen in", (t) => {
  const root = makeReleases(t);
  const pins = new PinnedPaths();
  const config = configure(root, "a.js");
  assert.deepEqual(pathsOf(pins.pin(config)), [join(root, "v1/a.js")]);
  turn(root);
  assert.deepEqual(pathsOf(pins.pin(config)), [join(root, "v1/a.js")]);
  assert.deepEqual(pathsOf(new PinnedPaths().pin(config)), [join(root, "v2/a.js")], "a new primary follows anew");
});

test("also when that release has been removed: loading it then says so", (t) => {
  const root = makeReleases(t);
  const pins = new PinnedPaths();
  const config = configure(root, "a.js");
  pins.pin(config);
  turn(root);
  rmSync(join(root, "v1"), { recursive: true });
  assert.deepEqual(pathsOf(pins.pin(config)), [join(root, "v1/a.js")]);
});

test("a module that comes later is pinned then; one that is not there is not", (t) => {
  const root = makeReleases(t);
  const pins = new PinnedPaths();
  assert.deepEqual(pathsOf(pins.pin(configure(root, "a.js", "b.js"))), [
    join(root, "v1/a.js"),
    join(root, "current/b.js"),
  ]);
  turn(root);
  const both = [join(root, "v1/a.js"), join(root, "v2/b.js")];
  assert.deepEqual(pathsOf(pins.pin(configure(root, "a.js", "b.js"))), both);
});

test("pinning again changes nothing, built-ins have no path, and the given words stay", (t) => {
  const root = makeReleases(t);
  const pins = new PinnedPaths();
  const config = configure(root, "a.js");
  const once = pins.pin(config);
  assert.deepEqual(pins.pin(once), once);
  const [service] = once.listeners.map((listener) => listener.service);
  assert.equal(service?.kind === "module" && service.given, "a.js");
  const builtin = loadConfig({ file: undefined, env: {}, cwd: root, flags: {} });
  assert.deepEqual(pins.pin(builtin), builtin);
  assert.deepEqual(pathsOf(config), [join(root, "current/a.js")], "what was passed in is as it was");
});
