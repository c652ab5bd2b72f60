/** The rank table of src/README.md: import only from a lower rank or your own folder. */
import assert from "node:assert/strict";
import { appendFileSync, cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "./support/folder.js";
import { importCount, specifiersOf, violations } from "./support/layers.js";

const SRC = join(packageRoot(), "src");

test("every import of src/ goes to a lower rank or stays in its folder", () => {
  assert.ok(importCount(SRC) > 100, "imports are found");
  assert.deepEqual(violations(SRC), []);
});

function copyOf(t: TestContext): string {
  const src = join(makeFolder(t), "src");
  cpSync(SRC, src, { recursive: true });
  return src;
}

for (const [what, file, line, problem] of [
  [
    "an upward import",
    "base/errors.ts",
    'import { openServer } from "../worker/server.ts";',
    "upward: rank 0 imports rank 4",
  ],
  [
    "a type-only one",
    "engine/engine.ts",
    'import type { Wheel } from "../connection/wheel.ts";',
    "upward: rank 2 imports rank 3",
  ],
  ["a dynamic one", "os/errno.ts", 'const later = import("../engine/engine.ts");', "upward: rank 1 imports rank 2"],
  [
    "a type in place",
    "codec/raw.ts",
    'type X = import("../service/define.ts").AnyService;',
    "upward: rank 1 imports rank 2",
  ],
  ["a re-export", "config/units.ts", 'export { x } from "../cli/main.ts";', "upward: rank 1 imports rank 5"],
  ["one for its effect", "base/log.ts", 'import "../os/addon.ts";', "upward: rank 0 imports rank 1"],
  [
    "one over several lines",
    "base/log.ts",
    'import {\n  addon,\n} from "../os/addon.ts";',
    "upward: rank 0 imports rank 1",
  ],
  [
    "one by the package's own name",
    "base/log.ts",
    'import { addon } from "#src/os/addon.ts";',
    "upward: rank 0 imports rank 1",
  ],
  ["one to the side", "os/errno.ts", 'import { line } from "../codec/line.ts";', "sideways: both are rank 1"],
  [
    "the barrel",
    "cli/other.ts",
    'import { line } from "../index.ts";',
    "nothing imports what stands at the top of src/",
  ],
  ["a way out of src/", "base/log.ts", 'import { x } from "../../test/x.ts";', "leaves src/"],
] as const) {
  test(`planted and found: ${what}`, (t) => {
    const src = copyOf(t);
    const before = violations(src);
    mkdirSync(join(src, file, ".."), { recursive: true });
    appendFileSync(join(src, file), `\n${line}\n`);
    const added = violations(src).filter((each) => !before.includes(each));
    assert.equal(added.length, 1, added.join("\n"));
    assert.ok(added[0]?.startsWith(`${file} → `) && added[0].endsWith(problem), added[0]);
  });
}

test("planted and found: a folder that has no rank", (t) => {
  const src = copyOf(t);
  mkdirSync(join(src, "helpers"));
  writeFileSync(join(src, "helpers", "x.ts"), 'import { line } from "../codec/line.ts";\n');
  assert.match(violations(src).join("\n"), /helpers\/x\.ts → .*without a rank/);
});

test("comments and other strings are no imports", () => {
  const code =
    '/* from "../a.ts" */\n// import "../b.ts"\nconst text = "../c.ts";\nconst url = new URL("../d.ts", import.meta.url);';
  assert.deepEqual(specifiersOf(code), []);
});
