/** The control socket's two ends without a primary: who is let in, and the bounds that protect it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { requestControl } from "#src/control/client.js";
import type { ControlReply } from "#src/control/protocol.js";
import { type ControlHandlers, ControlServer, type ControlServerOptions } from "#src/control/server.js";
import type { ServerStatus } from "#src/control/status.js";
import { makeFolder } from "../support/folder.js";

const OWN = 1000;
const own = (): { pid: number; uid: number } => ({ pid: 1, uid: OWN });
const STATUS = { pid: 42 } as ServerStatus;

async function listen(t: TestContext, options: Partial<ControlServerOptions & ControlHandlers> = {}): Promise<string> {
  const path = join(makeFolder(t), "control.sock");
  const { status = async () => STATUS, stop = async () => ({ closed: 1, forced: 0 }) } = options;
  const server = await ControlServer.listen(path, { uid: OWN, peerOf: own, handlers: { status, stop }, ...options });
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
