/** UDP as a server: nothing is lost when workers are replaced, die or hang, and what floods it holds nobody else up. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { DatagramStatus } from "#src/control/status.js";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";
import { nothingLost, type Steady, steadyLoad, UdpClient } from "../support/udp.js";
import { until } from "../support/until.js";

/** Moderate: far below what one worker can do, and enough that some are always on their way. */
const FLOWS = 32;
const PER_SECOND = 3_000;

interface Udp {
  readonly server: TestServer;
  readonly port: number;
  readonly folder: string;
}

/** A configuration that a test may write anew. */
function configure(folder: string, config: object): string {
  const path = join(folder, "headrace.yaml");
  const listeners = [{ name: "feed", address: "udp://127.0.0.1:0", service: "echo-udp" }];
  writeFileSync(path, JSON.stringify({ workers: 2, listeners, timeouts: { prove: "1s" }, ...config }));
  return path;
}

async function startUdp(t: TestContext, config: object = {}): Promise<Udp> {
  const folder = makeFolder(t);
  const server = startServer(t, ["--config", configure(folder, config)]);
  const [port = 0] = await server.ready();
  return { server, port, folder };
}

async function command(server: TestServer, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await server.command(...args);
  assert.equal(code, 0, `${args.join(" ")}: ${stdout}${stderr}`);
}

async function datagramsOf(server: TestServer): Promise<DatagramStatus> {
  const { listeners } = await server.status();
  return listeners.find(({ datagrams }) => datagrams)?.datagrams ?? assert.fail();
}

async function moreSent(load: Steady, count = 600): Promise<void> {
  const least = load.sent + count;
  await until("more datagrams", () => load.sent >= least);
}

describe("under load, and not a datagram is lost", () => {
  test("reload with every worker replaced, ten times", async (t) => {
    const { server, port } = await startUdp(t);
    const load = await steadyLoad(t, port, FLOWS, PER_SECOND);
    for (let round = 0; round < 10; round++) {
      await moreSent(load);
      await command(server, "reload", "--replace", "--wait");
    }
    await moreSent(load);
    await nothingLost(load, 6_000);
    assert.equal((await datagramsOf(server)).overflow, 0);
  });

  test("upgrade, three times", async (t) => {
    const { server, port } = await startUdp(t);
    const load = await steadyLoad(t, port, FLOWS, PER_SECOND);
    for (let round = 2; round <= 4; round++) {
      const before = await server.status();
      await moreSent(load);
      await command(server, "upgrade", "--wait");
      assert.equal((await server.status()).generation, round);
      await until("the old generation has gone", () => !server.processes.includes(before.pid));
    }
    await moreSent(load);
    await nothingLost(load, 6_000);
  });

  test("1 → 4 → 1 workers, three times", async (t) => {
    const { server, port } = await startUdp(t, { workers: 1 });
    const load = await steadyLoad(t, port, FLOWS, PER_SECOND);
    for (let round = 0; round < 3; round++) {
      for (const workers of ["4", "2", "1"]) {
        await moreSent(load);
        await command(server, "scale", workers, "--wait");
      }
    }
    await moreSent(load);
    await nothingLost(load, 6_000);
  });

  test("a worker that hangs, and goes on: a sibling answers meanwhile", async (t) => {
    const { server, port } = await startUdp(t);
    const load = await steadyLoad(t, port, FLOWS, PER_SECOND);
    await moreSent(load);
    const [victim] = (await server.status()).workers;
    process.kill(victim?.pid ?? 0, "SIGSTOP");
    await moreSent(load, 3_000);
    process.kill(victim?.pid ?? 0, "SIGCONT");
    await moreSent(load);
    const { longestMs } = await load.stop();
    // Its owner's clock has to be 250 ms old first.
    assert.ok(longestMs < 800, `an answer took ${longestMs} ms`);
    await nothingLost(load, 4_000);
  });
});

test("what waits in a killed worker's socket is answered: by its sibling, and where there is none, its successor", async (t) => {
  for (const workers of [2, 1]) {
    const { server, port } = await startUdp(t, { workers });
    const [victim] = (await server.status()).workers;
    process.kill(victim?.pid ?? 0, "SIGSTOP");
    const clients = await Promise.all(Array.from({ length: 16 }, () => UdpClient.open(t, port)));
    for (let nth = 0; nth < 20; nth++) await Promise.all(clients.map((client) => client.send(`${nth}`)));
    process.kill(victim?.pid ?? 0, "SIGKILL");
    const expected = Array.from({ length: 20 }, (_, nth) => `${nth}`).sort();
    await until("every answer", () => clients.every(({ got }) => got.length === 20));
    for (const { texts } of clients) assert.deepEqual(texts.sort(), expected);
    await until("it is replaced", async () => (await server.status()).totals.restarts === 1);
    assert.equal((await clients[0]?.ask("again"))?.bytes.toString(), "again");
  }
});

test("the kernel spreads sources over the workers, and each stays with its own", async (t) => {
  const { server, port } = await startUdp(t);
  const clients = await Promise.all(Array.from({ length: 64 }, () => UdpClient.open(t, port)));
  const perWorker = async (): Promise<number[]> => (await server.status()).workers.map(({ requests }) => requests);
  for (const client of clients) await client.ask("x");
  const first = await perWorker();
  assert.ok(
    first.every((count) => count > 12),
    `${first}`,
  );
  for (const client of clients) await client.ask("y");
  assert.deepEqual(
    await perWorker(),
    first.map((count) => 2 * count),
  );
});

describe("who may have the address", () => {
  for (const host of ["127.0.0.1", "0.0.0.0", "[::]"]) {
    test(`a second headrace on ${host} is told who has it`, async (t) => {
      const { server, port } = await startUdp(t);
      const rival = startServer(t, ["echo-udp", "--listen", `udp://${host}:${port}`]);
      assert.deepEqual(await rival.exit(), { code: 1, signal: null });
      assert.match(await rival.stderr, new RegExp(`${port} is in use by process ${server.pid} \\(headrace primary\\)`));
      assert.equal((await (await UdpClient.open(t, port)).ask("mine")).bytes.toString(), "mine");
    });
  }

  test("TCP and UDP share a port, and listeners come and go", async (t) => {
    const { server, port, folder } = await startUdp(t);
    const first = await UdpClient.open(t, port);
    assert.equal((await first.ask("before")).bytes.toString(), "before");
    const lines = { name: "lines", address: `127.0.0.1:${port}`, service: "echo-line" };
    const second = { name: "second", address: "udp://127.0.0.1:0", service: "echo-udp" };
    const kept = { name: "feed", address: "udp://127.0.0.1:0", service: "echo-udp" };
    configure(folder, { listeners: [kept, lines, second] });
    await command(server, "reload", "--wait");
    assert.equal(await (await openClient(t, port)).ask("a line"), "a line");
    const [, , added] = (await server.status()).listeners;
    const addedPort = Number(added?.address.split(":").at(-1));
    assert.match(added?.address ?? "", /^udp:\/\/127\.0\.0\.1:\d+$/);
    const client = await UdpClient.open(t, addedPort);
    assert.equal((await client.ask("added")).bytes.toString(), "added");
    configure(folder, { listeners: [kept] });
    await command(server, "reload", "--wait");
    assert.equal((await first.ask("after")).bytes.toString(), "after");
    const freed = startServer(t, ["echo-udp", "--listen", `udp://127.0.0.1:${addedPort}`]);
    await freed.ready();
  });

  test("a service for connections on udp:// and the reverse: refused, naming both", async (t) => {
    const folder = makeFolder(t);
    const udp = writeService(folder, "export default defineUdpService({ onDatagram: (bytes) => bytes });", "udp.mjs");
    const tcp = writeService(
      folder,
      "export default defineService({ codec: line(), onMessage: (x) => x });",
      "tcp.mjs",
    );
    for (const [service, listen, says] of [
      [udp, "127.0.0.1:0", /udp\.mjs: is made by defineUdpService and serves datagrams: udp:\/\/127\.0\.0\.1:0/],
      [tcp, "udp://127.0.0.1:0", /tcp\.mjs: serves connections; udp:\/\/127\.0\.0\.1:0 is for/],
      ["echo-udp", "127.0.0.1:0", /--listen: echo-udp serves datagrams: udp:\/\/127\.0\.0\.1:0/],
      ["echo-line", "udp://127.0.0.1:0", /echo-line serves connections; allowed: echo-udp, or a module/],
    ] as const) {
      const server = startServer(t, [service, "--listen", listen]);
      assert.equal((await server.exit()).code, 2);
      assert.match(await server.stderr, says);
    }
  });
});

test("limits change in place: the size of datagrams, the rate, the lists; status counts what they dropped", async (t) => {
  const { server, port, folder } = await startUdp(t, { workers: 1 });
  const client = await UdpClient.open(t, port);
  assert.equal((await client.ask("x".repeat(1_400))).bytes.length, 1_400);
  await client.send("x".repeat(1_401));
  await until("it is counted", async () => (await datagramsOf(server)).truncated === 1);
  const [{ pid } = { pid: 0 }] = (await server.status()).workers;
  configure(folder, { workers: 1, limits: { datagram: 2_000, datagramRate: 1, datagramBurst: 5 } });
  await command(server, "reload", "--wait");
  assert.equal((await client.ask("x".repeat(2_000))).bytes.length, 2_000);
  for (let nth = 0; nth < 10; nth++) await client.send("x");
  await until("the rate holds it", async () => (await datagramsOf(server)).limited >= 5);
  configure(folder, { workers: 1, admission: { deny: ["127.0.0.1"] } });
  await command(server, "reload", "--wait");
  await client.send("x");
  await until("it is denied", async () => (await datagramsOf(server)).denied === 1);
  assert.equal((await server.status()).workers[0]?.pid, pid, "all of it in place");
  const shown = await server.command("status");
  assert.match(shown.stdout, /datagrams of feed: \d+ received, \d+ sent; truncated 1, denied 1, limited \d+/);
});

test("a flood of datagrams holds up neither the TCP clients of the same workers nor a source that keeps to the rate", async (t) => {
  const folder = makeFolder(t);
  const listeners = [
    {
      name: "feed",
      address: "udp://0.0.0.0:0",
      service: "echo-udp",
      limits: { datagramRate: 2_000, datagramBurst: 100 },
    },
    { name: "lines", address: "127.0.0.1:0", service: "echo-line" },
  ];
  const server = startServer(t, ["--config", configure(folder, { workers: 1, listeners })]);
  const [udp = 0, tcp = 0] = await server.ready();
  const flood = await UdpClient.open(t, udp, "127.0.0.1", "127.0.0.66");
  const bytes = Buffer.alloc(200, "f");
  let flooding = true;
  const flooded = (async () => {
    while (flooding) {
      await Promise.all(Array.from({ length: 64 }, () => flood.send(bytes)));
      // Sends to an IP literal call back without a turn of the event loop.
      await new Promise(setImmediate);
    }
  })();
  const [lines, honest] = [await openClient(t, tcp), await UdpClient.open(t, udp)];
  let slowest = 0;
  for (let nth = 0; nth < 200; nth++) {
    const started = performance.now();
    assert.equal(await lines.ask(`${nth}`), `${nth}`);
    assert.equal((await honest.ask(`${nth}`)).bytes.toString(), `${nth}`);
    slowest = Math.max(slowest, performance.now() - started);
  }
  flooding = false;
  await flooded;
  const { limited, received } = await datagramsOf(server);
  t.diagnostic(`${limited} dropped by the rate, ${received} served, slowest answer ${slowest.toFixed(1)} ms`);
  assert.ok(limited > received, `${limited} of the flood were dropped, ${received} received`);
  assert.ok(slowest < 500, `${slowest} ms`);
});

test("stop answers what is queued and in flight, then frees the address", async (t) => {
  const folder = makeFolder(t);
  const service = writeService(
    folder,
    `export default defineUdpService({
       onDatagram: (bytes) => new Promise((resolve) => setTimeout(() => resolve(bytes), 300)),
     });`,
  );
  const server = startServer(t, [service, "--listen", "udp://127.0.0.1:0", "--workers", "2"]);
  const [port = 0] = await server.ready();
  const clients = await Promise.all(Array.from({ length: 20 }, () => UdpClient.open(t, port)));
  await Promise.all(clients.map((client) => client.send("last")));
  server.signal("SIGTERM");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await until("every answer", () => clients.every(({ got }) => got.length === 1));
  await server.gone();
  await startServer(t, ["echo-udp", "--listen", `udp://127.0.0.1:${port}`]).ready();
});

/**
 * A service manager as far as sockets go: binds them, tells their port, waits for a word, and becomes the server. Node
 * cannot give a child a UDP socket of its own making.
 */
const LAUNCH = `
import os, socket, sys
kind, main, folder = sys.argv[1:4]
port, count = 0, 2 if kind == "stored" else 1
for slot in range(count):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    port = one.getsockname()[1]
    os.dup2(one.detach(), 20 + slot, True)
for slot in range(count):
    os.dup2(20 + slot, 3 + slot, True)
    os.close(20 + slot)
print(port, flush=True)
sys.stdin.readline()
stored = ":".join(f"slot-{slot}|udp|127.0.0.1|{port}|false" for slot in range(count))
env = dict(os.environ, RUNTIME_DIRECTORY=folder, LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count),
           LISTEN_FDNAMES=stored if kind == "stored" else "headrace.socket")
node = sys.argv[4]
os.execve(node, [node, main, "run", "echo-udp", "--listen", f"udp://127.0.0.1:{port}", "--workers", "2"], env)
`;

for (const kind of ["stored", "activated"]) {
  test(`started with sockets of systemd (${kind}): what came before it was there is answered`, async (t) => {
    const main = fileURLToPath(import.meta.resolve("#src/cli/main.js"));
    const args = ["-c", LAUNCH, kind, main, makeFolder(t), process.execPath];
    const child = spawn("python3", args, { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    const lines: string[] = [];
    createInterface(child.stdout).on("line", (text) => lines.push(text));
    const port = Number(await until("the port", () => lines[0]));
    const clients = await Promise.all(Array.from({ length: 16 }, () => UdpClient.open(t, port)));
    for (const client of clients) await client.send("early");
    child.stdin.end("go\n");
    await until("every answer", () => clients.every(({ got }) => got.length === 1));
    for (const client of clients) assert.equal((await client.ask("again")).port, port);
    child.kill("SIGTERM");
    const [code] = await once(child, "exit");
    assert.equal(code, 0);
  });
}
