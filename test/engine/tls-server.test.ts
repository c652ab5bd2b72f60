/** The engine as a TLS server, against node:tls: versions, names, protocols, what the service is told. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { passingAuthority } from "../support/authority.js";
import {
  authority,
  beginPeer,
  echo,
  localhost,
  openPair,
  openSecure,
  openSecurePeer,
  secured,
  serverContext,
  tlsErrorOf,
  tlsOf,
} from "../support/secured.js";
import { until } from "../support/until.js";

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${version}: a message there and back`, async (t) => {
    const { peer, served } = await openPair(t, { peer: { minVersion: version, maxVersion: version } });
    echo(served);
    peer.write("hello");
    await peer.receives(5);
    assert.equal(peer.text, "hello");
    assert.deepEqual(served.events.slice(0, 3), ["open", "secured", "data"]);
    const { cipher, ...info } = tlsOf(served) ?? assert.fail("no info");
    assert.deepEqual(info, { protocol: version, serverName: "localhost", resumed: false });
    assert.equal(peer.socket.getCipher().name, cipher);
  });
}

test("a context for TLS 1.3 refuses TLS 1.2, and nothing below that is ever spoken", async (t) => {
  for (const [minVersion, maxVersion] of [
    ["TLSv1.3", "TLSv1.2"],
    ["TLSv1.2", "TLSv1.1"],
  ] as const) {
    const loopback = openSecure(t, serverContext({ minVersion }));
    const peer = beginPeer(t, loopback.port, {
      minVersion: "TLSv1",
      maxVersion,
      ciphers: "DEFAULT@SECLEVEL=0",
    });
    await once(peer.socket, "error").catch(() => {});
    const served = await loopback.nth(0);
    await until("the refusal", () => served.errno);
    assert.match(tlsErrorOf(served), /unsupported protocol/);
    assert.equal(peer.error, "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");
  }
});

const WEAK = [
  "AES128-SHA",
  "AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES128-SHA",
  "ECDHE-ECDSA-AES128-SHA256",
  "DHE-RSA-AES128-GCM-SHA256",
];
test("of TLS 1.2 only ciphers with AEAD and ECDHE are there", async (t) => {
  const rsa = authority.identity({ name: "localhost", newKey: ["-newkey", "rsa:2048"] });
  for (const cipher of WEAK) {
    const identity = cipher.includes("ECDSA") ? localhost : rsa;
    const loopback = openSecure(t, serverContext({ certificates: [{ ...identity, names: [] }] }));
    const peer = beginPeer(t, loopback.port, { maxVersion: "TLSv1.2", ciphers: `${cipher}:@SECLEVEL=0` });
    const served = await loopback.nth(0);
    await until(`${cipher} refused`, () => served.errno);
    assert.match(tlsErrorOf(served), /no shared cipher/, cipher);
    await until("the alert", () => peer.error);
  }
  for (const cipher of ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"]) {
    const loopback = openSecure(t, serverContext({ certificates: [{ ...rsa, names: [] }] }));
    const peer = await openSecurePeer(t, loopback.port, { maxVersion: "TLSv1.2", ciphers: cipher });
    assert.equal(peer.socket.getCipher().name, cipher);
  }
});

test("ciphers as given", async (t) => {
  const context = serverContext({
    ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384",
    ciphersuites: "TLS_CHACHA20_POLY1305_SHA256",
  });
  const loopback = openSecure(t, context);
  const newer = await openSecurePeer(t, loopback.port);
  assert.equal(newer.socket.getCipher().name, "TLS_CHACHA20_POLY1305_SHA256");
  const older = await openSecurePeer(t, loopback.port, { maxVersion: "TLSv1.2" });
  assert.equal(older.socket.getCipher().name, "ECDHE-ECDSA-AES256-GCM-SHA384");
});

test("the certificate is chosen by the name that is asked for", async (t) => {
  const names = [["a.example.org"], ["b.example.org", "*.wild.example.org"], ["x.wild.example.org"], ["a.example.org"]];
  const certificates = names.map((own, index) => ({ ...authority.identity({ name: `number ${index}` }), names: own }));
  const loopback = openSecure(t, serverContext({ certificates }));
  const asked = async (servername: string): Promise<string> => {
    const peer = await openSecurePeer(t, loopback.port, { servername, checkServerIdentity: () => undefined });
    return String(peer.socket.getPeerCertificate().subject.CN);
  };
  assert.equal(await asked("a.example.org"), "number 0");
  assert.equal(await asked("B.Example.ORG"), "number 1");
  assert.equal(await asked("any.wild.example.org"), "number 1");
  assert.equal(await asked("x.wild.example.org"), "number 2");
  assert.equal(await asked("two.labels.wild.example.org"), "number 0");
  assert.equal(await asked("wild.example.org"), "number 0");
  assert.equal(await asked("elsewhere.example"), "number 0");
  assert.equal(await asked(""), "number 0");
  const last = loopback.accepted.at(-1) ?? assert.fail();
  assert.equal(tlsOf(last)?.serverName, undefined);
});

test("the protocol is the first of the server's that the client offers", async (t) => {
  const loopback = openSecure(t, serverContext({ alpn: ["h2", "rpc/1", "http/1.1"] }));
  const agreed = async (ALPNProtocols: string[]): Promise<[unknown, unknown]> => {
    const count = loopback.accepted.length;
    const peer = await openSecurePeer(t, loopback.port, { ALPNProtocols });
    const served = await loopback.nth(count);
    await secured(served);
    return [peer.socket.alpnProtocol, tlsOf(served)?.alpn];
  };
  assert.deepEqual(await agreed(["http/1.1", "rpc/1"]), ["rpc/1", "rpc/1"]);
  assert.deepEqual(await agreed(["http/1.1"]), ["http/1.1", "http/1.1"]);
  assert.deepEqual(await agreed([]), [false, undefined]);
});

test("none in common: refused, and the client is told", async (t) => {
  const loopback = openSecure(t, serverContext({ alpn: ["rpc/1"] }));
  const peer = beginPeer(t, loopback.port, { ALPNProtocols: ["http/1.1"] });
  const served = await loopback.nth(0);
  await until("the refusal", () => served.errno);
  assert.match(tlsErrorOf(served), /no application protocol/);
  served.close();
  await until("the alert", () => peer.error);
  assert.equal(peer.error, "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
  assert.deepEqual(served.events, ["open", "error"]);
});

test("a server without protocols does not mind which are offered", async (t) => {
  const loopback = openSecure(t);
  const peer = await openSecurePeer(t, loopback.port, { ALPNProtocols: ["http/1.1"] });
  assert.equal(peer.socket.alpnProtocol, false);
});

test("a certificate that its client does not believe: the client's alert is the error", async (t) => {
  const loopback = openSecure(t);
  const peer = beginPeer(t, loopback.port, { ca: passingAuthority("another").text });
  await until("the client's error", () => peer.error);
  const served = await loopback.nth(0);
  await until("its end", () => served.errno || served.ended);
  assert.equal(peer.error, "UNABLE_TO_VERIFY_LEAF_SIGNATURE");
});
