/** V8 as it is configured: in every worker, by a reload in new ones, and in the next generation. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer } from "../support/server.js";

/** Says how its worker was started, and what V8 made of it. */
const FRANK = `
import { getHeapStatistics } from "node:v8";
export default defineService({
  codec: line(),
  onMessage: () => JSON.stringify({ args: process.execArgv, heapLimit: getHeapStatistics().heap_size_limit }),
});`;

const MiB = 1024 ** 2;

test("workers get what is configured, a reload gives it to new ones, an upgrade keeps it", async (t) => {
  const folder = makeFolder(t);
  writeService(folder, FRANK);
  const config = join(folder, "c.yaml");
  const write = (v8: string): void =>
    writeFileSync(
      config,
      `workers: 1\ntimeouts: { prove: 100ms }\nlisteners: [{ name: s, address: "127.0.0.1:0", service: ./service.mjs }]\nv8: ${v8}\n`,
    );
  write("{ semiSpace: 4MiB, oldSpace: 200MiB, flags: [--max-lazy] }");
  const server = startServer(t, ["--config", config]);
  const [port = 0] = await server.ready();
  const ask = async (): Promise<{ args: string[]; heapLimit: number }> => {
    const client = await openClient(t, port);
    const said = JSON.parse(await client.ask("?"));
    client.socket.destroy();
    return said;
  };
  const first = await ask();
  assert.deepEqual(first.args, ["--max-semi-space-size=4", "--max-old-space-size=200", "--max-lazy"]);
  assert.ok(first.heapLimit >= 200 * MiB && first.heapLimit < 260 * MiB, `${first.heapLimit} bytes`);

  write("{ semiSpace: 8MiB, oldSpace: 300MiB }");
  const reloaded = await server.command("reload", "--wait");
  assert.match(reloaded.stdout, /1 worker replaced/);
  const second = await ask();
  assert.deepEqual(second.args, ["--max-semi-space-size=8", "--max-old-space-size=300"]);
  assert.ok(second.heapLimit >= 300 * MiB && second.heapLimit < 400 * MiB, `${second.heapLimit} bytes`);

  const upgraded = await server.command("upgrade", "--wait");
  assert.equal(upgraded.code, 0, upgraded.stderr);
  assert.deepEqual((await ask()).args, second.args);

  // A flag that nobody knows is refused with its place, and nothing changes.
  write("{ flags: [--no-such-flag] }");
  const refused = await server.command("reload", "--wait");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /c\.yaml:4: v8\.flags: "--no-such-flag" is not a flag of V8/);
  assert.deepEqual((await ask()).args, second.args);
});
