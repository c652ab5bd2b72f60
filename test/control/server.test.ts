/** The control socket's two ends without a primary: who is let in, and the bounds that protect it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, fstatSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { exitCodeOf, HeadraceError } from "#src/base/errors.js";
import { requestControl } from "#src/control/client.js";
import type { ChangeRequest, ControlReply } from "#src/control/protocol.js";
import {
  type BegunChange,
  type ControlHandlers,
  ControlServer,
  type ControlServerOptions,
} from "#src/control/server.js";
import type { ServerStatus } from "#src/control/status.js";
import { addon } from "#src/os/addon.js";
import { check } from "#src/os/errno.js";
import { makeFolder } from "../support/folder.js";
import { until } from "../support/until.js";

const OWN = 1000;
const own = (): { pid: number; uid: number } => ({ pid: 1, uid: OWN });
const STATUS = { pid: 42 } as ServerStatus;

type Given = Partial<ControlServerOptions & ControlHandlers>;

function openAt(
  path: string,
  given: Given = {},
  descriptor = check(addon().unixListen(path), "listen"),
): Promise<ControlServer> {
  const {
    status = async () => STATUS,
    stop = async () => ({ closed: 1, forced: 0 }),
    change = async () => ({ done: Promise.resolve({ message: "done" }) }),
    ...options
  } = given;
  return ControlServer.listen(descriptor, { uid: OWN, peerOf: own, handlers: { status, stop, change }, ...options });
}

async function listen(t: TestContext, given: Given = {}): Promise<string> {
  const path = join(makeFolder(t), "control.sock");
  const server = await openAt(path, given);
  t.after(() => server.close());
  return path;
}

async function answerTo(path: string, line: string): Promise<ControlReply> {
  const socket = connect(path);
  socket.write(line);
  return JSON.parse(await text(socket));
}

async function failure(promise: Promise<unknown>): Promise<HeadraceError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof HeadraceError, String(error));
  return error;
}

test("the socket is its owner's only, from the start", async (t) => {
  assert.equal(statSync(await listen(t)).mode & 0o777, 0o600);
});

test("a request gets one reply, and the connection ends", async (t) => {
  const path = await listen(t);
  assert.deepEqual(await answerTo(path, '{"protocol":1,"type":"status"}\n'), {
    protocol: 1,
    type: "status",
    status: STATUS,
  });
});

test("a client that closes its end first still gets its reply", async (t) => {
  const path = await listen(t);
  const socket = connect({ path, allowHalfOpen: true });
  socket.end('{"protocol":1,"type":"status"}\n');
  assert.equal(JSON.parse(await text(socket)).status.pid, 42);
});

test("a handler that fails is reported", async (t) => {
  const path = await listen(t, { status: () => Promise.reject(new Error("no figures")) });
  const error = await failure(requestControl({ type: "status" }, { path, uid: OWN, peerOf: own }));
  assert.equal(error.code, "control-refused");
  assert.match(error.message, /no figures/);
});

test("only the same user and root are answered", async (t) => {
  for (const [uid, type] of [
    [OWN, "status"],
    [0, "status"],
    [OWN + 1, "error"],
  ] as const) {
    const path = await listen(t, { peerOf: () => ({ pid: 1, uid }) });
    assert.equal((await answerTo(path, '{"protocol":1,"type":"status"}\n')).type, type);
  }
});

test("a client talks only to a server of its own user or root, unless it is root and named the path", async (t) => {
  const path = await listen(t);
  for (const [uid, server, named, told] of [
    [OWN, OWN, false, true],
    [OWN, 0, false, true],
    [0, OWN, true, true],
    [0, OWN, false, false],
    [OWN, OWN + 1, true, false],
  ] as const) {
    const request = requestControl({ type: "status" }, { path, uid, named, peerOf: () => ({ pid: 1, uid: server }) });
    if (told) assert.equal((await request).type, "status");
    else assert.match((await failure(request)).message, /served by user 100[01]/);
  }
});

test("a line that never ends is cut off, and so is a client that says nothing", async (t) => {
  const path = await listen(t, { deadlineMs: 50 });
  assert.equal((await answerTo(path, "x".repeat(5000))).type, "error");
  const silent = await answerTo(path, "");
  assert.equal(silent.type === "error" && silent.code, "timeout");
});

test("there is a bound on clients, and room again when one leaves", async (t) => {
  const path = await listen(t, { maxClients: 1 });
  const first = connect(path);
  await once(first, "connect");
  const second = await answerTo(path, '{"protocol":1,"type":"status"}\n');
  assert.equal(second.type === "error" && second.code, "busy");
  first.destroy();
  for (;;) {
    const next = await answerTo(path, '{"protocol":1,"type":"status"}\n');
    if (next.type === "status") break;
    assert.equal(next.type === "error" && next.code, "busy");
  }
});

test("a stop that waits has no deadline of its own", async (t) => {
  let finish: (stopped: { closed: number; forced: number }) => void = () => {};
  const stopped = new Promise<{ closed: number; forced: number }>((resolve) => {
    finish = resolve;
  });
  let fast: boolean | undefined;
  const stop = (given: boolean): typeof stopped => {
    fast = given;
    return stopped;
  };
  const path = await listen(t, { deadlineMs: 20, stop });
  const socket = connect(path).setEncoding("utf8");
  socket.write('{"protocol":1,"type":"stop","wait":true,"fast":true}\n');
  const [stopping] = await once(socket, "data");
  assert.equal(JSON.parse(stopping).type, "stopping");
  assert.equal(fast, true);
  await new Promise((resolve) => setTimeout(resolve, 40));
  finish({ closed: 3, forced: 1 });
  const [last] = await once(socket, "data");
  assert.deepEqual(JSON.parse(last), { protocol: 1, type: "stopped", closed: 3, forced: 1 });
  socket.destroy();
});

test("a server that never answers is given up", async (t) => {
  const path = await listen(t, { status: () => new Promise(() => {}) });
  const error = await failure(requestControl({ type: "status" }, { path, uid: OWN, peerOf: own, timeoutMs: 50 }));
  assert.match(error.message, /no answer in 50 ms/);
});

async function pidAt(path: string): Promise<number> {
  const reply = await requestControl({ type: "status" }, { path, uid: OWN, peerOf: own });
  return reply.type === "status" ? reply.status.pid : assert.fail();
}

/** A change in the test's hands. */
class Change {
  readonly asked: ChangeRequest[] = [];
  readonly done: Promise<{ message: string }>;
  finish: (message: string) => void = () => {};
  fail: (error: Error) => void = () => {};

  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.finish = (message) => resolve({ message });
      this.fail = reject;
    });
  }

  readonly begin = async (request: ChangeRequest): Promise<BegunChange> => {
    this.asked.push(request);
    return { done: this.done };
  };
}

test("a change that nobody waits for is answered when it has begun", async (t) => {
  const change = new Change();
  const path = await listen(t, { change: change.begin });
  const request = { type: "scale", wait: false, workers: 3 } as const;
  assert.deepEqual(await requestControl(request, { path, uid: OWN, peerOf: own }), { protocol: 1, type: "started" });
  assert.deepEqual(change.asked, [request]);
  // Nobody hears of it, and it is no unhandled rejection either, which would end this process.
  change.fail(new Error("later"));
  await new Promise(setImmediate);
});

test("a change that somebody waits for gets one answer, at its end, however late", async (t) => {
  const change = new Change();
  const path = await listen(t, { change: change.begin, deadlineMs: 20 });
  const waiting = requestControl(
    { type: "drain", wait: true, worker: 1 },
    { path, uid: OWN, peerOf: own, timeoutMs: 20 },
  );
  let answered = false;
  void waiting.finally(() => {
    answered = true;
  });
  await until("it has begun", () => change.asked.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(answered, false);
  change.finish("drained: worker 1 was replaced, 1,024 connections moved");
  assert.deepEqual(await waiting, {
    protocol: 1,
    type: "done",
    message: "drained: worker 1 was replaced, 1,024 connections moved",
  });
});

for (const wait of [false, true]) {
  const how = wait ? "with wait" : "without wait";
  for (const [code, exitCode, as, says] of [
    ["busy", 75, "busy", /refused: a reload goes on$/],
    ["change-refused", 1, "control-refused", /refused: a reload goes on$/],
    ["config-invalid", 1, "change-failed", /^a reload goes on$/],
  ] as const) {
    test(`${how}, a change that cannot begin (${code}) is refused at once`, async (t) => {
      const refused = new HeadraceError(code, "a reload goes on");
      const path = await listen(t, { change: () => Promise.reject(refused) });
      const request = { type: "reload", wait, replace: false } as const;
      const error = await failure(requestControl(request, { path, uid: OWN, peerOf: own }));
      assert.equal(error.code, as);
      assert.equal(exitCodeOf(error), exitCode);
      assert.match(error.message, says);
    });
  }
}

test("a change that fails tells who waits for it why, line by line", async (t) => {
  const change = new Change();
  const path = await listen(t, { change: change.begin });
  const waiting = failure(requestControl({ type: "upgrade", wait: true }, { path, uid: OWN, peerOf: own }));
  await until("it has begun", () => change.asked.length === 1);
  change.fail(new Error("the new release threw\nat load"));
  const error = await waiting;
  assert.equal(error.code, "change-failed");
  assert.equal(error.message, "the new release threw\nat load");
});

test("a server that goes away while somebody waits is not taken for a success", async (t) => {
  const change = new Change();
  const path = join(makeFolder(t), "control.sock");
  const server = await openAt(path, { change: change.begin });
  const waiting = failure(requestControl({ type: "upgrade", wait: true }, { path, uid: OWN, peerOf: own }));
  await until("it has begun", () => change.asked.length === 1);
  await server.close();
  assert.match((await waiting).message, /went away without an answer/);
});

test("a client that leaves while it waits does no harm", async (t) => {
  const change = new Change();
  const path = await listen(t, { change: change.begin });
  const client = connect(path);
  client.write('{"protocol":1,"type":"upgrade","wait":true}\n');
  await until("it has begun", () => change.asked.length === 1);
  client.destroy();
  await once(client, "close");
  change.finish("done");
  assert.equal(await pidAt(path), 42);
});

test("closing leaves the path to whoever made it, and nothing listens there", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  const server = await openAt(path);
  await server.close();
  assert.ok(existsSync(path));
  assert.throws(() => fstatSync(server.descriptor), { code: "EBADF" });
  const error = await failure(requestControl({ type: "status" }, { path, uid: OWN, peerOf: own }));
  assert.equal(error.code, "control-unreachable");
  await server.close();
});

test("a successor goes on with the socket, and who waits at the old server still gets its answer", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  const change = new Change();
  const old = await openAt(path, { change: change.begin });
  t.after(() => old.close());
  const waiting = requestControl({ type: "upgrade", wait: true }, { path, uid: OWN, peerOf: own });
  await until("it has begun", () => change.asked.length === 1);
  // As it arrives in another process: a descriptor of its own for the same socket.
  const inherited = check(addon().fdDuplicate(old.descriptor), "dup");
  const successor = await openAt(path, { status: async () => ({ pid: 43 }) as ServerStatus }, inherited);
  t.after(() => successor.close());
  // A client that connects while neither looks is in the queue of the one socket.
  const early: Socket = connect(path);
  early.write('{"protocol":1,"type":"status"}\n');
  old.stopAccepting();
  assert.throws(() => fstatSync(old.descriptor), { code: "EBADF" }, "held by nobody who does not accept");
  for (let round = 0; round < 20; round++) assert.equal(await pidAt(path), 43);
  assert.equal(JSON.parse(await text(early)).type, "status");
  change.finish("upgraded: generation 2");
  const reply = await waiting;
  assert.equal(reply.type === "done" && reply.message, "upgraded: generation 2");
});

test("what is not a listening socket is refused", async (t) => {
  const path = join(makeFolder(t), "control.sock");
  await assert.rejects(openAt(path, {}, 9_999));
});
