/** Sessions across engines that share ticket keys, while the keys change, and across what may not share them. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { addon } from "#src/os/addon.js";
import { check } from "#src/os/errno.js";
import { type TicketMemory, tlsAddon } from "#src/os/tls-addon.js";
import { type Identity, passingAuthority } from "../support/authority.js";
import { authority, beginPeer, openSecure, openSecurePeer, secured, serverContext, tlsOf } from "../support/secured.js";
import { until } from "../support/until.js";

const SIZE = 4_096;
const KEY_BYTES = 88;

/** Keys as src/os/ticket-keys.ts lays them out, written by hand. */
class Keys {
  readonly fd: number;
  readonly memory: Buffer;

  constructor(t: TestContext, count = 1) {
    this.fd = check(addon().memoryCreate("tickets", SIZE), "memory");
    t.after(() => addon().fdClose(this.fd));
    this.memory = Buffer.from(addon().memoryMap(this.fd, SIZE, 0));
    this.memory.writeUInt32LE(0x4b54_5248, 0);
    this.memory.writeUInt32LE(1, 4);
    this.write(Array.from({ length: count }, () => randomBytes(KEY_BYTES)));
  }

  get keys(): Buffer[] {
    const count = this.memory.readUInt32LE(12);
    return Array.from({ length: count }, (_, at) =>
      Buffer.from(this.memory.subarray(16 + at * KEY_BYTES, 16 + (at + 1) * KEY_BYTES)),
    );
  }

  write(keys: readonly Buffer[]): void {
    this.step();
    this.memory.writeUInt32LE(keys.length, 12);
    Buffer.concat(keys).copy(this.memory, 16);
    this.step();
  }

  /** Odd: being written. */
  step(): void {
    this.memory.writeUInt32LE(this.memory.readUInt32LE(8) + 1, 8);
  }

  rotate(): void {
    this.write([randomBytes(KEY_BYTES), ...this.keys].slice(0, 3));
  }

  map(): TicketMemory {
    return tlsAddon().tickets(this.fd);
  }
}

type Version = "TLSv1.2" | "TLSv1.3";

/** A client that keeps its session, and says of each connection whether it was resumed on both sides. */
class Returning {
  readonly #t: TestContext;
  readonly #version: Version;
  readonly #identity: { cert: string; key: string } | undefined;
  session: Buffer | undefined;
  /** What was wrong with its certificate at the last visit. */
  problem: string | undefined;

  constructor(t: TestContext, version: Version, identity?: Identity) {
    this.#t = t;
    this.#version = version;
    this.#identity = identity && { cert: identity.chain, key: identity.key };
  }

  async visit(tickets: TicketMemory | undefined, options: Parameters<typeof serverContext>[0] = {}): Promise<boolean> {
    const server = openSecure(this.#t, serverContext({ ...(tickets ? { tickets } : {}), ...options }));
    const peer = beginPeer(this.#t, server.port, {
      maxVersion: this.#version,
      ...this.#identity,
      ...(this.session ? { session: this.session } : {}),
    });
    peer.socket.on("session", (session: Buffer) => {
      this.session = session;
    });
    const served = await server.nth(0);
    await secured(served);
    // A ticket comes before the first byte.
    served.send("hello");
    await peer.receives(5);
    // In TLS 1.2 a ticket that is renewed is no event.
    if (this.#version === "TLSv1.2") this.session = peer.socket.getSession();
    await until("a session", () => this.session);
    const resumed = tlsOf(served)?.resumed ?? false;
    this.problem = tlsOf(served)?.verifyError;
    assert.equal(peer.socket.isSessionReused(), resumed);
    return resumed;
  }
}

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${version}: another engine with another context resumes by the same keys`, async (t) => {
    const keys = new Keys(t);
    const client = new Returning(t, version);
    assert.equal(await client.visit(keys.map()), false);
    assert.equal(await client.visit(keys.map()), true);
    assert.equal(await client.visit(new Keys(t).map()), false);
  });

  test(`${version}: a key that encrypts no more still decrypts, and one that is gone costs a full handshake`, async (t) => {
    const keys = new Keys(t);
    const client = new Returning(t, version);
    const map = keys.map();
    await client.visit(map);
    const session = client.session;
    keys.rotate();
    assert.equal(await client.visit(map), true);
    client.session = session;
    keys.rotate();
    assert.equal(await client.visit(map), true);
    client.session = session;
    keys.rotate();
    assert.equal(await client.visit(map), false);
  });

  test(`${version}: a client whose certificate has expired since is looked at anew`, async (t) => {
    const map = new Keys(t).map();
    const end = new Date(1_000 * Math.ceil(Date.now() / 1_000 + 2));
    const client = new Returning(t, version, authority.identity({ name: "device 9", end }));
    const rules = { verify: "optional", ca: authority.text } as const;
    assert.equal(await client.visit(map, rules), false);
    assert.equal(await client.visit(map, rules), true);
    assert.equal(client.problem, undefined);
    // OpenSSL counts in whole seconds, by a clock that lags behind a little.
    await until("its certificate has expired", () => Date.now() > end.getTime() + 1_100);
    assert.equal(await client.visit(map, rules), false);
    assert.equal(client.problem, "certificate has expired");
  });
}

test("whoever comes with an old key gets a ticket of the new one", async (t) => {
  const keys = new Keys(t);
  const client = new Returning(t, "TLSv1.2");
  await client.visit(keys.map());
  keys.rotate();
  assert.equal(await client.visit(keys.map()), true);
  keys.rotate();
  keys.rotate();
  assert.equal(await client.visit(keys.map()), true, "renewed by the second visit");
});

test("while the keys are written, the last whole ones are used", async (t) => {
  const keys = new Keys(t);
  const client = new Returning(t, "TLSv1.3");
  const map = keys.map();
  await client.visit(map);
  keys.step();
  keys.memory.fill(0xff, 16, 16 + 3 * KEY_BYTES);
  assert.equal(await client.visit(map), true);
  keys.step();
  assert.equal(await client.visit(map), false);
});

test("memory that holds no keys, or another version's, is refused", (t) => {
  const refused = (spoil: (keys: Keys) => void): void => {
    const keys = new Keys(t);
    spoil(keys);
    assert.throws(() => keys.map(), { code: "tls-invalid", message: /no ticket keys of this version/ });
  };
  refused((keys) => keys.memory.writeUInt32LE(0, 0));
  refused((keys) => keys.memory.writeUInt32LE(2, 4));
  refused((keys) => keys.memory.writeUInt32LE(0, 12));
  refused((keys) => keys.memory.writeUInt32LE(4, 12));
  refused((keys) => keys.step());
  const small = check(addon().memoryCreate("small", 100), "memory");
  t.after(() => addon().fdClose(small));
  assert.throws(() => tlsAddon().tickets(small), { code: "tls-invalid" });
});

test("without shared keys sessions are the context's own", async (t) => {
  const client = new Returning(t, "TLSv1.3");
  const context = serverContext();
  const server = openSecure(t, context);
  const visit = async (): Promise<boolean> => {
    const peer = await openSecurePeer(t, server.port, client.session ? { session: client.session } : {});
    peer.socket.on("session", (session: Buffer) => {
      client.session = session;
    });
    await until("a session", () => client.session);
    return peer.socket.isSessionReused();
  };
  assert.equal(await visit(), false);
  assert.equal(await visit(), true);
  assert.equal(await client.visit(undefined), false);
});

test("a session is not taken up where another name, verification, authority, cipher or version holds", async (t) => {
  const keys = new Keys(t);
  const { text: certificate } = authority;
  const other = passingAuthority("another").text;
  const ciphers = { ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384" } as const;
  const ciphersuites = { ciphersuites: "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256" } as const;
  const base = { sessionIdContext: "a", verify: "optional", ca: certificate, ...ciphers, ...ciphersuites } as const;
  for (const [changed, version = "TLSv1.3"] of [
    [{ sessionIdContext: "b" }],
    [{ verify: "none" }],
    [{ ca: other }],
    [{ ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384" }, "TLSv1.2"],
    [{ ciphersuites: "TLS_AES_128_GCM_SHA256" }],
    [{ minVersion: "TLSv1.3" }],
  ] as const) {
    const client = new Returning(t, version);
    assert.equal(await client.visit(keys.map(), base), false);
    assert.equal(await client.visit(keys.map(), base), true);
    assert.equal(await client.visit(keys.map(), { ...base, ...changed }), false, JSON.stringify(Object.keys(changed)));
  }
});
