import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { isJournal, journalPrefix } from "#src/base/journal.js";
import { makeFolder } from "../support/folder.js";

test("levels are priorities of syslog(3)", () => {
  const prefixes = [10, 20, 30, 35, 40, 50, 60].map(journalPrefix);
  assert.deepEqual(prefixes, ["<7>", "<7>", "<6>", "<6>", "<4>", "<3>", "<2>"]);
});

test("only the stream that the variable names is the journal", (t) => {
  const folder = makeFolder(t);
  const [one, other] = ["a", "b"].map((name) => openSync(join(folder, name), "a")) as [number, number];
  const { dev, ino } = fstatSync(one);
  const env = { JOURNAL_STREAM: `${dev}:${ino}` };
  assert.equal(isJournal(one, env), true);
  assert.equal(isJournal(other, env), false);
  assert.equal(isJournal(one, {}), false);
  assert.equal(isJournal(one, { JOURNAL_STREAM: "" }), false);
  assert.equal(isJournal(-1, env), false);
});

test("each line there has its priority, in front of the same JSON", async (t) => {
  const library = JSON.stringify(import.meta.resolve("#src/base/log.js"));
  const line = JSON.stringify(import.meta.resolve("#src/base/log-line.js"));
  const body = `import { createLogger } from ${library}; import { writeLogLine } from ${line};
    import { fstatSync } from "node:fs";
    const { dev, ino } = fstatSync(1); process.env.JOURNAL_STREAM = dev + ":" + ino;
    const log = createLogger({ level: "debug" });
    const child = log.child({ connection: "c" });
    child.debug("d"); log.info("i"); log.warn("w"); log.error("e"); log.fatal("f");
    process.once("exit", () => writeLogLine({ level: 50, msg: "thread" }, undefined));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", body], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const lines = (await text(child.stdout)).trimEnd().split("\n");
  const read = lines.map((each) => [each.slice(0, 3), JSON.parse(each.slice(3)).msg]);
  assert.deepEqual(read.toSorted(), [
    ["<2>", "f"],
    ["<3>", "e"],
    ["<3>", "thread"],
    ["<4>", "w"],
    ["<6>", "i"],
    ["<7>", "d"],
  ]);
});
