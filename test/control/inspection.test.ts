/** Requests that look at connections and profiles, over the control socket: their fields, and a profile's bytes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { requestControl, requestProfile } from "#src/control/client.js";
import type { Inspector } from "#src/control/inspection.js";
import { parseRequest } from "#src/control/protocol.js";
import { ControlServer } from "#src/control/server.js";
import type { ServerStatus } from "#src/control/status.js";
import { addon } from "#src/os/addon.js";
import { check } from "#src/os/errno.js";
import { fakeSource } from "../admin/source.js";
import { makeFolder } from "../support/folder.js";

const OWN = 1000;
const peerOf = (): { pid: number; uid: number } => ({ pid: 1, uid: OWN });

async function listen(t: TestContext, own: Partial<Inspector> = {}): Promise<string> {
  const path = join(makeFolder(t), "control.sock");
  const handlers = {
    status: async () => ({}) as ServerStatus,
    stop: async () => ({ closed: 0, forced: 0 }),
    change: async () => ({ done: Promise.resolve({ message: "" }) }),
    inspect: fakeSource(own),
  };
  const server = await ControlServer.listen(check(addon().unixListen(path), "listen"), { uid: OWN, peerOf, handlers });
  t.after(() => server.close());
  return path;
}

test("what is left out has its default, what is wrong is named", () => {
  const parse = (given: object) => parseRequest(JSON.stringify({ protocol: 1, ...given }));
  assert.deepEqual(parse({ type: "connections" }), {
    type: "connections",
    sort: "buffered",
    order: "desc",
    limit: 100,
    offset: 0,
  });
  assert.deepEqual(parse({ type: "profile", kind: "cpu" }), { type: "profile", kind: "cpu", target: 0, seconds: 10 });
  assert.deepEqual(parse({ type: "log-level" }), { type: "log-level" });
  for (const [given, named] of [
    [{ type: "connections", limit: 1_001 }, '"limit"'],
    [{ type: "connections", sort: "size" }, "buffered, idle, age, bytes"],
    [{ type: "connections", address: "" }, '"address"'],
    [{ type: "kill" }, '"id"'],
    [{ type: "profile" }, '"kind"'],
    [{ type: "profile", kind: "cpu", target: "first" }, '"target"'],
    [{ type: "log-level", level: "loud" }, '"level"'],
  ] as const) {
    const reply = parse(given);
    assert.ok(reply.type === "error" && reply.message.includes(named), JSON.stringify(reply));
  }
});

test("a page, a kill, what there is none of", async (t) => {
  const path = await listen(t);
  const options = { path, peerOf, uid: OWN };
  const query = { type: "connections", sort: "age", order: "asc", limit: 5, offset: 7 } as const;
  const page = await requestControl(query, options);
  assert.deepEqual(page.type === "connections" && page.page, { total: 0, offset: 7, rows: [], missing: [] });
  await assert.rejects(requestControl({ type: "kill", id: "x" }, options), /there is no connection x/);
});

test("a profile comes whole, whatever its size; a refusal is an error; one that breaks off too", async (t) => {
  const bytes = Buffer.alloc(5_000_000, "0123456789\n");
  const path = await listen(t, {
    profile: async ({ target, seconds }) => {
      if (target === 1) throw new HeadraceError("busy", "one is being taken");
      const content = seconds === 1 ? Readable.from([bytes.subarray(0, 10)]) : Readable.from([bytes]);
      return { name: "x", bytes: bytes.length, content };
    },
  });
  const options = { path, peerOf, uid: OWN };
  const ask = (target: number, seconds: number, sink: PassThrough): Promise<void> =>
    requestProfile({ type: "profile", kind: "cpu", target, seconds }, options, () => sink);
  const sink = new PassThrough();
  const received = buffer(sink);
  await ask(0, 2, sink);
  sink.end();
  assert.ok((await received).equals(bytes));
  await assert.rejects(ask(1, 2, new PassThrough()), (error: HeadraceError) => error.code === "busy");
  await assert.rejects(ask(0, 1, new PassThrough().resume()), /went away in between/);
});
