/** Clients over TLS, against node:tls: whom they believe, and sessions that later connections resume. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { createServer, type TLSSocket, type TlsOptions } from "node:tls";
import { lineClient, outcomeOf } from "../support/downstream.js";
import { authority, localhost } from "../support/secured.js";
import { until } from "../support/until.js";

interface Secured {
  readonly port: number;
  readonly sockets: TLSSocket[];
}

async function openSecured(t: TestContext, options: TlsOptions = {}): Promise<Secured> {
  const sockets: TLSSocket[] = [];
  const server = createServer({ cert: localhost.chain, key: localhost.key, ...options }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

const tls = { ca: authority.text };
/** The certificate is for that name. */
const resolve = async (): Promise<string[]> => ["127.0.0.1"];

for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${maxVersion}: one connection for call after call, and the next one resumes its session`, async (t) => {
    const server = await openSecured(t, { maxVersion });
    const client = lineClient(t, { targets: [`localhost:${server.port}`], resolve, tls });
    for (let i = 0; i < 20; i++) assert.equal(await client.call(`line ${i}`), `line ${i}`);
    assert.deepEqual([server.sockets.length, client.stats().counts.resumed], [1, 0]);
    assert.equal(server.sockets[0]?.getProtocol(), maxVersion);
    // As large as the engine's arena and larger.
    const large = "x".repeat(1_000_000);
    assert.equal(await client.call(large), large);
    for (let count = 1; count <= 3; count++) {
      server.sockets.at(-1)?.end();
      await until("the end of it", () => client.stats().targets[0]?.connections === 0);
      assert.equal(await client.call("again"), "again");
      assert.equal(client.stats().counts.resumed, count);
    }
  });
}

test("the name that is asked for, and the protocols that are offered", async (t) => {
  const server = await openSecured(t, { ALPNProtocols: ["rpc/1"] });
  const options = { ...tls, serverName: "localhost", alpn: ["rpc/2", "rpc/1"] };
  const client = lineClient(t, { targets: [`127.0.0.1:${server.port}`], tls: options });
  await client.call("a");
  const [socket] = server.sockets;
  assert.deepEqual([socket?.servername, socket?.alpnProtocol], ["localhost", "rpc/1"]);
});

for (const [what, options, reason] of [
  ["an authority that is not believed", {}, /certificate/],
  ["another name", { ...tls, serverName: "example.org" }, /name|certificate/],
] as const) {
  test(`refused: ${what}; the caller hears why`, async (t) => {
    const server = await openSecured(t);
    const client = lineClient(t, { targets: [`localhost:${server.port}`], resolve, tls: options });
    await assert.rejects(client.call("a"), (error: { code: string; fields: { errno?: string }; message: string }) => {
      assert.deepEqual([error.code, error.fields.errno], ["connect-failed", "EPROTO"]);
      assert.match(error.message, reason);
      return true;
    });
    assert.equal(client.stats().counts.connectFaults.tls, 1);
    const careless = lineClient(t, {
      targets: [`localhost:${server.port}`],
      resolve,
      tls: { ...options, verify: "none" },
    });
    assert.equal(await careless.call("a"), "a");
  });
}

test("its own certificate, where the server asks for one", async (t) => {
  const server = await openSecured(t, { requestCert: true, rejectUnauthorized: true, ca: authority.text });
  const { chain, key } = authority.identity({ name: "some client", usage: "clientAuth" });
  const options = { targets: [`localhost:${server.port}`], resolve };
  const known = lineClient(t, { ...options, tls: { ...tls, certificate: chain, key } });
  assert.equal(await known.call("a"), "a");
  assert.equal(server.sockets[0]?.getPeerCertificate().subject.CN, "some client");
  const unknown = lineClient(t, { ...options, tls });
  assert.notEqual(await outcomeOf(unknown.call("a", { timeoutMs: 2_000 })), "answered");
});

test("a server that accepts and says nothing: timeouts.connect counts the handshake too", async (t) => {
  const { createServer: createPlain } = await import("node:net");
  const silent = createPlain((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1");
  await once(silent, "listening");
  t.after(() => silent.close());
  const { port } = silent.address() as AddressInfo;
  const client = lineClient(t, { targets: [`127.0.0.1:${port}`], tls, timeouts: { connect: "100ms" } });
  await assert.rejects(client.call("a"), /no answer within 100 ms/);
});

test("plain text where TLS is expected is said so", async (t) => {
  const { createServer: createPlain } = await import("node:net");
  const plain = createPlain((socket) => socket.on("error", () => {}).end("hello, this is no TLS\n")).listen(
    0,
    "127.0.0.1",
  );
  await once(plain, "listening");
  t.after(() => plain.close());
  const { port } = plain.address() as AddressInfo;
  const client = lineClient(t, { targets: [`127.0.0.1:${port}`], tls });
  await assert.rejects(client.call("a"), /wrong version number/i);
});
