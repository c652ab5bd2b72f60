/** What is no TLS, or stops being it: each fails that connection with a reason, and no other. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { tlsAddon } from "#src/os/tls-addon.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import {
  authority,
  beginPeer,
  clientContext,
  echo,
  localhost,
  openCutter,
  openSecure,
  openSecurePeer,
  secure,
  secured,
  serverContext,
  tlsErrorOf,
  tlsOf,
} from "../support/secured.js";
import { until } from "../support/until.js";

const EPROTO = 71;

for (const [what, bytes, reason] of [
  ["a request of HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", /http request/],
  ["zeros", "\0".repeat(100), /wrong version number|unsupported|record/],
  ["a line", "hello, is this thing on?\n", /wrong version number/],
  [
    "a record that is too long",
    `\x16\x03\x01\xff\xff${"x".repeat(66_000)}`,
    /packet length too long|data length too long|wrong/,
  ],
  ["a client hello that is none", `\x16\x03\x01\x00\x10\x01\x00\x00\x0c${"\xff".repeat(12)}`, /./],
] as const) {
  test(`${what} instead of a handshake: EPROTO, a reason, and a FIN, not a reset`, async (t) => {
    const loopback = openSecure(t);
    const peer = await openPeer(t, loopback.port);
    peer.write(bytes);
    const served = await loopback.nth(0);
    await until("the failure", () => served.errno);
    assert.equal(served.errno, EPROTO);
    assert.match(tlsErrorOf(served), reason);
    assert.equal(tlsOf(served), undefined);
    served.close();
    await until("the end", () => peer.ended || peer.closed);
    assert.equal(peer.error, undefined);
    peer.end();
    await until("the slot is given back", () => loopback.engine.open === 0);
    assert.deepEqual(served.events, ["open", "error"]);
  });
}

test("a handshake that never comes holds a slot, and nobody else, until its owner closes it", async (t) => {
  const loopback = openSecure(t);
  const stalled = await openPeer(t, loopback.port);
  stalled.write("\x16\x03\x01");
  const served = await loopback.nth(0);
  const peer = await openSecurePeer(t, loopback.port);
  echo(await loopback.nth(1));
  peer.write("still here");
  await peer.receives(10);
  assert.deepEqual(served.events, ["open"]);
  served.reset();
  await until("the reset", () => stalled.closed);
  assert.equal(loopback.engine.open, 1);
});

test("a peer that leaves in the midst of the handshake is an end, not a failure", async (t) => {
  const loopback = openSecure(t);
  const peer = await openPeer(t, loopback.port);
  peer.write("\x16\x03\x01");
  peer.end();
  const served = await loopback.nth(0);
  await until("the end", () => served.ended);
  assert.deepEqual(served.events, ["open", "end"]);
  served.close();
  await until("the slot is given back", () => loopback.engine.open === 0);
});

test("a byte that was changed on the way: the connection fails, what came before it is there", async (t) => {
  const loopback = openSecure(t);
  let spoil = false;
  const port = await openCutter(t, loopback.port, (chunk) => {
    if (spoil) chunk[chunk.length - 1] = (chunk[chunk.length - 1] as number) ^ 1;
    return [chunk];
  });
  const peer = await openSecurePeer(t, port);
  const served = await loopback.nth(0);
  peer.write("before");
  await until("the message", () => served.text === "before");
  spoil = true;
  peer.write("after");
  await until("the failure", () => served.errno);
  assert.equal(served.errno, EPROTO);
  assert.match(tlsErrorOf(served), /bad record mac|decryption failed/);
  assert.equal(served.text, "before");
  assert.ok(tlsOf(served), "what is known of it stays known");
});

test("a client that wants to renegotiate is refused", async (t) => {
  const loopback = openSecure(t);
  const client = spawn("openssl", [
    "s_client",
    ...["-connect", `127.0.0.1:${loopback.port}`, "-tls1_2", "-servername", "localhost", "-no_ign_eof"],
  ]);
  t.after(() => client.kill());
  let said = "";
  for (const stream of [client.stdout, client.stderr]) stream.on("data", (bytes: Buffer) => (said += bytes));
  const exited = once(client, "exit");
  const served = echo(await loopback.nth(0));
  await secured(served);
  client.stdin.write("first\n");
  await until("the first message", () => served.text.includes("first"));
  client.stdin.write("R\n");
  await exited;
  assert.match(said, /no renegotiation/);
  await until("the client's end", () => served.ended || served.errno);
  assert.equal(served.count("secured"), 1);
  // The client takes it for a failure of its own: what is refused is a warning, by which nothing ends here.
  assert.match(tlsErrorOf(served), /^$|alert handshake failure/);
});

test("bytes that are sent before the handshake is through are a fault of their sender's", async (t) => {
  const loopback = openSecure(t);
  await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.send("too early");
  await until("the failure", () => served.errno);
  assert.equal(served.errno, EPROTO);
  assert.match(tlsErrorOf(served), /before the handshake/);
});

test("TLS on a slot that has it, on one that is gone, with a name or a session that is none", async (t) => {
  const loopback = openSecure(t);
  const peer = await openSecurePeer(t, loopback.port);
  const served = await loopback.nth(0);
  const code = (run: () => void): string => {
    try {
      run();
    } catch (error) {
      assert.ok(error instanceof HeadraceError);
      return `${error.code} ${error.fields.errno ?? ""}`.trim();
    }
    return "nothing";
  };
  assert.equal(
    code(() => secure(served, serverContext())),
    "system EALREADY",
  );
  assert.equal(
    code(() => loopback.engine.release(served.slot, served.generation)),
    "system ENOTSUP",
  );
  assert.equal(
    code(() => secure(served, clientContext(), { serverName: "a b" })),
    "tls-invalid",
  );
  assert.equal(
    code(() => secure(served, clientContext(), { serverName: "x".repeat(254) })),
    "tls-invalid",
  );
  const plain = loopback.connect();
  await until("connected", () => plain.opened);
  assert.equal(
    code(() => secure(plain, clientContext(), { session: Buffer.from("none") })),
    "tls-invalid",
  );
  peer.write("untouched");
  await until("the message", () => served.text === "untouched");
  served.close();
  loopback.engine.flush();
  assert.equal(
    code(() => secure(served, serverContext())),
    "nothing",
  );
  assert.equal(tlsOf(served), undefined);
});

test("options that cannot work are refused with OpenSSL's reason, and no secret", () => {
  const other = authority.identity({ name: "other" });
  const mixed = { chain: localhost.chain, key: other.key, names: ["mixed.example"] };
  const encrypted = execFileSync("openssl", ["pkey", "-aes128", "-passout", "pass:secret"], { input: localhost.key });
  for (const [options, reason] of [
    [{ certificates: [] }, /needs a certificate/],
    [{ certificates: [mixed] }, /key of certificate 1 \(mixed\.example\): .*key (values|type) mismatch/],
    [{ certificates: [{ ...localhost, chain: "nonsense", names: [] }] }, /certificate 1 \(no name\): no start line/],
    [{ certificates: [{ ...localhost, key: "nonsense", names: [] }] }, /key of certificate 1 \(no name\): /],
    [{ certificates: [{ ...localhost, key: String(encrypted), names: [] }] }, /key of certificate 1/],
    [
      { certificates: [{ ...localhost, chain: `${localhost.chain}${localhost.chain.slice(0, 200)}`, names: [] }] },
      /certificate 1/,
    ],
    [{ ciphers: "NONSENSE" }, /ciphers "NONSENSE": no cipher match/],
    [{ ciphersuites: "NONSENSE" }, /ciphersuites "NONSENSE": /],
    [{ verify: "required" as const }, /no ca says/],
    [{ verify: "required" as const, ca: "nonsense" }, /ca: it holds no certificate/],
    [{ alpn: [""] }, /alpn: "" has 0 bytes/],
    [{ alpn: ["x".repeat(256)] }, /has 256 bytes; allowed: 1 to 255/],
  ] as const) {
    assert.throws(
      () => serverContext(options),
      (error: HeadraceError) => {
        assert.equal(error.code, "tls-invalid");
        assert.match(error.message, reason);
        assert.ok(!/PRIVATE|[A-WYZa-wyz0-9+/]{40}/.test(error.message), error.message);
        return true;
      },
    );
  }
  assert.throws(() => tlsAddon().tickets(-1), { code: "tls-invalid" });
});

test("a thousand handshakes that fail, and the engine holds nothing of them", async (t) => {
  const loopback = openLoopback(t, { slots: 64 });
  const context = serverContext();
  loopback.on = (self) => ({ onOpen: () => secure(self, context), onError: () => self.close(0) });
  for (let round = 0; round < 50; round++) {
    const peers = await Promise.all(Array.from({ length: 20 }, () => openPeer(t, loopback.port)));
    for (const peer of peers) peer.write("garbage, garbage, garbage");
    await until("their ends", () => peers.every((peer) => peer.ended || peer.closed));
    for (const peer of peers) peer.socket.destroy();
    await until("the slots", () => loopback.engine.open === 0);
  }
  const peer = await openSecurePeer(t, loopback.port);
  assert.ok(peer.socket.authorized);
});

test("the key log is written only where it is asked for", async (t) => {
  const { openSync, closeSync, readFileSync } = await import("node:fs");
  const { makeFolder } = await import("../support/folder.js");
  const path = `${makeFolder(t)}/keys`;
  const fd = openSync(path, "a");
  t.after(() => closeSync(fd));
  const loopback = openSecure(t, serverContext({ keyLogFd: fd }));
  const logged: string[] = [];
  const peer = beginPeer(t, loopback.port);
  peer.socket.on("keylog", (line: Buffer) => logged.push(String(line)));
  await secured(await loopback.nth(0));
  await until("the client's handshake", () => peer.socket.authorized);
  const written = readFileSync(path, "latin1");
  assert.match(written, /^(CLIENT|SERVER)_HANDSHAKE_TRAFFIC_SECRET [0-9a-f]{64} [0-9a-f]+\n/m);
  for (const line of logged.filter((each) => each.startsWith("CLIENT_TRAFFIC"))) assert.ok(written.includes(line));
});
