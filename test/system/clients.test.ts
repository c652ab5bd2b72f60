/** Clients of real servers that are reloaded, killed and stopped under their calls: what the callers saw. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Client } from "#src/client/define.js";
import { lineClient, outcomeOf, rpcClientOf } from "../support/downstream.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const RPC = (
  more = "",
): string => `import { defineRpcService } from ${JSON.stringify(import.meta.resolve("#src/index.js"))};
export default defineRpcService({ onRequest: (payload) => payload, ${more} });`;

interface Started {
  readonly server: TestServer;
  readonly target: string;
}

async function start(t: TestContext, service: string, workers = 2): Promise<Started> {
  const path = service.includes("\n") ? writeService(makeFolder(t), service) : service;
  const server = startServer(t, [path, "--listen", "127.0.0.1:0", "--workers", String(workers)]);
  const [port] = await server.ready();
  return { server, target: `127.0.0.1:${port}` };
}

interface Seen {
  calls: number;
  wrong: number;
  /** Calls that failed, by code. */
  readonly failed: Record<string, number>;
  /** The longest call, ms. */
  longestMs: number;
}

interface Load {
  readonly seen: Seen;
  stop(): Promise<Seen>;
}

/** Callers that ask without a pause, and compare what they get. */
function load(
  t: TestContext,
  client: Client<string | Uint8Array, string | Buffer>,
  callers: number,
  options: object = {},
): Load {
  const seen: Seen = { calls: 0, wrong: 0, failed: {}, longestMs: 0 };
  let stopped = false;
  const call = async (caller: number): Promise<void> => {
    for (let number = 0; !stopped; number++) {
      const [text, begun] = [`${caller} ${number}`, performance.now()];
      try {
        if (String(await client.call(text, { timeoutMs: 5_000, ...options })) !== text) seen.wrong += 1;
      } catch (error) {
        const { code = "?" } = error as { code?: string };
        seen.failed[code] = (seen.failed[code] ?? 0) + 1;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      seen.calls += 1;
      seen.longestMs = Math.max(seen.longestMs, performance.now() - begun);
      // Two cores are all there is, and the servers need some of them.
      if (number % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  t.after(() => {
    stopped = true;
  });
  const done = Promise.all(Array.from({ length: callers }, (_, caller) => call(caller)));
  return {
    seen,
    async stop() {
      stopped = true;
      await done;
      return seen;
    },
  };
}

const RELOADS = 5;

for (const [what, service, options, rpc, callers] of [
  ["rpc; connections move", RPC(), {}, true, 20],
  ["rpc that does not move; the servers say goodbye", RPC("migrate: false"), {}, true, 20],
  ["lines; connections move", "echo-line", {}, false, 20],
  [
    "lines that do not move, which know no goodbye: with retries",
    "export default defineService({ codec: line(),\n onMessage: (text) => text, migrate: false });",
    { idempotent: true },
    false,
    // So many may be lost at once, and the budget has saved up no more than ten.
    8,
  ],
] as const) {
  test(`${RELOADS} reloads of the server under load, no call fails: ${what}`, async (t) => {
    const { server, target } = await start(t, service);
    const client = rpc ? rpcClientOf(t, { targets: [target] }) : lineClient(t, { targets: [target], retries: "10%" });
    const running = load(t, client, callers, options);
    for (let reload = 0; reload < RELOADS; reload++) {
      const from = running.seen.calls;
      const outcome = await server.command("reload", "--replace", "--wait");
      assert.equal(outcome.code, 0, outcome.stderr);
      await until("calls after it", () => running.seen.calls > from + 200);
    }
    const { failed, wrong, calls } = await running.stop();
    t.diagnostic(`${calls} calls; ${JSON.stringify(client.stats().counts.evicted)}`);
    assert.deepEqual({ failed, wrong }, { failed: {}, wrong: 0 });
    const { opened } = client.stats().counts;
    if (/; connections move/.test(what)) assert.ok(opened <= 20, `${opened} connections`);
  });
}

test("a worker is killed: its calls fail as lost, all others and all later ones are answered", async (t) => {
  // With no moment in which nothing is under way.
  const slow = RPC("onRequest: (payload) => new Promise((resolve) => setTimeout(resolve, 20, payload))");
  const { server, target } = await start(t, slow);
  const client = rpcClientOf(t, { targets: [target], limits: { inFlight: 2, connectionsPerTarget: 8 } });
  const running = load(t, client, 16);
  await until("connections to both", async () => (await server.status()).workers.every(({ open }) => open > 0));
  const [victim] = (await server.status()).workers;
  process.kill(victim?.pid ?? assert.fail(), "SIGKILL");
  await until("the loss", () => (running.seen.failed["connection-closed"] ?? 0) > 0);
  const lost = { ...running.seen.failed };
  const from = running.seen.calls;
  await until("a thousand calls more", () => running.seen.calls > from + 1_000);
  const { failed, wrong } = await running.stop();
  assert.deepEqual([Object.keys(failed), wrong], [["connection-closed"], 0]);
  // At most what was under way.
  assert.ok((failed["connection-closed"] ?? 0) <= 16, JSON.stringify([lost, failed]));
});

test("a worker is killed while it drains: what it had begun fails as lost, and is not begun once more", async (t) => {
  const begun = join(makeFolder(t), "begun");
  const service = `import { appendFileSync } from "node:fs";
import { defineRpcService } from ${JSON.stringify(import.meta.resolve("#src/index.js"))};
export default defineRpcService({
  migrate: false,
  farewell: "1m",
  onRequest(payload) {
    if (payload.toString() !== "hang") return payload;
    appendFileSync(${JSON.stringify(begun)}, "x");
    return new Promise(() => {});
  },
});`;
  const { server, target } = await start(t, service, 1);
  const client = rpcClientOf(t, { targets: [target] });
  const [victim] = (await server.status()).workers;
  const outcome = outcomeOf(client.call("hang"));
  const runs = (): number => (existsSync(begun) ? readFileSync(begun).length : 0);
  await until("it to be begun", () => runs() === 1);
  const reload = server.command("reload", "--replace", "--wait");
  await until("the goodbye", async () => {
    await client.call("x");
    return client.stats().counts.opened > 1;
  });
  process.kill(victim?.pid ?? assert.fail(), "SIGKILL");
  assert.equal(await outcome, "connection-closed");
  await client.call("y");
  assert.deepEqual([runs(), client.stats().counts.moved], [1, 0]);
  await reload;
});

test("a server that stands still: every caller hears of its deadline in time; it goes on, and so do they", async (t) => {
  const { server, target } = await start(t, RPC(), 1);
  const client = rpcClientOf(t, { targets: [target], timeouts: { backoff: "200ms" } });
  await client.call("warm");
  const [worker] = (await server.status()).workers;
  const pid = worker?.pid ?? assert.fail();
  process.kill(pid, "SIGSTOP");
  try {
    for (let i = 0; i < 5; i++) {
      const begun = performance.now();
      await assert.rejects(client.call("x", { timeoutMs: 100 }), { code: /deadline-exceeded|connect-failed/ });
      const ms = performance.now() - begun;
      assert.ok(ms < 150, `${ms} ms`);
    }
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await until("an answer", () => client.call("again", { timeoutMs: 500 }).catch(() => undefined));
  assert.equal(client.stats().counts.evicted.silent, 1);
});

/** Sockets in TIME_WAIT that have to do with a port, by ss: both ends of each. */
function timeWaits(port: string): string[] {
  const filter = ["-Htan", "state", "time-wait", `( sport = :${port} or dport = :${port} )`];
  return execFileSync("ss", filter, { encoding: "utf8" }).split("\n").filter(Boolean);
}

test("TIME_WAIT: none for thousands of calls through the pool, one for each connection without", async (t) => {
  const { target } = await start(t, "echo-line");
  const port = target.split(":")[1] ?? assert.fail();
  // Somebody else may have used the port for something else, a minute ago.
  const before = new Set(timeWaits(port));
  const added = (): number => timeWaits(port).filter((socket) => !before.has(socket)).length;
  const pooled = lineClient(t, { targets: [target] });
  await Promise.all(
    Array.from({ length: 10 }, async () => {
      for (let i = 0; i < 500; i++) await pooled.call("x");
    }),
  );
  assert.equal(added(), 0);
  assert.ok(pooled.stats().counts.opened <= 10);
  for (let i = 0; i < 50; i++) {
    const once = lineClient(t, { targets: [target] });
    await once.call("x");
    await once.close();
  }
  await until("fifty of them", () => added() === 50);
  // RST leaves none.
  for (let i = 0; i < 50; i++) {
    const once = lineClient(t, { targets: [target], close: "reset" });
    await once.call("x");
    await once.close();
  }
  assert.equal(added(), 50);
});

test("an idle connection is probed after 15 s, so that a peer that has vanished is found out", async (t) => {
  const { target } = await start(t, "echo-line");
  const client = lineClient(t, { targets: [target] });
  await client.call("x");
  const filter = ["-Htno", "state", "established", `( dport = :${target.split(":")[1]} )`];
  const [seconds] =
    /keepalive,(\d+)(?:\.\d+)?sec/.exec(execFileSync("ss", filter, { encoding: "utf8" }))?.slice(1) ?? [];
  assert.ok(Number(seconds) >= 10 && Number(seconds) <= 15, seconds);
});
