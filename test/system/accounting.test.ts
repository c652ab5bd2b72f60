/**
 * No connection is lost sight of: whatever is done to a server under clients that come and go, all that were accepted
 * or came from elsewhere are open, being opened, closed with a reason, or gone elsewhere.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { CLOSE_REASONS } from "#src/base/reasons.js";
import type { ServerStatus } from "#src/control/status.js";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { attemptPeer } from "../support/peer.js";
import { ENDS, v1 } from "../support/proxy-headers.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const COMERS = 20;
const STAYERS = 30;

/** Two listeners, one of them behind a proxy, and one for datagrams, which has no connections to count. */
async function start(t: TestContext): Promise<{ server: TestServer; plain: number; proxied: number }> {
  const folder = makeFolder(t);
  const service = writeService(
    folder,
    `export default defineService({
      codec: line(),
      onMessage(text, { connection }) {
        if (text === "leave") connection.close();
        if (text === "wait") return new Promise((resolve) => setTimeout(() => resolve(text), 20));
        return text;
      },
    });`,
  );
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 2
listeners:
  - { name: plain, address: "127.0.0.1:0", service: ${service} }
  - name: proxied
    address: "127.0.0.1:0"
    service: ${service}
    proxyProtocol: { trust: [127.0.0.1] }
    limits: { connectionsPerAddress: 3 }
  - { name: datagrams, address: "udp://127.0.0.1:0", service: echo-udp }
timeouts: { proxyHeader: 1s, prove: 1s }
`,
  );
  const server = startServer(t, [], { cwd: folder });
  const [plain = 0, proxied = 0] = await server.ready();
  return { server, plain, proxied };
}

/** Comes, asks, and goes in one of several ways, or is turned away. Whatever a change does to it is its own affair. */
async function comeAndGo(
  t: TestContext,
  { plain, proxied }: { plain: number; proxied: number },
  number: number,
  isOver: () => boolean,
): Promise<void> {
  for (let round = number; !isOver(); round++) {
    try {
      if (round % 3 === 0) {
        const peer = await attemptPeer(t, proxied);
        // Some come for an address that has its share; some say nonsense, nothing, or go in the midst.
        const header = v1({ ...ENDS, source: `192.0.2.${1 + (round % 4)}` });
        const said = [
          header,
          header.subarray(0, 12),
          Buffer.from("nonsense, and more of it, too long for a header\r\n"),
        ];
        peer.socket.write(said[Math.floor(round / 3) % said.length] ?? header);
        await pause(5 + (round % 20));
        peer.socket.destroy();
        continue;
      }
      const client = await openClient(t, plain);
      await client.ask("one");
      client.send(round % 2 === 0 ? "wait" : "leave");
      if (round % 4 === 0) client.socket.resetAndDestroy();
      else if (round % 4 === 2) client.socket.end();
      await client.closed;
    } catch {
      await pause(5);
    }
  }
}

/** Once nobody comes any more: at the first look, since nothing is between two stores then. */
async function balanced(server: TestServer, after: string, open: number): Promise<ServerStatus> {
  const isQuiet = ({ totals, listeners, draining }: ServerStatus): boolean =>
    totals.open === open && draining.length === 0 && listeners.every(({ prefaces }) => prefaces === 0);
  const status = await until(`quiet after ${after}`, async () => {
    const now = await server.status();
    return isQuiet(now) ? now : undefined;
  });
  assert.equal(status.unaccounted, 0, after);
  return status;
}

test("accepted + moved in - moved out - closed - open = 0, whatever is done to the server", async (t) => {
  const { server, plain, proxied } = await start(t);
  const stayers = await Promise.all(Array.from({ length: STAYERS }, () => openClient(t, plain)));
  for (const client of stayers) assert.equal(await client.ask("here"), "here");

  /** Does it while clients come and go. */
  const under = async (change: string, act: () => Promise<void>): Promise<void> => {
    let over = false;
    const comers = Array.from({ length: COMERS }, (_, number) => comeAndGo(t, { plain, proxied }, number, () => over));
    const { totals } = await server.status();
    await until("they come", async () => (await server.status()).totals.accepted > totals.accepted + COMERS);
    await act().finally(() => {
      over = true;
    });
    await Promise.all(comers);
    t.diagnostic(`${change}: ${(await server.status()).totals.accepted} accepted`);
  };
  const order = async (...words: string[]): Promise<void> => {
    const { code, stderr } = await server.command(...words, "--wait");
    assert.equal(code, 0, stderr);
  };

  for (const words of [
    ["reload", "--replace"],
    ["drain", "0"],
    ["scale", "3"],
    ["scale", "1"],
    ["scale", "2"],
  ]) {
    await under(words.join(" "), () => order(...words));
    const { closes } = await balanced(server, words.join(" "), STAYERS);
    // What a worker that ends in order has counted is enough: nothing had to be put down to its death.
    assert.equal(closes.killed, 0, words.join(" "));
  }
  const { closes, rejections } = await server.status();
  assert.ok(closes.rejected > 0, "some had no place once their proxy had named them");
  assert.equal(closes.rejected, rejections["per-address"]);
  for (const reason of ["proxy-invalid", "peer-reset", "peer-closed", "server-close"] as const) {
    assert.ok(closes[reason] > 0, reason);
  }

  await under("a worker is killed", async () => {
    const [victim] = (await server.status()).workers;
    assert.ok(victim);
    process.kill(victim.pid, "SIGKILL");
    await until("it is replaced", async () => (await server.status()).totals.restarts === 1);
  });
  const cut = stayers.filter(({ socket }) => socket.destroyed).length;
  const after = await balanced(server, "a worker was killed", STAYERS - cut);
  assert.ok(after.closes.killed >= cut, `${after.closes.killed} of ${cut}`);
  assert.equal(
    CLOSE_REASONS.reduce((sum, reason) => sum + after.closes[reason], 0) + after.totals.open,
    after.totals.accepted,
    "all that the engine has accepted",
  );

  await under("upgrade", () => order("upgrade"));
  const upgraded = await balanced(server, "upgrade", STAYERS - cut);
  assert.equal(upgraded.generation, 2);
  assert.ok(upgraded.workers.reduce((sum, { movedIn }) => sum + movedIn, 0) >= STAYERS - cut);
});
