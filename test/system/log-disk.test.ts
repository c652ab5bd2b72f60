/** Log files on a disk that is full: a small tmpfs is a real one. Mounting it needs root. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { makeFolder } from "../support/folder.js";
import { isWhole, linesOf, logging } from "../support/log-process.js";
import { until, within } from "../support/until.js";

/** A disk of 64 KiB, gone when the test ends. */
function smallDisk(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "headrace-disk-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "headrace-test", folder]);
  t.after(() => {
    execFileSync("umount", ["-l", folder]);
    rmdirSync(folder);
  });
  return folder;
}

test("a full disk: the process goes on, what does not fit is counted, and both are said once there is room", async (t) => {
  const disk = smallDisk(t);
  const [file, ballast] = [join(disk, "h.log"), join(disk, "ballast")];
  writeFileSync(ballast, Buffer.alloc(40 * 1024));
  const body = `
    const line = "x".repeat(1000);
    for (let i = 0; i < 100; i++) log.info({ n: i }, line);
    process.on("message", (word) => {
      if (word === "more") { for (let i = 0; i < 10_000; i++) log.info({ n: 100 + i }, line); process.send({ dropped: droppedLines(log) }); }
      if (word === "last") { log.info("last"); }
      if (word === "end") closeLog(log).then(() => process.disconnect());
    });`;
  const child = logging(t, file, body);
  await until("the disk is full", () => existsSync(file) && statSync(file).size >= 20 * 1024);
  child.send("more");
  const [{ dropped }] = (await within("it goes on", once(child, "message"))) as [{ dropped: number }];
  assert.ok(dropped > 5_000 && dropped < 10_000, `${dropped} of 10,100 lines did not fit into what may wait`);
  // Room for all that waits.
  execFileSync("mount", ["-o", "remount,size=16m", disk]);
  rmSync(ballast);
  child.send("last");
  await until("it is written again", () => /could not be written/.test(readFileSync(file, "utf8")));
  const ended = once(child, "exit");
  child.send("end");
  await within("it ends", ended);
  const lines = linesOf(file);
  const torn = lines.filter((line) => !isWhole(line));
  assert.ok(torn.length <= 1, `${torn.length} torn lines`);
  const whole = lines.filter(isWhole).map((line) => JSON.parse(line));
  const said = whole.find(({ msg }) => /could not be written/.test(msg));
  assert.match(said.msg, /^\d+ log lines were dropped: the log could not be written for [\d.]+ s \(ENOSPC\)$/);
  const numbers = whole.flatMap(({ n }) => (n === undefined ? [] : [n]));
  assert.deepEqual(
    numbers,
    [...new Set(numbers)].sort((a, b) => a - b),
    "in order, none twice",
  );
  const last = whole.filter(({ msg }) => msg === "last").length;
  assert.equal(numbers.length + last + said.dropped, 10_101, "each was written or counted");
});

test("a full disk and a rotation: the next line is the first of the new file, as a whole", async (t) => {
  const disk = smallDisk(t);
  const folder = makeFolder(t);
  const [full, fresh] = [join(disk, "h.log"), join(folder, "h.log")];
  const body = `
    for (let i = 0; i < 200; i++) log.info({ n: i }, "x".repeat(1000));
    process.on("message", (path) => { reopenLog(log, path); closeLog(log).then(() => process.disconnect()); });
    process.send("up");`;
  const child = logging(t, full, body);
  await until("the disk is full", () => existsSync(full) && statSync(full).size >= 60 * 1024);
  const ended = once(child, "exit");
  child.send(fresh);
  await within("it ends", ended);
  const lines = linesOf(fresh);
  assert.ok(lines.every(isWhole), "no line is torn");
  const numbers = [...linesOf(full).filter(isWhole), ...lines]
    .map((line) => JSON.parse(line))
    .flatMap(({ n }) => n ?? []);
  const said = lines.map((line) => JSON.parse(line)).find(({ msg }) => /dropped/.test(msg));
  assert.equal(numbers.length + (said?.dropped ?? 0), 200);
});
