/** A move while TLS handshakes are in progress: their connections will stay, and are not waited for in vain. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { line } from "#src/codec/line.js";
import { type AnyService, defineService } from "#src/service/define.js";
import { openPeer, type Peer } from "../support/peer.js";
import { authority, localhost } from "../support/secured.js";
import { openServing, type Serving, type ServingOptions } from "../support/serving.js";
import { until } from "../support/until.js";
import { move } from "./moving.js";

const SECURE: ServingOptions = {
  tls: { ...localhost, names: ["localhost"] },
  timeouts: { handshake: 60_000, firstByte: "off" },
};

async function pair(t: TestContext, service: AnyService): Promise<[Serving, Serving]> {
  const a = await openServing(t, service, SECURE);
  return [a, await openServing(t, service, { ...SECURE, beside: a })];
}

/** Connected, and has not said a word of TLS. */
async function openSilent(t: TestContext, serving: Serving): Promise<Peer> {
  const peer = await openPeer(t, serving.port);
  await until("its handshake has begun", () => serving.figure("prefaces") === 1);
  return peer;
}

async function finish(t: TestContext, { socket }: Peer): Promise<TLSSocket> {
  const secured = connect({ socket, ca: authority.text, servername: "localhost" });
  t.after(() => secured.destroy());
  await once(secured, "secureConnect");
  return secured;
}

test("a handshake that makes no progress does not hold a move up: it could not move", async (t) => {
  const [a, b] = await pair(t, defineService({ codec: line(), onMessage: (text) => text }));
  await openSilent(t, a);
  const began = performance.now();
  assert.equal((await move(a, b, { withinMs: 10_000 })).moved, 0);
  assert.ok(performance.now() - began < 5_000);
});

/** Numbers the lines of all its connections, and hands the number off. */
function counting(handed: string[]): AnyService {
  return defineService({
    codec: line(),
    env: () => ({ lines: 0 }),
    onMessage: (_text, { env }) => String(++env.lines),
    handOff: ({ lines }) => Buffer.from(String(lines)),
    takeOver: (_env, bytes) => void handed.push(String(bytes)),
  });
}

test("what is shared stays while a handshake becomes a connection that stays", async (t) => {
  const handed: string[] = [];
  const [a, b] = await pair(t, counting(handed));
  const silent = await openSilent(t, a);
  const moving = move(a, b, { withinMs: 60_000 });
  const socket = await finish(t, silent);
  assert.equal((await moving).moved, 0);
  assert.deepEqual(handed, []);
  socket.write("x\n");
  const [answer] = (await once(socket, "data")) as [Buffer];
  assert.equal(answer.toString(), "1\n");
});

test("what is shared is handed off once the last handshake has failed", async (t) => {
  const handed: string[] = [];
  const [a, b] = await pair(t, counting(handed));
  const silent = await openSilent(t, a);
  const moving = move(a, b, { withinMs: 60_000 });
  silent.reset();
  await moving;
  assert.deepEqual(handed, ["0"]);
});
