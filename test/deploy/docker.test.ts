/** The Dockerfile: read by Docker's grammar, linted, and with what it promises. Its steps are run in test/system. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { validate } from "dockerfile-utils";
import { packageRoot } from "#src/os/addon.js";
import { packagedSettings } from "#src/primary/sysctl-file.js";
import { DOCKERFILE, lastOf, readStages } from "../support/dockerfile.js";

test("the linter finds nothing; in a broken one it does", () => {
  const text = readFileSync(DOCKERFILE, "utf8");
  assert.deepEqual(validate(text), []);
  for (const [from, to] of [
    ["USER 10001:10001", "USR 10001:10001"],
    ["--interval=10s", "--intervall=10s"],
    ["--from=build /app/dist", "--form=build /app/dist"],
  ] as const) {
    assert.ok(text.includes(from));
    assert.notDeepEqual(validate(text.replace(from, to)), [], to);
  }
});

test("the compiler stays in the first stage; what runs is another user's, process 1, with a health check", () => {
  const [build, final, ...more] = readStages();
  assert.ok(build && final && more.length === 0);
  assert.match(final.image, /-slim$/);
  assert.equal(build.image, final.image.replace(/-slim$/, ""), "addons are loaded by what they were compiled for");
  assert.equal(lastOf(final, "USER").text, "10001:10001");
  // An init would end, and the container with it, when an upgrade hands over to a process that it has not started.
  assert.deepEqual(lastOf(final, "ENTRYPOINT").words, ["headrace"]);
  const check = lastOf(final, "HEALTHCHECK");
  assert.deepEqual(Object.keys(check.flags).sort(), ["interval", "retries", "start-period", "timeout"]);
  assert.equal(lastOf(final, "STOPSIGNAL").text, "SIGTERM");
  const changes = final.steps.filter(({ keyword }) => keyword === "USER" || keyword === "ENTRYPOINT");
  assert.ok(changes.length === 2 && !final.steps.some(({ text }) => /\b(npm|gcc|make|python3)\b/.test(text)));
});

test("every path that it copies from the repository is there, and let in by .dockerignore", () => {
  const allowed = readFileSync(join(packageRoot(), ".dockerignore"), "utf8").split("\n");
  for (const { steps } of readStages()) {
    for (const { keyword, text, flags } of steps) {
      if (keyword !== "COPY" || flags.from !== undefined) continue;
      for (const path of text.split(/\s+/).slice(0, -1)) {
        assert.ok(existsSync(join(packageRoot(), path)), path);
        assert.ok(allowed.includes(`!${path}`), `.dockerignore lets in no ${path}`);
      }
    }
  }
});

test("what doctor compares with is in the image, and its README sets the same values", () => {
  const final = readStages().at(-1);
  assert.ok(final?.steps.some(({ keyword, text }) => keyword === "COPY" && text === "sysctl ./sysctl"));
  const readme = readFileSync(join(packageRoot(), "deploy", "docker", "README.md"), "utf8");
  const packaged = new Map(packagedSettings(2 ** 33, 4096).map(({ key, wanted }) => [key, wanted]));
  const set = [...readme.matchAll(/--sysctl ([\w.]+)=(?:"([^"]*)"|(\S+))/g)];
  assert.ok(set.length >= 3);
  for (const [, key = "", quoted, plain] of set) assert.equal(quoted ?? plain, packaged.get(key), key);
});
