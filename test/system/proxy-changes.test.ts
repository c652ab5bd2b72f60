/** A running server behind a proxy changes: nobody is lost who is still saying whom he speaks for, and `trust` is live. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { LineClient, openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { attemptPeer } from "../support/peer.js";
import { ENDS, v1, v2 } from "../support/proxy-headers.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const CLIENTS = 60;
/** A header comes so long after its connection, at most: about every worker that leaves has some that are unfinished. */
const HEADER_MS = 300;

function configure(folder: string, service: string, trust: string): void {
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 2
listeners: [{ name: it, address: "127.0.0.1:0", service: ${service}, proxyProtocol: { trust: [${trust}] } }]
timeouts: { proxyHeader: 10s, prove: 1s }
`,
  );
}

interface Proxied {
  readonly server: TestServer;
  readonly folder: string;
  readonly service: string;
  readonly port: number;
}

async function start(t: TestContext): Promise<Proxied> {
  const folder = makeFolder(t);
  const service = writeService(
    folder,
    `export default defineService({
      codec: line(),
      onMessage: (text, { connection }) => connection.remote.host + " " + connection.proxy.version + " " + text,
    });`,
  );
  configure(folder, service, "127.0.0.1");
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, folder, service, port };
}

/** Connects, says after a while who it is, in two pieces, asks for a while, and goes; again and again until told. */
async function comeAndGo(port: number, number: number, isOver: () => boolean, t: TestContext): Promise<number> {
  const source = `192.0.2.${number}`;
  const header = (number % 2 === 0 ? v1 : v2)({ ...ENDS, source });
  let asked = 0;
  for (let round = 0; !isOver(); round++) {
    const client = await openClient(t, port);
    await pause(Math.random() * HEADER_MS);
    client.socket.write(header.subarray(0, 10));
    await pause(Math.random() * HEADER_MS);
    client.socket.write(header.subarray(10));
    for (let count = 0; count < 5; count++, asked++) {
      assert.equal(await client.ask(`${round} ${count}`), `${source} ${1 + (number % 2)} ${round} ${count}`);
      await pause(50);
    }
    client.socket.end();
    assert.equal(await client.closed, undefined);
  }
  return asked;
}

test("reload, drain, scale and upgrade under clients that come and go through a proxy: nobody is refused, reset or another", async (t) => {
  const { server, port } = await start(t);
  let over = false;
  const clients = Array.from({ length: CLIENTS }, (_, number) => comeAndGo(port, number + 1, () => over, t));
  let failure: unknown;
  for (const client of clients) {
    client.catch((error: unknown) => {
      failure ??= error;
      over = true;
    });
  }
  await until("all come and go", async () => (await server.status()).totals.requests > 10 * CLIENTS);
  let waited = 0;
  const watching = (async () => {
    for (; !over; await pause(20)) waited = Math.max(waited, (await server.status()).listeners[0]?.prefaces ?? 0);
  })();
  for (const change of [
    ["reload", "--replace", "--wait"],
    ["drain", "0", "--wait"],
    ["scale", "3", "--wait"],
    ["scale", "1", "--wait"],
    ["upgrade", "--wait"],
  ]) {
    const { code, stderr } = await server.command(...change);
    assert.equal(code, 0, `${change.join(" ")}: ${stderr}`);
    if (failure !== undefined) throw failure;
  }
  over = true;
  const asked = (await Promise.all(clients)).reduce((sum, count) => sum + count, 0);
  await watching;
  t.diagnostic(`${asked} requests, up to ${waited} connections at a time whose header was not there yet`);
  assert.ok(waited > 5, `${waited}`);
  const { closes } = await server.status();
  for (const reason of ["drain", "killed", "proxy-invalid", "proxy-header-timeout", "io-error"] as const) {
    assert.equal(closes[reason], 0, reason);
  }
});

test("a reload applies another `trust` to those who connect from then on, by the workers that are there", async (t) => {
  const { server, folder, service, port } = await start(t);
  const old = await openClient(t, port);
  old.socket.write(v1());
  assert.equal(await old.ask("before"), `${ENDS.source} 1 before`);
  const workers = (await server.status()).workers.map(({ pid }) => pid);
  configure(folder, service, "127.0.0.2");
  const { code, stdout } = await server.command("reload", "--wait");
  assert.equal(code, 0);
  assert.match(stdout, /1 option changed in place/);
  const refused = await attemptPeer(t, port);
  await until("a reset", () => refused.closed);
  const trusted = await attemptPeer(t, port, "127.0.0.2");
  const client = new LineClient(trusted.socket);
  trusted.socket.write(v1());
  assert.equal(await client.ask("after"), `${ENDS.source} 1 after`);
  assert.equal(await old.ask("still here"), `${ENDS.source} 1 still here`);
  assert.deepEqual(
    (await server.status()).workers.map(({ pid }) => pid),
    workers,
  );
  old.socket.end();
  await once(old.socket, "close");
});
