/** Log files, rotated while lines are written. */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkLogFile, endsInLine } from "#src/base/log-file.js";
import { LogStream } from "#src/base/log-stream.js";
import { makeFolder } from "../support/folder.js";
import { linesOf, logging } from "../support/log-process.js";
import { until, within } from "../support/until.js";

test("it is made with 0640, appended to, and a folder that is not there is said", (t) => {
  const folder = makeFolder(t);
  const file = join(folder, "h.log");
  checkLogFile(file);
  assert.equal(statSync(file).mode & 0o7777, 0o640 & ~process.umask());
  writeFileSync(file, "before\n");
  checkLogFile(file);
  assert.equal(readFileSync(file, "utf8"), "before\n");
  const gone = join(folder, "gone", "h.log");
  assert.throws(() => checkLogFile(gone), {
    code: "config-invalid",
    message: `log.file: ${gone} cannot be opened (ENOENT); allowed: a file that this user may write, in a folder that is there`,
  });
  assert.throws(() => checkLogFile(folder), { message: /EISDIR/ });
});

test("whether the last line is unfinished", (t) => {
  const file = join(makeFolder(t), "h.log");
  const endOf = (text: string): boolean | undefined => {
    writeFileSync(file, text);
    const fd = openSync(file, "r");
    const end = endsInLine(fd);
    closeSync(fd);
    return end;
  };
  assert.equal(endOf(""), false);
  assert.equal(endOf("one\n"), false);
  assert.equal(endOf("one\ntw"), true);
  assert.equal(endsInLine(-1), undefined);
});

test("a file that is rotated again and again under two processes loses no line and tears none", async (t) => {
  const file = join(makeFolder(t), "h.log");
  const body = `
    let [next, more] = [0, true];
    const many = () => {
      for (let i = 0; i < 50; i++) log.info({ n: next++ }, "x".repeat(next % 300));
      if (more) setTimeout(many, 1); else closeLog(log).then(() => process.send(next, () => process.disconnect()));
    };
    process.on("message", (word) => {
      if (word === "stop") more = false;
      else { reopenLog(log, file); process.send("reopened"); }
    });
    many();`;
  const writers = [logging(t, file, body), logging(t, file, body)];
  const files = [file];
  for (let rotation = 1; rotation <= 20; rotation++) {
    await until("lines are written", () => existsSync(file) && statSync(file).size > 0);
    const old = `${file}.${rotation}`;
    renameSync(file, old);
    files.push(old);
    const told = writers.map((child) => within("it was reopened", once(child, "message")));
    for (const child of writers) child.send("reopen");
    await Promise.all(told);
  }
  const said = writers.map((child) => within("it ends", once(child, "message")));
  for (const child of writers) child.send("stop");
  const written = (await Promise.all(said)).map(([count]) => count as number);
  const lines = files.flatMap(linesOf).map((line) => JSON.parse(line));
  for (const [index, child] of writers.entries()) {
    const numbers = new Set(lines.flatMap(({ pid, n }) => (pid === child.pid ? [n] : [])));
    assert.equal(numbers.size, written[index]);
  }
  assert.equal(
    lines.length,
    written.reduce((sum, count) => sum + count, 0),
  );
});

/** What a descriptor of this process leads to; the one that listed them has gone by now. */
function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}

test("a descriptor is closed when another takes its place", async (t) => {
  const folder = makeFolder(t);
  const stream = new LogStream(openSync(join(folder, "0"), "a"), { owned: true });
  const own = (): number => readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).startsWith(folder)).length;
  for (let i = 1; i <= 5; i++) {
    stream.write(`line ${i}\n`);
    stream.moveTo(openSync(join(folder, String(i)), "a"));
  }
  await within("it is written", stream.close());
  assert.ok(own() <= 1, `${own()} descriptors`);
});
