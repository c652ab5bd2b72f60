/** The steps of real changes, as --verbose tells them. Those that take less than a moment may go by unseen. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { stringify } from "yaml";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer } from "../support/server.js";
import { until } from "../support/until.js";

test("a change that takes a second says its step and how far it is, and status says the same", async (t) => {
  const folder = makeFolder(t);
  writeService(folder, "export default defineService({ codec: line(), onMessage: () => new Promise(() => {}) });");
  const listeners = [{ address: "127.0.0.1:0", service: "./service.mjs" }];
  const config = { workers: 2, listeners, timeouts: { prove: "2s", drain: "2s" } };
  writeFileSync(join(folder, "headrace.yaml"), stringify(config));
  const server = startServer(t, ["--config", join(folder, "headrace.yaml")], { cwd: folder });
  const [port = 0] = await server.ready();
  const steps = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await server.command(...args, "--wait", "--verbose");
    assert.equal(code, 0, stderr);
    return stderr;
  };
  // The first worker is on trial for a second, newcomers have one to arrive, a generation has its two.
  assert.match(await steps("reload", "--replace"), /^reload: replacing workers, 0 of 2$/m);
  assert.match(await steps("scale", "1"), /^scale: steering newcomers away, 0 of 1$/m);
  assert.match(await steps("upgrade"), /^upgrade: both generations serve, the new one on trial, 3 of 4$/m);
  assert.equal((await server.status()).lastChange?.step, undefined);
  // A request that is never answered keeps its worker until the drain deadline.
  const socket = connect(port, "127.0.0.1", () => socket.write("x\n"));
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  await until("it is asked", async () => (await server.status()).totals.requests > 0);
  assert.match(await steps("stop"), /^stop: 0 of 1 workers have ended, 1 open connections$/m);
});
