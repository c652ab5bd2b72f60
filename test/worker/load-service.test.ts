import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { BUILTIN_SERVICES } from "#src/config/config.js";
import { loadService } from "#src/worker/load-service.js";
import { makeFolder, writeService } from "../support/folder.js";

async function refusal(path: string): Promise<HeadraceError> {
  const error = await loadService({ kind: "module", path, given: "./given.mjs" }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof HeadraceError, String(error));
  assert.match(error.code, /^service-(invalid|failed)$/);
  assert.ok(error.message.startsWith("service ./given.mjs: "), error.message);
  return error;
}

test("every built-in that the configuration knows can be loaded", async () => {
  for (const name of BUILTIN_SERVICES) assert.equal((await loadService({ kind: "builtin", name })).name, name);
});

test("a module's service is its default export", async (t) => {
  const path = writeService(
    makeFolder(t),
    'export default defineService({ name: "mine", codec: line(), onMessage: (x) => x });',
  );
  assert.equal((await loadService({ kind: "module", path, given: path })).name, "mine");
});

test("what a module threw is the error's cause", async (t) => {
  const error = await refusal(writeService(makeFolder(t), 'throw new TypeError("no database");'));
  assert.equal(error.code, "service-failed");
  assert.match(error.message, /threw while it was loaded \(\.\/given\.mjs:2\): no database$/);
  assert.ok(error.cause instanceof TypeError);
});

for (const [what, body, says] of [
  ["throws what is not an error", 'throw "a word";', /threw while it was loaded: a word$/],
  ["exports null", "export default null;", /is null, not made by defineService/],
  ["exports a class", "export default class Game {}", /is a class,/],
  ["exports the definition itself", "export default { codec: line() };", /is a plain object,/],
  ["has only named exports", "export const service = 1;", /no default export/],
] as const) {
  test(`a module that ${what} is refused`, async (t) => {
    assert.match((await refusal(writeService(makeFolder(t), body))).message, says);
  });
}

test("TypeScript is loaded where Node can, else the error says which Node can", async (t) => {
  const body =
    "const answer: number = 42;\nexport default defineService({ codec: line(), onMessage: () => String(answer) });";
  const path = writeService(makeFolder(t), body, "service.ts");
  const { features } = process as { features: { typescript?: unknown } };
  if (features.typescript) assert.equal((await loadService({ kind: "module", path, given: path })).name, "line");
  else assert.match((await refusal(path)).message, /TypeScript needs Node 22\.18 or later \(this is \d+\./);
});
