/** A load over TLS: full handshakes and resumed ones, and a server that has no TLS. */
import assert from "node:assert/strict";
import { constants } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { createServer, type TlsOptions } from "node:tls";
import { faultOf } from "#src/load/result.js";
import { localhost } from "../support/secured.js";
import { load, startPeer } from "./peer.js";

interface Echo {
  readonly port: number;
  handshakes: number;
  resumed: number;
}

async function startEcho(t: TestContext, options: TlsOptions = {}): Promise<Echo> {
  const server = createServer({ cert: localhost.chain, key: localhost.key, ...options }, (socket) => {
    peer.handshakes += 1;
    if (socket.isSessionReused()) peer.resumed += 1;
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const peer: Echo = { port: (server.address() as AddressInfo).port, handshakes: 0, resumed: 0 };
  return peer;
}

test("a closed loop: every reply is verified", async (t) => {
  const peer = await startEcho(t);
  const result = await load(peer.port, { tls: "full" });
  assert.equal(faultOf(result), undefined);
  assert.ok(result.messages.verified > 0);
  assert.equal(peer.handshakes, 4);
});

test("churn with full handshakes", async (t) => {
  const peer = await startEcho(t);
  const result = await load(peer.port, { tls: "full", mode: "churn" });
  assert.equal(faultOf(result), undefined);
  assert.ok(peer.handshakes > 4);
  assert.equal(peer.resumed, 0);
});

test("churn that resumes: all but those that began before there was a session", async (t) => {
  const peer = await startEcho(t);
  const result = await load(peer.port, { tls: "resume", mode: "churn", connections: 2 });
  assert.equal(faultOf(result), undefined);
  assert.ok(peer.handshakes > 10);
  assert.ok(peer.handshakes - peer.resumed <= 2, `${peer.resumed} of ${peer.handshakes}`);
});

test("a server that resumes none fails the load that asks for it", async (t) => {
  const peer = await startEcho(t, { maxVersion: "TLSv1.2", secureOptions: constants.SSL_OP_NO_TICKET });
  const result = await load(peer.port, { tls: "resume", mode: "churn", connections: 2 });
  assert.ok((result.connections.failed.EPROTO ?? 0) > 0, JSON.stringify(result.connections));
  assert.equal(peer.resumed, 0);
});

test("a server without TLS: the connections fail, and the load says so", async (t) => {
  const peer = await startPeer(64, (socket) => void socket.end("no TLS here\n"));
  t.after(() => peer.close());
  const result = await load(peer.port, { tls: "full", timeoutMs: 500 });
  assert.equal(result.connections.opened, 0);
  assert.ok(faultOf(result) !== undefined);
});
