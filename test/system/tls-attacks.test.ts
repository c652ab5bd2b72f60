/** What TLS must refuse, and what it must stand: old versions and ciphers, floods of handshakes, handshakes that stall. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { answerOf, clientHello } from "../support/client-hello.js";
import { SClient } from "../support/s-client.js";
import { type Seen, startTls, type TlsClient, type TlsRig } from "../support/tls-rig.js";
import { until, within } from "../support/until.js";

const PROTOCOL_VERSION = "alert 70";
const HANDSHAKE_FAILURE = "alert 40";
/** As much as answerOf looks at. */
const ANSWER_BYTES = 7;
const FLOOD_S = 3;

async function open(t: TestContext, port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  // A reset is one of the things that may come.
  socket.on("error", () => {});
  t.after(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** However it ends. */
function closed(socket: Socket): Promise<unknown> {
  return within(
    "the server closes",
    new Promise((resolve) => {
      if (socket.closed) resolve(undefined);
      else socket.once("close", resolve);
    }),
  );
}

async function answerTo(t: TestContext, port: number, hello: Buffer): Promise<string> {
  const socket = await open(t, port);
  let answer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    answer = Buffer.concat([answer, chunk]);
    // What follows is of no interest.
    if (answer.length >= ANSWER_BYTES) socket.destroy();
  });
  socket.write(hello);
  await closed(socket);
  return answerOf(answer);
}

const [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM] = [0xc02f, 0xc02b];

/** What, the version, the ciphers, and the alert that is due. */
const REFUSED: readonly (readonly [string, number, readonly number[], string])[] = [
  ["SSL 3", 0x0300, [ECDHE_RSA_GCM, 0x002f, 0x0005], HANDSHAKE_FAILURE],
  ["TLS 1.0", 0x0301, [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM, 0xc013, 0x002f], PROTOCOL_VERSION],
  ["TLS 1.1", 0x0302, [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM, 0xc013, 0x002f], PROTOCOL_VERSION],
  [
    "CBC with forward secrecy",
    0x0303,
    [0xc013, 0xc014, 0xc027, 0xc028, 0xc009, 0xc00a, 0xc023, 0xc024],
    HANDSHAKE_FAILURE,
  ],
  ["CBC without it", 0x0303, [0x002f, 0x0035, 0x003c, 0x003d, 0x0041], HANDSHAKE_FAILURE],
  ["GCM without forward secrecy", 0x0303, [0x009c, 0x009d], HANDSHAKE_FAILURE],
  ["3DES", 0x0303, [0x000a, 0xc012, 0xc008], HANDSHAKE_FAILURE],
  ["RC4", 0x0303, [0x0004, 0x0005, 0xc011, 0xc007], HANDSHAKE_FAILURE],
  ["export ciphers", 0x0303, [0x0003, 0x0006, 0x0008, 0x000b, 0x000e, 0x0011, 0x0014], HANDSHAKE_FAILURE],
  ["anonymous ones", 0x0303, [0x0018, 0x001b, 0x0034, 0x003a, 0x006c, 0x00a6, 0xc018, 0xc019], HANDSHAKE_FAILURE],
  ["no encryption", 0x0303, [0x0000, 0x0001, 0x0002, 0x003b, 0xc006, 0xc010], HANDSHAKE_FAILURE],
  ["keys that were agreed on before (PSK)", 0x0303, [0x008c, 0x00a8, 0xc035], HANDSHAKE_FAILURE],
  ["finite-field Diffie-Hellman", 0x0303, [0x009e, 0x009f, 0x0033, 0xccaa], HANDSHAKE_FAILURE],
];

describe("TLS refuses", () => {
  for (const [key, newKey] of [
    ["P-256", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]],
    ["RSA", ["-newkey", "rsa:2048"]],
  ] as const) {
    test(`old versions and weak ciphers, with a key of ${key}`, async (t) => {
      const rig = await startTls(t, ({ authority }) => ({ tls: authority.issue({ name: "a.example", newKey }) }));
      const good = clientHello({ version: 0x0303, ciphers: [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM] });
      assert.equal(await answerTo(t, rig.port, good), "hello", "what is right is answered");
      for (const [what, version, ciphers, alert] of REFUSED) {
        assert.equal(await answerTo(t, rig.port, clientHello({ version, ciphers })), alert, what);
      }
      const { closes, listeners } = await rig.server.status();
      assert.equal(closes["tls-error"], REFUSED.length);
      assert.equal(listeners[0]?.opened, 0, "the service has heard of none of them");
    });
  }

  test("the same by openssl, at its lowest level of security", async (t) => {
    const rig = await startTls(t);
    for (const args of [
      ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
      ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
      ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"],
      ["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES128-SHA:@SECLEVEL=0"],
      ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
      ["-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"],
    ]) {
      const client = new SClient(t, rig.port, args);
      client.send("tls");
      assert.notEqual(await client.exited, 0, args.join(" "));
      assert.match(client.text, /alert (protocol version|handshake failure)/, args.join(" "));
      assert.ok(!client.text.includes('"worker"'));
    }
  });

  test("renegotiation, compression and early data", async (t) => {
    const rig = await startTls(t);
    const client = new SClient(t, rig.port, ["-tls1_2", "-comp"]);
    await client.ask<Seen>("tls");
    assert.match(client.text, /Compression: NONE/);
    client.send("R");
    await client.seen(/no renegotiation/);
    const [session, early] = [join(rig.folder, "session.pem"), join(rig.folder, "early")];
    writeFileSync(early, "tls\n");
    const first = new SClient(t, rig.port, ["-tls1_3", "-sess_out", session]);
    await first.ask<Seen>("tls");
    await first.close();
    const second = new SClient(t, rig.port, ["-tls1_3", "-sess_in", session, "-early_data", early]);
    assert.equal((await second.ask<Seen>("tls")).resumed, true);
    assert.match(await second.close(), /Early data was (not sent|rejected)/);
  });

  test("what is no TLS at all: the reason is counted, and a client that speaks plaintext is not answered in it", async (t) => {
    const rig = await startTls(t);
    for (const text of [
      "GET / HTTP/1.1\r\n\r\n",
      "hello\n",
      "\0".repeat(300),
      "\x16\x03\x01\xff\xff".padEnd(300, "x"),
    ]) {
      const answer = await answerTo(t, rig.port, Buffer.from(text, "latin1"));
      assert.match(answer, /^(alert \d+|nothing)$/);
    }
    await until("all are counted", async () => (await rig.server.status()).closes["tls-error"] === 4);
  });
});

/** Resident memory of the workers, MiB. */
async function memoryOf(rig: TlsRig): Promise<number> {
  const { workers } = await rig.server.status();
  const kilobytes = workers.map(({ pid }) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]),
  );
  return kilobytes.reduce((sum, each) => sum + each, 0) / 1024;
}

async function handshakesBegun(rig: TlsRig): Promise<number> {
  return (await rig.server.status()).listeners[0]?.prefaces ?? 0;
}

describe("handshakes that do not end", { concurrency: 2 }, () => {
  test("are closed at timeouts.handshake, whatever trickles in; a client that is through is not", async (t) => {
    const rig = await startTls(t, { top: { timeouts: { handshake: "600ms" } } });
    const client = await rig.connect();
    const hello = clientHello({ version: 0x0303, ciphers: [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM] });
    const began = performance.now();
    const silent = await open(t, rig.port);
    const half = await open(t, rig.port);
    half.write(hello.subarray(0, 60));
    const answered = await open(t, rig.port);
    answered.resume().write(hello);
    const trickling = await open(t, rig.port);
    const drip = setInterval(() => trickling.write(hello.subarray(0, 1)), 20);
    t.after(() => clearInterval(drip));
    await Promise.all([silent, half, answered, trickling].map(closed));
    const took = performance.now() - began;
    assert.ok(took >= 590 && took < 1_500, `${took} ms`);
    const { closes } = await rig.server.status();
    assert.equal((closes["handshake-timeout"] ?? 0) + (closes["tls-error"] ?? 0), 4);
    assert.ok(closes["handshake-timeout"] >= 3);
    assert.equal(await client.ask("still here"), "still here");
    assert.equal(await handshakesBegun(rig), 0);
  });

  test("limits.handshakes: newcomers past it are reset, and get in again when there is room", async (t) => {
    const rig = await startTls(t, { top: { limits: { handshakes: 5 }, timeouts: { handshake: "20s" } } });
    const client = await rig.connect();
    // A client is through with its last message on the way, the server when that has come.
    assert.equal(await client.ask("in"), "in");
    const stalled = await Promise.all(Array.from({ length: 5 }, () => open(t, rig.port)));
    await until("five are in progress", async () => (await handshakesBegun(rig)) === 5);
    for (let round = 0; round < 3; round++) {
      await assert.rejects(rig.connect(), { code: "ECONNRESET" });
    }
    const { rejections, totals } = await rig.server.status();
    assert.deepEqual([rejections["handshakes-full"], totals.rejected], [3, 3]);
    await rig.server.logged("why", ({ msg }) => /connections rejected: .*handshakes-full/.test(msg));
    assert.equal(await client.ask("still here"), "still here", "who is in is not concerned");
    stalled[0]?.destroy();
    await until("one has left", async () => (await handshakesBegun(rig)) === 4);
    assert.equal(await (await rig.connect()).ask("in"), "in");
    rig.configure({ top: { limits: { handshakes: 100 }, timeouts: { handshake: "20s" } } });
    assert.equal((await rig.server.command("reload", "--wait")).code, 0);
    const more = await Promise.all(Array.from({ length: 10 }, () => open(t, rig.port)));
    assert.equal(await (await rig.connect()).ask("raised"), "raised");
    for (const socket of more) socket.destroy();
  });

  test("hundreds of them, and a flood of whole ones, beside clients that are served", async (t) => {
    const rig = await startTls(t, { top: { limits: { handshakes: 300 }, timeouts: { handshake: "20s" } } });
    const clients = await Promise.all(Array.from({ length: 10 }, () => rig.connect()));
    await warmUp(rig);
    const alone = await p99Of(clients, 1_000);
    const before = await memoryOf(rig);
    const stalled = await Promise.all(Array.from({ length: 250 }, () => open(t, rig.port)));
    const hello = clientHello({ version: 0x0303, ciphers: [ECDHE_RSA_GCM, ECDHE_ECDSA_GCM] });
    for (const [index, socket] of stalled.entries()) socket.write(index % 2 === 0 ? hello : hello.subarray(0, 40));
    await until("they are in progress", async () => (await handshakesBegun(rig)) === 250);
    const floods = [startFlood(t, rig), startFlood(t, rig)];
    const p99 = await p99Of(clients, FLOOD_S * 1_000);
    const handshakes = (await Promise.all(floods)).reduce((sum, each) => sum + each, 0);
    const grown = (await memoryOf(rig)) - before;
    const beside = `beside ${handshakes} handshakes and 250 that stall`;
    t.diagnostic(`p99 ${alone.toFixed(1)} ms alone, ${p99.toFixed(1)} ms ${beside}; memory +${grown.toFixed(0)} MiB`);
    assert.ok(handshakes > 200, `${handshakes} handshakes`);
    assert.ok(p99 < 250, `p99 ${p99} ms`);
    assert.ok(grown < 64, `memory grew by ${grown} MiB`);
    for (const socket of stalled) socket.destroy();
    await until("nothing is left of them", async () => (await handshakesBegun(rig)) === 0);
    assert.equal((await rig.server.status()).listeners[0]?.open, clients.length);
  });
});

/** What 99 of 100 requests take at most, ms: one after the other, for so long. */
async function p99Of(clients: readonly TlsClient[], forMs: number): Promise<number> {
  const waits: number[] = [];
  for (const end = performance.now() + forMs; performance.now() < end; await pause(5)) {
    for (const client of clients) {
      const asked = performance.now();
      assert.equal(await client.ask("ping"), "ping");
      waits.push(performance.now() - asked);
    }
  }
  waits.sort((a, b) => a - b);
  return waits[Math.floor(waits.length * 0.99)] ?? 0;
}

/** What the first handshakes allocate stays allocated. */
async function warmUp(rig: TlsRig): Promise<void> {
  for (let round = 0; round < 30; round++) (await rig.connect()).tls.destroy();
}

/** Full handshakes, one after the other, by a process of openssl's. Resolves with how many there were. */
async function startFlood(t: TestContext, rig: TlsRig): Promise<number> {
  const child = spawn("openssl", ["s_time", "-new", "-time", `${FLOOD_S}`, "-connect", `127.0.0.1:${rig.port}`]);
  t.after(() => child.kill("SIGKILL"));
  const said = await text(child.stdout);
  return Number(/^(\d+) connections in \d+ real seconds/m.exec(said)?.[1] ?? assert.fail(said));
}
