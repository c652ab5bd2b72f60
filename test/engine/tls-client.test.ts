/** The engine as a TLS client, against node:tls: whom it believes, what it asks for, sessions that it takes up again. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { createServer, type TLSSocket, type TlsOptions } from "node:tls";
import type { SecureOptions } from "#src/engine/engine.js";
import type { TlsContext } from "#src/os/tls-addon.js";
import { passingAuthority } from "../support/authority.js";
import { type Loopback, openLoopback, type Recorder } from "../support/loopback.js";
import {
  authority,
  clientContext,
  localhost,
  secure,
  secured,
  strangersContext,
  tlsErrorOf,
  tlsOf,
} from "../support/secured.js";
import { until } from "../support/until.js";

interface NodeServer {
  readonly port: number;
  readonly sockets: TLSSocket[];
}

async function openNodeServer(t: TestContext, options: TlsOptions = {}): Promise<NodeServer> {
  const sockets: TLSSocket[] = [];
  const server = createServer({ cert: localhost.chain, key: localhost.key, ...options }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

function begin(loopback: Loopback, port: number, context: TlsContext, options: SecureOptions): Recorder {
  return loopback.connect(port, (self) => ({ onOpen: () => secure(self, context, options) }));
}

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${version}: there and back, with a name and a protocol`, async (t) => {
    const server = await openNodeServer(t, { maxVersion: version, ALPNProtocols: ["rpc/1"] });
    const loopback = openLoopback(t, { accepting: false });
    const client = begin(loopback, server.port, clientContext({ alpn: ["rpc/1"] }), { serverName: "localhost" });
    await secured(client);
    client.send("hello");
    await until("the echo", () => client.text === "hello");
    const info = tlsOf(client) ?? assert.fail();
    assert.equal(info.protocol, version);
    assert.equal(info.alpn, "rpc/1");
    assert.ok(info.peerCertificate);
    assert.equal(server.sockets[0]?.alpnProtocol, "rpc/1");
    assert.equal((server.sockets[0] as { servername?: unknown } | undefined)?.servername, "localhost");
    client.close();
    await until("the slot is given back", () => loopback.engine.open === 0);
  });
}

for (const [what, serverName, context, reason] of [
  ["for another name", "example.org", () => clientContext(), /hostname mismatch/i],
  ["for another address", "127.0.0.2", () => clientContext(), /IP address mismatch/i],
  ["of one who is not believed", "localhost", () => clientContext({ ca: passingAuthority("x").text }), /unable to/],
  ["that Node would not believe", "localhost", strangersContext, /unable to/],
] as const) {
  test(`a certificate ${what} is refused`, async (t) => {
    const server = await openNodeServer(t);
    const loopback = openLoopback(t, { accepting: false });
    const client = begin(loopback, server.port, context(), { serverName });
    await until("the refusal", () => client.errno);
    assert.match(tlsErrorOf(client), /^certificate verify failed: /);
    assert.match(tlsErrorOf(client), reason);
    assert.deepEqual(client.events, ["open", "error"]);
  });
}

test("an address in the certificate is as good as a name, and is not asked for as one", async (t) => {
  const server = await openNodeServer(t);
  const loopback = openLoopback(t, { accepting: false });
  const client = begin(loopback, server.port, clientContext(), { serverName: "127.0.0.1" });
  await secured(client);
  assert.equal(tlsOf(client)?.serverName, undefined);
});

test("optional says what is wrong, none does not look", async (t) => {
  const server = await openNodeServer(t);
  const loopback = openLoopback(t, { accepting: false });
  const wrong = { serverName: "example.org" };
  const asking = begin(loopback, server.port, clientContext({ verify: "optional" }), wrong);
  await secured(asking);
  assert.match(String(tlsOf(asking)?.verifyError), /hostname mismatch/i);
  const blind = begin(loopback, server.port, clientContext({ verify: "none", ca: "" }), wrong);
  await secured(blind);
  assert.equal(tlsOf(blind)?.verifyError, undefined);
});

test("a certificate of the client's own", async (t) => {
  const server = await openNodeServer(t, { requestCert: true, ca: authority.text });
  const loopback = openLoopback(t, { accepting: false });
  const own = authority.identity({ name: "client 1" });
  const client = begin(loopback, server.port, clientContext({ certificates: [{ ...own, names: [] }] }), {
    serverName: "localhost",
  });
  await secured(client);
  client.send("x");
  await until("the echo", () => client.text === "x");
  assert.equal(server.sockets[0]?.getPeerCertificate().subject.CN, "client 1");
});

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${version}: a session is taken up again, by another connection`, async (t) => {
    const server = await openNodeServer(t, { maxVersion: version });
    const loopback = openLoopback(t, { accepting: false });
    const context = clientContext();
    const connectWith = async (session?: Uint8Array): Promise<Recorder> => {
      const client = begin(loopback, server.port, context, {
        serverName: "localhost",
        ...(session ? { session } : {}),
      });
      await secured(client);
      client.send("hello");
      await until("the echo", () => client.text === "hello");
      return client;
    };
    const first = await connectWith();
    assert.equal(tlsOf(first)?.resumed, false);
    const session = await until("a session", () => first.engine.tlsSession(first.slot, first.generation));
    const second = await connectWith(session);
    assert.equal(tlsOf(second)?.resumed, true);
    assert.ok(tlsOf(second)?.peerCertificate, "the certificate is that of the session");
  });
}

test("a session from before, when nobody looked at the certificate, does not replace looking", async (t) => {
  const server = await openNodeServer(t);
  const loopback = openLoopback(t, { accepting: false });
  const trustNobody = { ca: passingAuthority("nobody").text };
  const blind = begin(loopback, server.port, clientContext({ ...trustNobody, verify: "none" }), {
    serverName: "localhost",
  });
  await secured(blind);
  blind.send("x");
  await until("the echo", () => blind.text === "x");
  const session = await until("a session", () => blind.engine.tlsSession(blind.slot, blind.generation));
  const strict = begin(loopback, server.port, clientContext(trustNobody), { serverName: "localhost", session });
  await until("the refusal", () => strict.errno);
  assert.match(tlsErrorOf(strict), /certificate verify failed/);
});
