/** How a secured connection ends: close_notify and FIN, from either side, in order; and without them. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { Engine } from "#src/engine/engine.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { openPeer, type Peer } from "../support/peer.js";
import {
  authority,
  beginPeer,
  clientContext,
  echo,
  openCutter,
  openPair,
  openSecure,
  openSecurePeer,
  secure,
  secured,
  serverContext,
} from "../support/secured.js";
import { until } from "../support/until.js";

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  const speaking = { minVersion: version, maxVersion: version } as const;

  test(`${version}: closed by this side: what was sent arrives, then the end, no reset`, async (t) => {
    const { loopback, peer, served } = await openPair(t, { peer: speaking });
    served.send("last words");
    served.close();
    await until("the end", () => peer.ended);
    assert.equal(peer.text, "last words");
    peer.end();
    await until("the slot is given back", () => loopback.engine.open === 0);
    assert.equal(peer.error, undefined);
  });

  test(`${version}: ended by the peer: an end after its last bytes, and it gets its answer`, async (t) => {
    const { loopback, peer, served } = await openPair(t, { peer: speaking });
    echo(served);
    served.on.onEnd = () => served.close();
    peer.socket.end("the question");
    await until("the end", () => peer.ended);
    assert.equal(peer.text, "the question");
    assert.deepEqual(served.events, ["open", "secured", "data", "end"]);
    await until("the slot is given back", () => loopback.engine.open === 0);
    assert.equal(peer.error, undefined);
  });
}

test("the end is announced: a client that insists on close_notify gets it", async (t) => {
  const loopback = openSecure(t);
  const client = spawn("openssl", ["s_client", "-connect", `127.0.0.1:${loopback.port}`, "-quiet"]);
  t.after(() => client.kill());
  let said = "";
  for (const stream of [client.stdout, client.stderr]) stream.on("data", (bytes: Buffer) => (said += bytes));
  const exited = once(client, "exit");
  const served = await loopback.nth(0);
  await secured(served);
  served.send("bye\n");
  served.close();
  await exited;
  assert.match(said, /bye/);
  assert.doesNotMatch(said, /unexpected eof|errno/);
});

test("finish ends one direction only", async (t) => {
  const { loopback, peer, served } = await openPair(t);
  served.send("all I have");
  served.finish();
  await until("the end", () => peer.ended);
  assert.equal(peer.text, "all I have");
  peer.write("but I have more");
  await until("it", () => served.text === "but I have more");
  peer.end();
  await until("its end", () => served.ended);
  served.close();
  await until("the slot is given back", () => loopback.engine.open === 0);
});

test("close with megabytes unsent: a slow reader gets all of them, and the end", async (t) => {
  const loopback = openSecure(t, serverContext(), { socket: { sendBuffer: 65_536 } });
  const peer = beginPeer(t, loopback.port);
  const served = await loopback.nth(0);
  await secured(served);
  peer.socket.pause();
  served.send(Buffer.alloc(8 << 20, "x"));
  served.close();
  await until("it waits", () => served.engine.bytesHeldOut > 1 << 20);
  peer.socket.resume();
  await until("the end", () => peer.ended);
  assert.equal(peer.length, 8 << 20);
  assert.equal(peer.error, undefined);
});

interface Relay {
  readonly port: number;
  /** Towards the server: bytes go no further, or its connections end, as told. */
  cutOff: boolean;
  end(): void;
}

/** A way to `port` on which no FIN travels by itself. */
async function openRelay(t: TestContext, port: number): Promise<Relay> {
  const far = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const onward = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    far.add(onward);
    near.on("data", (chunk) => relay.cutOff || onward.write(chunk));
    onward.on("data", (chunk) => near.write(chunk));
    for (const socket of [near, onward]) {
      socket.on("error", () => {});
      t.after(() => socket.destroy());
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const relay: Relay = {
    port: (server.address() as AddressInfo).port,
    cutOff: false,
    end() {
      for (const socket of far) socket.end();
    },
  };
  return relay;
}

test("close_notify is an end, also where no FIN follows", async (t) => {
  const loopback = openSecure(t);
  const relay = await openRelay(t, loopback.port);
  const peer = await openSecurePeer(t, relay.port);
  const served = await loopback.nth(0);
  peer.socket.end("the last");
  await until("the end", () => served.ended);
  assert.deepEqual(served.events, ["open", "secured", "data", "end"]);
});

test("an end without close_notify is an end", async (t) => {
  const loopback = openSecure(t);
  const relay = await openRelay(t, loopback.port);
  const peer = await openSecurePeer(t, relay.port);
  const served = await loopback.nth(0);
  await secured(served);
  peer.write("whole");
  await until("the message", () => served.text === "whole");
  relay.cutOff = true;
  relay.end();
  await until("the end", () => served.ended);
  assert.equal(served.errno, 0);
});

test("in the midst of a record too", async (t) => {
  const loopback = openSecure(t);
  const relayed: Peer[] = [];
  const port = await openCutter(t, loopback.port, (chunk) => (relayed.length > 0 ? [chunk.subarray(0, 7)] : [chunk]));
  const peer = await openSecurePeer(t, port);
  const served = await loopback.nth(0);
  await secured(served);
  relayed.push(peer);
  peer.write("never whole");
  peer.socket.end();
  await until("the end", () => served.ended || served.errno);
  assert.equal(served.text, "");
});

test("reset resets, also in the midst of the handshake", async (t) => {
  const loopback = openSecure(t);
  const stalled = await openPeer(t, loopback.port);
  (await loopback.nth(0)).reset();
  const peer = await openSecurePeer(t, loopback.port);
  const served = await loopback.nth(1);
  await secured(served);
  served.reset();
  await until("the resets", () => stalled.closed && peer.closed);
  assert.equal(stalled.error, "ECONNRESET");
  assert.equal(peer.error, "ECONNRESET");
  assert.equal(loopback.engine.open, 0);
});

test("an engine that shuts down frees what TLS holds, whatever its state", async (t) => {
  const before = openDescriptors();
  const context = serverContext();
  const loopback = openSecure(t, context);
  const stalled = await openPeer(t, loopback.port);
  const peer = await openSecurePeer(t, loopback.port);
  await secured(await loopback.nth(1));
  const failed = await openPeer(t, loopback.port);
  failed.write("garbage!");
  await until("the failure", () => loopback.accepted[2]?.errno);
  loopback.engine.shutdown();
  await until("the resets", () => stalled.closed && peer.closed);
  const again = new Engine({ slots: 16 });
  again.shutdown();
  (await import("#src/os/addon.js")).addon().fdClose(loopback.fd);
  failed.socket.destroy();
  await sameDescriptors(before);
});

test("paused before the handshake: it goes on when it may", async (t) => {
  const loopback = openSecure(t);
  const context = serverContext();
  loopback.on = (self) => ({
    onOpen: () => {
      self.pause();
      secure(self, context);
    },
  });
  const peer = beginPeer(t, loopback.port, { ca: authority.text });
  const served = await loopback.nth(0);
  const other = loopback.connect();
  await until("another's round", () => other.opened);
  assert.deepEqual(served.events, ["open"]);
  served.resume();
  await secured(served);
  echo(served);
  peer.write("hello");
  await peer.receives(5);
});

test("a client that is connected while bytes wait for it already", async (t) => {
  // A server that speaks first in the clear is no TLS server: its bytes are the handshake's, not the owner's.
  const plain = (await import("node:net")).createServer((socket) => socket.end("220 welcome, I speak first\r\n"));
  await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
  t.after(() => plain.close());
  const loopback = openSecure(t, serverContext(), { accepting: false });
  const context = clientContext();
  const client = loopback.connect((plain.address() as { port: number }).port, (self) => ({
    onOpen: () => secure(self, context, { serverName: "localhost" }),
  }));
  await until("the failure", () => client.errno);
  assert.deepEqual(client.events, ["open", "error"]);
});
