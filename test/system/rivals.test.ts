/** A second server, or anything else, on the same address or control socket is refused before it starts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";

async function refused(rival: TestServer): Promise<string> {
  assert.deepEqual(await rival.exit(), { code: 1, signal: null });
  await rival.gone();
  assert.deepEqual(rival.lines, []);
  const stderr = await rival.stderr;
  assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  return stderr;
}

for (const host of ["127.0.0.1", "0.0.0.0", "[::]"]) {
  test(`a second headrace on ${host} is told who has the port of 127.0.0.1`, async (t) => {
    const server = startServer(t, ["--listen", "127.0.0.1:0"]);
    const [port = 0] = await server.ready();
    const rival = startServer(t, ["--listen", `${host}:${port}`]);
    assert.match(await refused(rival), new RegExp(`${port} is in use by process ${server.pid} \\(headrace primary\\)`));
    assert.equal(await (await openClient(t, port)).ask("mine"), "mine");
  });
}

test("one of two listeners in use refuses both", async (t) => {
  const server = startServer(t, ["--listen", "127.0.0.1:0"]);
  const [port = 0] = await server.ready();
  const rival = startServer(t, ["--listen", "127.0.0.1:0", "--listen", `127.0.0.1:${port}`]);
  assert.match(await refused(rival), new RegExp(`"echo-line-2".* in use by process ${server.pid}`));
});

test("another program on the address is named", async (t) => {
  const other = createServer().listen(0, "127.0.0.1");
  t.after(() => other.close());
  await once(other, "listening");
  const { port } = other.address() as AddressInfo;
  const rival = startServer(t, ["--listen", `0.0.0.0:${port}`]);
  assert.match(await refused(rival), new RegExp(`in use by process ${process.pid} \\(`));
});

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("an address that is taken after it was asked for is refused by the first worker's bind", async (t) => {
  const port = await freePort();
  const folder = makeFolder(t);
  const service = writeService(
    folder,
    `import { existsSync } from "node:fs";
     export default defineService({ codec: line(), onMessage: (text) => text, async env({ log }) {
       log.info("before the bind");
       while (!existsSync(${JSON.stringify(join(folder, "gate"))})) await new Promise(setImmediate);
     } });`,
  );
  const rival = startServer(t, [service, "--listen", `127.0.0.1:${port}`]);
  await rival.logged("it has asked", ({ msg }) => msg === "before the bind");
  const other = createServer().listen(port, "127.0.0.1");
  t.after(() => other.close());
  await once(other, "listening");
  writeFileSync(join(folder, "gate"), "");
  assert.deepEqual(await rival.exit(), { code: 1, signal: null });
  assert.match(await rival.stderr, new RegExp(`127\\.0\\.0\\.1:${port} is in use by process ${process.pid} `));
});

test("of two that start at the same moment one serves and the other is refused", async (t) => {
  for (let round = 0; round < 3; round++) {
    const port = await freePort();
    const servers = [1, 2].map(() => startServer(t, ["--listen", `127.0.0.1:${port}`]));
    const outcomes = await Promise.all(
      servers.map((server) =>
        server.ready().then(
          () => "serves",
          async () => (await server.exit()).code,
        ),
      ),
    );
    assert.deepEqual(outcomes.map(String).sort(), ["1", "serves"]);
    const winner = servers[outcomes.indexOf("serves")];
    winner?.signal("SIGTERM");
    assert.equal((await winner?.exit())?.code, 0);
  }
});

test("a second server on the same control socket is told whose it is", async (t) => {
  const server = startServer(t, ["--listen", "127.0.0.1:0"]);
  const [port = 0] = await server.ready();
  const rival = startServer(t, ["--listen", "127.0.0.1:0", "--control", server.control]);
  const message = await refused(rival);
  assert.match(message, new RegExp(`process ${server.pid}, already uses ${server.control}`));
  assert.match(message, /--control/);
  assert.equal((await server.status()).pid, server.pid);
  const beside = startServer(t, ["--listen", "127.0.0.1:0", "--control", join(server.folder, "second.sock")]);
  await beside.ready();
  assert.equal(await (await openClient(t, port)).ask("both run"), "both run");
});
