/** What a change is refused for before it begins, and what it leaves on disk. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openClient } from "../support/client.js";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";
import { startServer } from "../support/server.js";
import { until } from "../support/until.js";

const MAIN = fileURLToPath(import.meta.resolve("#src/cli/main.js"));

/** A server started through another program; it is killed with that, and its commands are run beside it. */
function startThrough(t: TestContext, program: string, args: readonly string[], ...run: string[]): string {
  const folder = makeFolder(t);
  const env = { PATH: process.env.PATH, RUNTIME_DIRECTORY: folder };
  const child = spawn(program, [...args, process.execPath, MAIN, "run", "--listen", "127.0.0.1:0", ...run], {
    stdio: "ignore",
    env,
    cwd: folder,
  });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  t.after(async () => {
    await headrace(["stop", "--fast"], { env });
    child.kill("SIGKILL");
    await exited;
  });
  return folder;
}

test("process 1 of a container is not replaced: the refusal says what to do", async (t) => {
  const folder = startThrough(t, "unshare", ["--pid", "--fork", "--kill-child", "--mount-proc"], "--workers", "1");
  const env = { RUNTIME_DIRECTORY: folder };
  await until("it runs", async () => (await headrace(["status"], { env })).code === 0);
  const { code, stderr } = await headrace(["upgrade", "--wait"], { env });
  assert.equal(code, 1);
  assert.match(stderr, /process 1, which cannot be replaced; replace the container/);
  assert.equal((await headrace(["reload", "--replace", "--wait"], { env })).code, 0);
});

test("a scale whose connections would not fit the descriptors is refused, naming the limit", async (t) => {
  const folder = startThrough(t, "sh", ["-c", 'ulimit -n 400; exec "$@"', "sh"], "--workers", "2");
  const env = { RUNTIME_DIRECTORY: folder };
  const status = async (): Promise<{ listeners: { address: string; open: number }[]; workers: unknown[] }> =>
    JSON.parse((await headrace(["status", "--json"], { env })).stdout || '{"listeners":[],"workers":[]}');
  const address = await until("it runs", async () => (await status()).listeners[0]?.address);
  const port = Number(address.split(":")[1]);
  await Promise.all(Array.from({ length: 180 }, () => openClient(t, port)));
  await until("all are open", async () => (await status()).listeners[0]?.open === 180);
  const { code, stderr } = await headrace(["scale", "1", "--wait"], { env });
  assert.equal(code, 1);
  assert.match(stderr, /180 connections do not fit 1 worker: each may hold 400 descriptors \(RLIMIT_NOFILE\)/);
  assert.equal((await status()).workers.length, 2);
});

test("the pid file names the primary, also after an upgrade, and goes with the last one", async (t) => {
  const folder = makeFolder(t);
  const pidFile = join(folder, "headrace.pid");
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 1\nlisteners: [{ address: "127.0.0.1:0", service: echo-line }]\ntimeouts: { prove: 100ms }\npidFile: ${pidFile}\n`,
  );
  const server = startServer(t, [], { cwd: folder });
  await server.ready();
  assert.equal(readFileSync(pidFile, "utf8"), `${server.pid}\n`);
  assert.equal((await server.command("upgrade", "--wait", "--control", server.control)).code, 0);
  const { pid } = await server.status();
  assert.notEqual(pid, server.pid);
  assert.equal(readFileSync(pidFile, "utf8"), `${pid}\n`);
  await server.exit();
  assert.equal((await server.command("stop", "--wait", "--control", server.control)).code, 0);
  assert.ok(!existsSync(pidFile));
});
