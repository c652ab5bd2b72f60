/** Messages to the service manager, as a real datagram socket receives them. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { openSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { closeDescriptor, openChannel } from "#src/os/descriptors.js";
import { type InheritedEnvironment, type Notifier, openNotifier } from "#src/os/notify.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { makeFolder } from "../support/folder.js";
import { type NotifySocket, openNotifySocket } from "../support/notify-socket.js";

interface Opened {
  readonly manager: NotifySocket;
  readonly notifier: Notifier;
  readonly problems: string[];
}

async function open(t: TestContext, more: InheritedEnvironment = {}, path?: string): Promise<Opened> {
  const manager = await openNotifySocket(t, path);
  const problems: string[] = [];
  const env = { NOTIFY_SOCKET: manager.path, ...more };
  return { manager, problems, notifier: openNotifier(env, process.pid, (problem) => problems.push(problem)) };
}

/** Nothing can be sent and nothing may be reported. */
function unwatched(env: InheritedEnvironment): { notifier: Notifier; problems: string[] } {
  const problems: string[] = [];
  return { notifier: openNotifier(env, process.pid, (problem) => problems.push(problem)), problems };
}

test("each call is one datagram, in order, from this process", async (t) => {
  const { manager, notifier, problems } = await open(t, { WATCHDOG_USEC: "3000000" });
  const before = process.hrtime.bigint();
  notifier.status("loading");
  notifier.extend(1_500.2);
  notifier.ready("serving");
  notifier.reloading("reloading");
  notifier.watchdog();
  notifier.mainPid(4711, "generation 2");
  notifier.unstore("slot-0|tcp");
  notifier.stopping("draining");
  const messages = await manager.received(8);
  const after = process.hrtime.bigint();
  const time = messages[3]?.lines[1]?.replace("MONOTONIC_USEC=", "") ?? "";
  assert.deepEqual(
    messages.map(({ lines }) => lines),
    [
      ["STATUS=loading"],
      ["EXTEND_TIMEOUT_USEC=1501000"],
      ["READY=1", "STATUS=serving"],
      ["RELOADING=1", `MONOTONIC_USEC=${time}`, "STATUS=reloading"],
      ["WATCHDOG=1"],
      ["MAINPID=4711", "READY=1", "WATCHDOG=1", "STATUS=generation 2"],
      ["FDSTOREREMOVE=1", "FDNAME=slot-0|tcp"],
      ["STOPPING=1", "STATUS=draining"],
    ],
  );
  assert.match(time, /^\d+$/);
  assert.ok(BigInt(time) >= before / 1000n && BigInt(time) <= after / 1000n, `${time} is not CLOCK_MONOTONIC`);
  assert.ok(messages.every(({ pid, fds }) => pid === process.pid && fds.length === 0));
  assert.deepEqual(problems, []);
});

test("an abstract address is as good as a path", async (t) => {
  const { manager, notifier } = await open(t, {}, `@headrace-test-${randomUUID()}`);
  notifier.ready("serving");
  assert.deepEqual((await manager.received(1))[0]?.lines, ["READY=1", "STATUS=serving"]);
});

test("without a service manager every call does nothing", async () => {
  const { notifier, problems } = unwatched({ WATCHDOG_USEC: "3000000" });
  assert.deepEqual([notifier.enabled, notifier.watchdogMs, notifier.environment], [false, undefined, {}]);
  notifier.ready("x");
  notifier.watchdog();
  notifier.store("x", 0);
  assert.equal(await notifier.barrier(1), true);
  assert.deepEqual(problems, []);
});

test("a status is one line, whatever is in it, and never too long", async (t) => {
  const { manager, notifier } = await open(t);
  notifier.status("bad\nMAINPID=1\r\n\u0000\u0085end");
  notifier.status("\u{1f600}".repeat(2_000));
  notifier.unstore("name\nREADY=1");
  const [first, second, third] = await manager.received(3);
  assert.deepEqual(first?.lines, ["STATUS=bad MAINPID=1 end"]);
  assert.equal(second?.lines.length, 1);
  assert.match(second?.lines[0] ?? "", /^STATUS=(\u{1f600}){400,}…$/u);
  assert.ok(Buffer.byteLength(second?.lines[0] ?? "") < 3_000);
  assert.deepEqual(third?.lines, ["FDSTOREREMOVE=1", "FDNAME=name READY=1"]);
});

test("a stored descriptor arrives under its name and stays the caller's", async (t) => {
  const { manager, notifier, problems } = await open(t);
  const before = openDescriptors();
  const file = openSync("/proc/self/stat", "r");
  notifier.store("slot-1|tcp|%3A%3A1|9000|false", file);
  notifier.store("slot-1|udp|%3A%3A1|9000|false", file, false);
  const [first, second] = await manager.received(2);
  assert.deepEqual(first?.lines, ["FDSTORE=1", "FDNAME=slot-1|tcp|%3A%3A1|9000|false"]);
  assert.deepEqual(second?.lines, ["FDSTORE=1", "FDNAME=slot-1|udp|%3A%3A1|9000|false", "FDPOLL=0"]);
  assert.deepEqual(first?.fds, [`/proc/${process.pid}/stat`]);
  assert.deepEqual(second?.fds, first?.fds);
  for (const name of ["a:b", "", "x".repeat(256), "caf\u00e9", "a\nb"]) notifier.store(name, file);
  assert.equal(problems.length, 5);
  closeDescriptor(file);
  notifier.status("last");
  assert.equal((await manager.received(3)).length, 3);
  await sameDescriptors(before);
});

test("a barrier is passed when everything before it has been dealt with, not earlier", async (t) => {
  const { manager, notifier } = await open(t);
  const before = openDescriptors();
  manager.pause();
  notifier.mainPid(4711, "generation 2");
  let passed = false;
  const barrier = notifier.barrier(20_000).then((result) => {
    passed = true;
    return result;
  });
  assert.equal(await notifier.barrier(50), false);
  assert.equal(passed, false);
  manager.resume();
  assert.equal(await barrier, true);
  const messages = await manager.received(3);
  assert.deepEqual(
    messages.map(({ lines }) => lines.at(0)),
    ["MAINPID=4711", "BARRIER=1", "BARRIER=1"],
  );
  // Together with anything else it would be ignored (sd_notify(3)).
  assert.deepEqual(messages[1]?.lines, ["BARRIER=1"]);
  assert.equal(messages[1]?.fds.length, 1);
  await sameDescriptors(before);
});

test("a manager that does not read gets everything later, in order, descriptors too", async (t) => {
  const { manager, notifier, problems } = await open(t);
  const before = openDescriptors();
  manager.pause();
  const many = 700;
  for (let number = 0; number < many; number++) {
    const [a, b] = openChannel();
    notifier.store(`number-${number}`, a);
    // What waits is a copy: the caller may close its own at once.
    closeDescriptor(a);
    closeDescriptor(b);
  }
  manager.resume();
  await manager.received(1);
  // There is room again, but not all that waits has been sent.
  notifier.status("late");
  assert.equal(await notifier.barrier(20_000), true);
  const messages = await manager.received(many + 2);
  assert.deepEqual(
    messages.map(({ lines }) => lines.at(-1)),
    [...Array.from({ length: many }, (_, number) => `FDNAME=number-${number}`), "STATUS=late", "BARRIER=1"],
  );
  assert.equal(new Set(messages.flatMap(({ fds }) => fds)).size, many + 1);
  assert.deepEqual(problems, []);
  await sameDescriptors(before);
});

test("a manager that never reads costs no more than a bounded queue", async (t) => {
  const { manager, notifier, problems } = await open(t);
  const before = openDescriptors();
  manager.pause();
  for (let number = 0; number < 5_000; number++) notifier.status(`${number}`);
  assert.equal(await notifier.barrier(1_000), false);
  assert.equal(problems.length, 1);
  manager.resume();
  await manager.said(/^STATUS=1000$/);
  await sameDescriptors(before);
});

test("a manager that has gone is reported once; again when it had come back", async (t) => {
  const folder = makeFolder(t);
  const path = join(folder, "notify");
  const { notifier, problems } = unwatched({ NOTIFY_SOCKET: path });
  const before = openDescriptors();
  notifier.ready("nobody there");
  notifier.status("still nobody");
  assert.equal(await notifier.barrier(5_000), false);
  assert.equal(problems.length, 1);
  assert.match(problems[0] ?? "", /notify.*ENOENT/);
  await sameDescriptors(before);
  const manager = await openNotifySocket(t, path);
  notifier.status("back");
  await manager.received(1);
  await manager.close();
  notifier.status("gone");
  assert.equal(problems.length, 2);
  assert.match(problems[1] ?? "", /ECONNREFUSED/);
});

for (const [what, env, watchdogMs] of [
  ["for this process", { WATCHDOG_USEC: "30000000", WATCHDOG_PID: String(process.pid) }, 30_000],
  ["for whoever is the main process", { WATCHDOG_USEC: "30000000" }, 30_000],
  ["for another process", { WATCHDOG_USEC: "30000000", WATCHDOG_PID: String(process.ppid) }, undefined],
  ["of zero", { WATCHDOG_USEC: "0" }, undefined],
  ["that is absent", {}, undefined],
] as const) {
  test(`a watchdog ${what}`, async (t) => {
    const { manager, notifier } = await open(t, env);
    assert.equal(notifier.watchdogMs, watchdogMs);
    notifier.watchdog();
    notifier.status("end");
    const messages = await manager.said(/end/);
    assert.equal(messages.length, watchdogMs === undefined ? 1 : 2);
  });
}

for (const given of ["", "garbage", "-1", "1e9", "30s", "99999999999999999999"]) {
  test(`WATCHDOG_USEC=${JSON.stringify(given)} is reported and not obeyed`, async (t) => {
    const { notifier, problems } = await open(t, { WATCHDOG_USEC: given });
    assert.equal(notifier.watchdogMs, undefined);
    assert.equal(problems.length, 1);
  });
}

for (const given of ["relative", "vsock:2:1234", "@", "/", "unix:/x", `/${"x".repeat(300)}`]) {
  test(`NOTIFY_SOCKET=${given.slice(0, 20)} is reported, and nothing is thrown`, async () => {
    const { notifier, problems } = unwatched({ NOTIFY_SOCKET: given });
    notifier.ready("x");
    notifier.status("y");
    assert.equal(problems.length, 1);
    assert.equal(await notifier.barrier(1_000), !notifier.enabled);
  });
}

test("the variables are taken out of the environment; a successor gets all but WATCHDOG_PID", async (t) => {
  const manager = await openNotifySocket(t);
  const env = {
    NOTIFY_SOCKET: manager.path,
    WATCHDOG_USEC: "30000000",
    WATCHDOG_PID: String(process.pid),
    PATH: "/bin",
  };
  const { environment } = openNotifier(env, process.pid, assert.fail);
  assert.deepEqual(env, { PATH: "/bin" });
  assert.deepEqual(environment, { NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: "30000000" });
  const successor = openNotifier({ ...environment }, 4711, assert.fail);
  assert.equal(successor.watchdogMs, 30_000);
});

test("the descriptor of a message that waits is a copy: the number may mean another file by then", async (t) => {
  const { manager, notifier } = await open(t);
  manager.pause();
  for (let number = 0; number < 600; number++) notifier.status(`${number}`);
  const file = openSync("/proc/self/stat", "r");
  notifier.store("file", file);
  closeDescriptor(file);
  const other = openSync("/proc/self/status", "r");
  assert.equal(other, file);
  manager.resume();
  const messages = await manager.said(/^FDNAME=file$/);
  assert.deepEqual(messages.at(-1)?.fds, [`/proc/${process.pid}/stat`]);
  closeDescriptor(other);
});
