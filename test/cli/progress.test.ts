/** What commands that wait show meanwhile: on a terminal, without one, and with --verbose. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ControlServer } from "#src/control/server.js";
import type { ChangeStatus, ServerStatus } from "#src/control/status.js";
import { addon } from "#src/os/addon.js";
import { peerOf } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";
import { runPython } from "../support/script.js";
import { until } from "../support/until.js";

const MAIN = fileURLToPath(import.meta.resolve("#src/cli/main.js"));
/** Runs a command on a terminal of its own and prints what that shows. */
const TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

interface Server {
  readonly control: string;
  /** Of `status` from now on. */
  status: Partial<ServerStatus>;
  /** How often that was asked for. */
  asked: number;
  finish(): void;
}

/** A server whose reload goes on until `finish`. */
async function startServer(t: TestContext): Promise<Server> {
  const control = join(makeFolder(t), "control.sock");
  let finish = (): void => {};
  const over = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const server: Server = { control, status: {}, asked: 0, finish };
  const listening = await ControlServer.listen(check(addon().unixListen(control), "listen"), {
    uid: process.geteuid?.() ?? 0,
    peerOf,
    handlers: {
      async status() {
        server.asked += 1;
        return server.status as ServerStatus;
      },
      stop: async () => {
        await over;
        // Once the answer is written this end goes, as the process would.
        setImmediate(() => void listening.close());
        return { closed: 3, forced: 1 };
      },
      change: async () => ({ done: over.then(() => ({ message: "reloaded" })) }),
    },
  });
  t.after(() => {
    finish();
    // It may be closed already.
    return listening.close().catch(() => {});
  });
  return server;
}

function reloading(what: string, done: number): Partial<ServerStatus> {
  const step = { what, done, of: 4 };
  const lastChange: ChangeStatus = { kind: "reload", outcome: "running", message: "reload began", at: "", step };
  return { lastChange };
}

/** Until it has been shown, whatever was asked before. */
async function askedTwiceMore(server: Server): Promise<void> {
  const before = server.asked;
  await until("the status is asked for", () => server.asked >= before + 2);
}

test("on a terminal one line is rewritten, with the step and the seconds, and is gone at the end", async (t) => {
  const server = await startServer(t);
  server.status = reloading("replacing workers", 1);
  const args = [process.execPath, MAIN, "reload", "--wait", "--control", server.control];
  const outcome = runPython(t, TERMINAL, ...args);
  // Nothing is shown in the first second.
  await until("more than a second of it", () => server.asked >= 8);
  server.status = reloading("replacing workers", 3);
  await askedTwiceMore(server);
  server.finish();
  const { code, stdout } = await outcome;
  assert.equal(code, 0);
  const lines = stdout.split("\r\u001b[K");
  assert.match(lines[1] ?? "", /^reload: replacing workers, 1 of 4, [1-9]\d* s$/);
  assert.ok(
    lines.some((line) => /^reload: replacing workers, 3 of 4, \d+ s$/.test(line)),
    stdout,
  );
  assert.equal(lines[0], "");
  assert.match(lines.at(-1) ?? "", /^reloaded\r?\n$/);
});

test("without a terminal nothing is shown, and the status is not even asked for", async (t) => {
  const server = await startServer(t);
  server.status = reloading("replacing workers", 1);
  const outcome = headrace(["reload", "--wait", "--control", server.control]);
  setImmediate(() => server.finish());
  assert.deepEqual(await outcome, { code: 0, stdout: "reloaded\n", stderr: "" });
  assert.equal(server.asked, 0);
});

test("--verbose: a plain line for each new step", async (t) => {
  const server = await startServer(t);
  server.status = reloading("replacing workers", 0);
  const outcome = headrace(["reload", "--wait", "--verbose", "--control", server.control]);
  await askedTwiceMore(server);
  server.status = reloading("replacing workers", 1);
  await askedTwiceMore(server);
  server.finish();
  const stderr = "reload: replacing workers, 0 of 4\nreload: replacing workers, 1 of 4\n";
  assert.deepEqual(await outcome, { code: 0, stdout: "reloaded\n", stderr });
});

test("a stop says how many workers have ended, of those that were there", async (t) => {
  const server = await startServer(t);
  const left = (workers: number, open: number): Partial<ServerStatus> => ({
    workers: Array.from({ length: workers }, () => ({}) as never),
    draining: [],
    totals: { open } as never,
  });
  server.status = left(4, 700);
  const outcome = headrace(["stop", "--wait", "--verbose", "--control", server.control]);
  await askedTwiceMore(server);
  server.status = left(1, 20);
  await askedTwiceMore(server);
  server.finish();
  const { stderr, stdout } = await outcome;
  assert.equal(stdout, "stopped: 3 connections closed, 1 cut off\n");
  assert.equal(
    stderr,
    "stop: 0 of 4 workers have ended, 700 open connections\nstop: 3 of 4 workers have ended, 20 open connections\n",
  );
});
