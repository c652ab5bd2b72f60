/** reload, upgrade, scale and drain as a user types them, against a server whose answers the test decides. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import type { ChangeRequest } from "#src/control/protocol.js";
import { ControlServer } from "#src/control/server.js";
import { addon } from "#src/os/addon.js";
import { peerOf } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { headrace, type Outcome } from "../support/command.js";
import { makeFolder } from "../support/folder.js";

const MESSAGE = "reloaded: configuration 3, 2 workers replaced, 1,024 connections moved";

interface Server {
  readonly asked: readonly ChangeRequest[];
  run(...args: string[]): Promise<Outcome>;
}

/** `end`: why a change fails, at once when `begins` is false. */
async function startServer(t: TestContext, end?: Error, begins = true): Promise<Server> {
  const path = join(makeFolder(t), "control.sock");
  const asked: ChangeRequest[] = [];
  const server = await ControlServer.listen(check(addon().unixListen(path), "listen"), {
    uid: process.geteuid?.() ?? 0,
    peerOf,
    handlers: {
      status: () => Promise.reject(new Error("not asked for")),
      stop: () => Promise.reject(new Error("not asked for")),
      async change(request) {
        asked.push(request);
        if (end && !begins) throw end;
        return { done: end ? Promise.reject(end) : Promise.resolve({ message: MESSAGE }) };
      },
    },
  });
  t.after(() => server.close());
  return { asked, run: (...args) => headrace([...args, "--control", path]) };
}

for (const [args, request, begun] of [
  [["reload"], { type: "reload", wait: false, replace: false }, "reloading"],
  [["reload", "--replace"], { type: "reload", wait: false, replace: true }, "reloading"],
  [["upgrade"], { type: "upgrade", wait: false }, "upgrading"],
  [["scale", "4"], { type: "scale", wait: false, workers: 4 }, "scaling to 4"],
  [["drain", "0"], { type: "drain", wait: false, worker: 0 }, "draining worker 0"],
] as const) {
  test(`headrace ${args.join(" ")} asks for it, and --wait for its end`, async (t) => {
    const server = await startServer(t);
    assert.deepEqual(await server.run(...args), { code: 0, stdout: `${begun}\n`, stderr: "" });
    assert.deepEqual(await server.run(...args, "--wait"), { code: 0, stdout: `${MESSAGE}\n`, stderr: "" });
    assert.deepEqual(server.asked, [request, { ...request, wait: true }]);
  });
}

test("a busy server is exit code 75, with and without --wait", async (t) => {
  const server = await startServer(t, new HeadraceError("busy", "an upgrade goes on; try again"), false);
  for (const wait of [[], ["--wait"]]) {
    const { code, stdout, stderr } = await server.run("reload", ...wait);
    assert.deepEqual([code, stdout], [75, ""]);
    assert.match(stderr, /^headrace: the server at \S+ refused: an upgrade goes on; try again\n$/);
  }
});

test("a worker that does not exist is refused, naming those that do", async (t) => {
  const refused = new HeadraceError("change-refused", "there is no worker 7; allowed: 0 to 1");
  const { code, stderr } = await (await startServer(t, refused, false)).run("drain", "7", "--wait");
  assert.equal(code, 1);
  assert.match(stderr, /^headrace: the server at \S+ refused: there is no worker 7; allowed: 0 to 1\n$/);
});

test("a broken configuration is exit code 1, one line per fault", async (t) => {
  const broken = new HeadraceError(
    "change-failed",
    "reload failed: headrace.yaml:1: workers: …\nheadrace.yaml:2: limits: …",
  );
  const server = await startServer(t, broken);
  assert.equal((await server.run("reload")).code, 0, "nobody waits");
  const { code, stdout, stderr } = await server.run("reload", "--wait");
  assert.deepEqual([code, stdout], [1, ""]);
  assert.equal(stderr, "headrace: reload failed: headrace.yaml:1: workers: …\nheadrace: headrace.yaml:2: limits: …\n");
});

for (const [args, says] of [
  [["scale", "0"], 'scale: "0" is out of range; allowed: 1 to 256'],
  [["scale", "9999"], 'scale: "9999" is out of range; allowed: 1 to 256'],
  [["scale", "257"], 'scale: "257" is out of range; allowed: 1 to 256'],
  [["scale", "abc"], 'scale: "abc" is not a whole number; allowed: 1 to 256'],
  [["scale", "2.5"], 'scale: "2.5" is not a whole number; allowed: 1 to 256'],
  [["scale", ""], 'scale: "" is not a whole number; allowed: 1 to 256'],
  [["scale", "auto"], 'scale: "auto" is not a whole number; allowed: 1 to 256'],
  [["scale"], "missing required argument 'workers'; see headrace --help"],
  [["scale", "1", "2"], "too many arguments for 'scale'. Expected 1 argument but got 2; see headrace --help"],
  [["drain", "256"], 'drain: "256" is out of range; allowed: 0 to 255'],
  [["drain", "all"], 'drain: "all" is not a whole number; allowed: 0 to 255'],
  [["drain"], "missing required argument 'worker'; see headrace --help"],
  [["reload", "now"], "too many arguments for 'reload'. Expected 0 arguments but got 1; see headrace --help"],
  [["upgrade", "--replace"], "unknown option '--replace'; see headrace --help"],
] as const) {
  test(`headrace ${args.map((arg) => arg || '""').join(" ")} is a usage error, and the server hears nothing`, async (t) => {
    const server = await startServer(t);
    const { code, stdout, stderr } = await server.run(...args);
    assert.deepEqual([code, stdout, stderr], [2, "", `headrace: ${says}\n`]);
    assert.deepEqual(server.asked, []);
  });
}

test("scale -1 is no number either", async (t) => {
  const server = await startServer(t);
  assert.equal((await server.run("scale", "-1")).code, 2);
  assert.deepEqual(server.asked, []);
});
