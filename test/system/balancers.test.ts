/**
 * Real balancers in front, with the configurations of deploy/: they end TLS and say who their clients are. The service,
 * the log and the limits go by that, also when the worker has been replaced; health checks are nobody's connections.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect } from "node:tls";
import { type Balancer, startHaproxy, startNginx } from "../support/balancers.js";
import { LineClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

/** Of clients; the balancers come from 127.0.0.1. */
const [ALICE, BOB] = ["127.0.0.2", "127.0.0.3"];
const UNIQUE_ID = 5;
const AUTHORITY = 2;
const CHECKSUM = 3;

const SERVICE = `export default defineService({
  codec: line(),
  timeouts: { firstByte: "off" },
  onOpen: ({ log, remote, proxy }) => log.info({ remote, local: proxy?.local }, "opened"),
  onMessage(text, { connection: { remote, peer, proxy } }) {
    const tlvs = proxy.tlvs.map(({ type, value }) => [type, value.toString()]);
    return JSON.stringify({ text, remote, peer, version: proxy.version, destination: proxy.destination, tlvs });
  },
});`;

interface Answer {
  readonly text: string;
  readonly remote: { readonly host: string; readonly port: number };
  readonly peer: { readonly host: string };
  readonly version: number;
  readonly destination: { readonly host: string; readonly port: number };
  readonly tlvs: readonly (readonly [number, string])[];
}

async function startProxied(t: TestContext): Promise<{ server: TestServer; port: number }> {
  const folder = makeFolder(t);
  const path = writeService(folder, SERVICE);
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 2
listeners: [{ address: "127.0.0.1:0", service: ${path}, proxyProtocol: { trust: [127.0.0.1] } }]
limits: { connectionsPerAddress: 2 }
admission: { allow: [127.0.0.2, 127.0.0.3] }
log: { level: debug }
`,
  );
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, port };
}

/** A client of the balancer, from an address of its own. */
async function openFrom(t: TestContext, address: string, { port }: Balancer): Promise<LineClient> {
  const socket = connectPlain({ port, host: "127.0.0.1", localAddress: address });
  await once(socket, "connect");
  const secured = connect({ socket, servername: "example.org", rejectUnauthorized: false });
  t.after(() => socket.destroy());
  const client = new LineClient(secured);
  await once(secured, "secureConnect");
  return client;
}

async function ask(client: LineClient, text: string): Promise<Answer> {
  return JSON.parse(await client.ask(text));
}

const BALANCERS: readonly (readonly [string, number, (t: TestContext, port: number) => Promise<Balancer>])[] = [
  ["HAProxy, send-proxy-v2", 2, startHaproxy],
  [
    "HAProxy, send-proxy",
    1,
    (t, port) => startHaproxy(t, port, [["send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", "send-proxy"]]),
  ],
  ["nginx", 1, startNginx],
];

for (const [what, version, start] of BALANCERS) {
  test(`${what}: the client's address is right in the service, the log and the limit, also after a reload`, async (t) => {
    const { server, port } = await startProxied(t);
    const balancer = await start(t, port);
    const alices = [await openFrom(t, ALICE, balancer), await openFrom(t, ALICE, balancer)];
    const seen: Answer[] = [];
    for (const [index, client] of alices.entries()) {
      const answer = await ask(client, `${index}`);
      seen.push(answer);
      assert.equal(answer.remote.host, ALICE);
      assert.equal(answer.peer.host, "127.0.0.1");
      assert.equal(answer.version, version);
      assert.deepEqual(answer.destination, { host: "127.0.0.1", port: balancer.port });
    }
    assert.notEqual(seen[0]?.remote.port, seen[1]?.remote.port);
    if (version === 2) {
      const values = new Map(seen[0]?.tlvs);
      assert.deepEqual([...values.keys()].sort(), [AUTHORITY, CHECKSUM, UNIQUE_ID]);
      assert.equal(values.get(AUTHORITY), "example.org");
      assert.match(values.get(UNIQUE_ID) ?? "", /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    }

    const isFull = async (): Promise<void> => {
      const before = (await server.status()).rejections["per-address"];
      const third = await openFrom(t, ALICE, balancer);
      third.send("hello?");
      await third.closed;
      // A balancer may try again before it gives up.
      await until("it is counted", async () => (await server.status()).rejections["per-address"] > before);
    };
    await isFull();
    const bob = await openFrom(t, BOB, balancer);
    assert.equal((await ask(bob, "bob")).remote.host, BOB);

    // Every connection to a new worker, with whom it is.
    const before = (await server.status()).workers.map(({ pid }) => pid);
    const reload = await server.command("reload", "--replace", "--wait");
    assert.equal(reload.code, 0, reload.stderr);
    const { workers } = await server.status();
    assert.ok(workers.every(({ pid }) => !before.includes(pid)));
    assert.ok(workers.reduce((sum, { movedIn }) => sum + movedIn, 0) >= 3);
    for (const [index, client] of alices.entries()) {
      const answer = await ask(client, `${index}`);
      assert.deepEqual(answer, seen[index]);
    }
    await isFull();

    alices[0]?.socket.end();
    const closed = await server.logged("her end", ({ msg, remote }) => {
      return msg === "connection closed" && (remote as Answer["remote"] | undefined)?.port === seen[0]?.remote.port;
    });
    assert.deepEqual(closed.remote, seen[0]?.remote);
    await until("her place is free", async () => (await server.status()).totals.open <= 2);
    assert.equal((await ask(await openFrom(t, ALICE, balancer), "again")).remote.host, ALICE);
    const { closes } = await server.status();
    assert.deepEqual([closes["proxy-invalid"], closes["proxy-untrusted"], closes["proxy-header-timeout"]], [0, 0, 0]);
  });
}

for (const [what, , start] of BALANCERS.filter(([name]) => name.startsWith("HAProxy"))) {
  test(`${what}: its health checks are its own, and no list or limit of clients makes them fail`, async (t) => {
    const { server, port } = await startProxied(t);
    const balancer = await start(t, port);
    const isCheck = ({ msg, local }: { msg: string; local?: unknown }): boolean => msg === "opened" && local === true;
    const checks = (): number => server.lines.filter(isCheck).length;
    await until("ten checks", () => checks() > 10);
    const { rejections } = await server.status();
    assert.deepEqual([rejections.denied, rejections["per-address"]], [0, 0]);
    const { remote } = await server.logged("a check", isCheck);
    assert.equal((remote as Answer["remote"]).host, "127.0.0.1");
    assert.ok(!balancer.lines.some((line) => line.includes("is DOWN")), balancer.lines.join("\n"));
    const client = await openFrom(t, ALICE, balancer);
    assert.equal((await ask(client, "served")).remote.host, ALICE);
    // It is found when the server has gone, so that a check proves something.
    await server.command("stop", "--wait");
    await until("it is down", () => balancer.lines.some((line) => line.includes("is DOWN")));
  });
}
