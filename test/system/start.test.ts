/** A server starts: what it announces, what listens, and that everything is claimed before anybody is served. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { descriptorsOf, listeningInodes } from "../support/processes.js";
import { startServer } from "../support/server.js";

const PORT_0 = ["--listen", "127.0.0.1:0"];

test("the first line says what listens where, and a line sent there comes back", async (t) => {
  const server = startServer(t, [...PORT_0, "--workers", "2"]);
  const [port = 0] = await server.ready();
  const [first] = server.lines;
  assert.equal(first?.msg, "ready");
  assert.equal(first?.level, 30);
  assert.equal(first?.workers, 2);
  assert.deepEqual(first?.listeners, [{ name: "echo-line", address: `127.0.0.1:${port}`, service: "echo-line" }]);
  const client = await openClient(t, port);
  assert.equal(await client.ask("hello"), "hello");
});

test("every worker has a socket of its own on the one port, also where the kernel chose it", async (t) => {
  const server = startServer(t, [...PORT_0, "--listen", "[::1]:0", "--workers", "3"]);
  const ports = await server.ready();
  assert.equal(new Set(ports).size, 2);
  const { workers } = await server.status();
  for (const port of ports) {
    const inodes = listeningInodes(port);
    assert.equal(inodes.length, 3);
    // Each holds all of them, so that it can serve a sibling's.
    const holders = workers.map(({ pid }) => descriptorsOf(pid).filter((link) => inodes.includes(link.slice(8, -1))));
    for (const held of holders) assert.equal(new Set(held).size, 3);
    // Lines of the kernel's own tool, as an operator would count them.
    const listening = execFileSync("ss", ["-Hltn", `sport = :${port}`], { encoding: "utf8" })
      .trim()
      .split("\n");
    assert.equal(listening.length, 3);
  }
});

test("connections reach every worker", async (t) => {
  const server = startServer(t, [...PORT_0, "--workers", "2"]);
  const [port = 0] = await server.ready();
  const clients = await Promise.all(Array.from({ length: 64 }, () => openClient(t, port)));
  await Promise.all(clients.map((client) => client.ask("x")));
  const { workers, totals, listeners } = await server.status();
  assert.equal(totals.open, 64);
  assert.equal(totals.requests, 64);
  assert.equal(listeners[0]?.open, 64);
  for (const worker of workers) assert.ok(worker.open > 0, `worker ${worker.index} has none of 64 connections`);
});

test("nobody is served before every worker can serve", async (t) => {
  const folder = makeFolder(t);
  // Only worker 0 is ready at once: the others wait for a file.
  const gate = join(folder, "gate");
  const service = writeService(
    folder,
    `import { existsSync } from "node:fs";
     const slow = (worker) => new Promise((resolve) => {
       const timer = setInterval(() => {
         if (worker.index === 0 || existsSync(${JSON.stringify(gate)})) { clearInterval(timer); resolve(); }
       }, 5);
     });
     export default defineService({
       codec: line(),
       async env(worker) { worker.log.info("opening"); await slow(worker); worker.log.info("open"); },
       onMessage: (text) => text,
     });`,
  );
  const server = startServer(t, [service, ...PORT_0, "--workers", "2"]);
  await server.logged("worker 0 is open", ({ msg, worker }) => msg === "open" && worker === 0);
  await server.logged("worker 1 is not", ({ msg, worker }) => msg === "opening" && worker === 1);
  const { state, workers } = await server.status();
  assert.equal(state, "starting");
  for (const { pid } of workers) {
    const sockets = descriptorsOf(pid).filter((link) => link.startsWith("socket:"));
    const listening = execFileSync("ss", ["-Hltnp"], { encoding: "utf8" });
    assert.ok(!listening.includes(`pid=${pid},`), `worker ${pid} listens already: ${sockets}`);
  }
  assert.ok(!server.lines.some(({ msg }) => msg === "ready"));
  writeFileSync(gate, "");
  const [port = 0] = await server.ready();
  assert.equal(await (await openClient(t, port)).ask("now"), "now");
});

test("the control socket is for its owner only, and so is its folder", async (t) => {
  const server = startServer(t, PORT_0);
  await server.ready();
  assert.equal(statSync(server.control).mode & 0o777, 0o600);
  assert.equal(statSync(server.folder).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(server.folder).sort(), ["control.sock", "control.sock.lock"]);
});
