import assert from "node:assert/strict";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { absolutePath } from "#src/config/path.js";
import { makeFolder } from "./folder.js";

test("a path is made absolute from its folder, and links on the way stay as they are", (t) => {
  const root = makeFolder(t);
  mkdirSync(join(root, "releases/v1"), { recursive: true });
  symlinkSync("releases/v1", join(root, "current"));
  const current = join(root, "current");
  assert.equal(absolutePath(current, "game.js"), join(root, "current/game.js"));
  assert.equal(absolutePath(current, "./lib/game.js"), join(root, "current/lib/game.js"));
  assert.equal(absolutePath(current, "/srv/./game.js"), "/srv/game.js");
});

test("what goes up, goes up from where the folder really is", (t) => {
  const root = makeFolder(t);
  mkdirSync(join(root, "releases/v1"), { recursive: true });
  symlinkSync("releases/v1", join(root, "current"));
  assert.equal(absolutePath(join(root, "current"), "../shared.yaml"), join(root, "releases/shared.yaml"));
  assert.equal(absolutePath("/nowhere/at/all", "../x"), "/nowhere/at/x", "also from a folder that is not there");
});
