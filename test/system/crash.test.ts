/** Processes die: workers are replaced on the same sockets, and none outlives its primary. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { descriptorsOf, listeningInodes, nothingListens } from "../support/processes.js";
import { startServer } from "../support/server.js";
import { until } from "../support/until.js";

const PORT_0 = ["--listen", "127.0.0.1:0", "--workers", "2"];

test("a killed worker is replaced on its own socket, and no client in the queue is lost", async (t) => {
  const server = startServer(t, PORT_0);
  const [port = 0] = await server.ready();
  const before = await server.status();
  const sockets = listeningInodes(port).sort();
  const [victim] = before.workers;
  assert.ok(victim);
  process.kill(victim.pid, "SIGSTOP");
  // With one worker stopped about half of these wait in its queue when it dies.
  const clients = await Promise.all(Array.from({ length: 32 }, () => openClient(t, port)));
  for (const client of clients) client.send("still here");
  process.kill(victim.pid, "SIGKILL");
  const noticed = await server.logged("its death", ({ worker, level }) => worker === 0 && level === 50);
  assert.match(noticed.msg, /killed by SIGKILL/);
  for (const client of clients) assert.equal(await client.line(), "still here");
  assert.deepEqual(listeningInodes(port).sort(), sockets);
  // The other worker may have served them all before the new one is there.
  const after = await until("the new worker accepts", async () => {
    const status = await server.status();
    const accepting = status.workers.filter(({ state }) => state === "accepting");
    return accepting.length === 2 ? status : undefined;
  });
  assert.deepEqual(
    after.workers.map(({ restarts }) => restarts),
    [1, 0],
  );
  assert.notEqual(after.workers[0]?.pid, victim.pid);
});

test("replacing leaks no descriptor, and totals never go back", async (t) => {
  const server = startServer(t, PORT_0);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  assert.equal(await client.ask("one"), "one");
  const census = async (): Promise<number> => {
    await server.status();
    return descriptorsOf(server.pid).filter((link) => link.startsWith("socket:") || link.includes("memfd")).length;
  };
  const descriptors = await census();
  for (let round = 1; round <= 3; round++) {
    for (const { pid } of (await server.status()).workers) process.kill(pid, "SIGKILL");
    const back = async (): Promise<boolean> => {
      const { workers, totals } = await server.status();
      return totals.restarts === 2 * round && workers.every(({ state }) => state === "accepting");
    };
    await until("both workers are back", back);
  }
  await client.closed;
  await until("as many descriptors as before", async () => (await census()) === descriptors);
  const { totals } = await server.status();
  assert.deepEqual([totals.accepted, totals.requests, totals.open], [1, 1, 0]);
});

test("a service that crashes its worker is named in the log, and the port stays served", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage(text) {
       if (text === "crash") setImmediate(() => { throw new Error("not caught"); });
       return text;
     } });`,
  );
  const server = startServer(t, [service, ...PORT_0]);
  const [port = 0] = await server.ready();
  (await openClient(t, port)).send("crash");
  const fatal = await server.logged("the crash", ({ level }) => level === 60);
  assert.match((fatal.err as { stack: string }).stack, /not caught[\s\S]*service\.mjs/);
  await server.logged("its replacement", ({ msg }) => msg.endsWith("was replaced"));
  assert.equal(await (await openClient(t, port)).ask("again"), "again");
});

test("a worker that dies at start over and over costs a pause each time, not the CPU", async (t) => {
  const folder = makeFolder(t);
  const body = "export default defineService({ codec: line(), onMessage: (text) => text });";
  const server = startServer(t, [writeService(folder, body), ...PORT_0]);
  await server.ready();
  writeService(folder, 'throw new Error("bad release");');
  const [victim] = (await server.status()).workers;
  process.kill(victim?.pid ?? 0, "SIGKILL");
  const failed = (): (typeof server.lines)[number][] =>
    server.lines.filter(({ reason }) => /bad release/.test(`${reason}`));
  await until("three attempts", () => failed().length >= 3);
  const times = failed().map(({ time }) => Number(time));
  for (const [index, time] of times.slice(1).entries()) {
    // 100 ms, doubled each time, less a fifth for jitter.
    assert.ok(time - (times[index] ?? 0) >= 80 * 2 ** index, `attempts ${time - (times[index] ?? 0)} ms apart`);
  }
  // The old release goes on serving, and a good one is taken up.
  assert.equal((await server.status()).state, "running");
  writeService(folder, body);
  await server.logged("a replacement", ({ msg }) => msg === "worker 0 was replaced");
});

test("workers do not outlive a killed primary, and answer what is in flight", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), async onMessage(text, { log }) {
       log.info("asked");
       await new Promise((resolve) => setTimeout(resolve, 300));
       return text;
     } });`,
  );
  const server = startServer(t, [service, ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("last words");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked");
  server.signal("SIGKILL");
  assert.equal(await client.line(), "last words");
  await server.gone();
  await nothingListens(port);
});

test("a control socket left behind by a killed server does not stop the next one", async (t) => {
  const folder = makeFolder(t);
  const env = { RUNTIME_DIRECTORY: folder };
  const first = startServer(t, PORT_0, { env });
  await first.ready();
  first.signal("SIGKILL");
  await first.gone();
  const second = startServer(t, PORT_0, { env });
  await second.ready();
  second.signal("SIGTERM");
  assert.equal((await second.exit()).code, 0);
});

test("a worker whose event loop stands still does not keep the port of a killed primary", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage(text, { connection }) {
       connection.send("stuck");
       setImmediate(() => { for (;;); });
     } });`,
  );
  const server = startServer(t, [service, "--listen", "127.0.0.1:0", "--workers", "1"]);
  const [port = 0] = await server.ready();
  assert.equal(await (await openClient(t, port)).ask("go"), "stuck");
  server.signal("SIGKILL");
  await server.gone();
  await nothingListens(port);
});

test("a crash in the midst of a round: other connections get nothing that is not theirs", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage(text) {
       if (text === "crash") process.emit("uncaughtException", new Error("a bug"));
       return text;
     } });`,
  );
  const server = startServer(t, [service, "--listen", "127.0.0.1:0", "--workers", "1"]);
  const [port = 0] = await server.ready();
  const clients = await Promise.all(Array.from({ length: 20 }, () => openClient(t, port)));
  for (const [index, client] of clients.entries()) client.socket.write(`half of ${index}`);
  (await openClient(t, port)).send("crash");
  for (const [index, client] of clients.entries()) client.socket.write(` and the rest ${index}\n`);
  for (const [index, client] of clients.entries()) {
    const answer = await client.line().catch((error: Error) => error.message);
    assert.ok(answer === `half of ${index} and the rest ${index}` || /^closed|ECONNRESET|EPIPE/.test(answer), answer);
  }
  await server.logged("its replacement", ({ msg }) => msg.endsWith("was replaced"));
});
