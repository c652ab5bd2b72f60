import assert from "node:assert/strict";
import { isIPv6, SocketAddress } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { type ProxyHeader, type ProxyRead, readProxyHeader } from "#src/codec/proxy-header.js";
import {
  ENDS,
  type Ends,
  packHost,
  packValues,
  V2_SIGNATURE,
  v1,
  v2,
  v2Local,
  v2Raw,
} from "../support/proxy-headers.js";

const MOST = 1024;

/** As a connection is read: in a larger memory, with other bytes around. */
function read(bytes: Uint8Array, most: number = MOST): ProxyRead {
  const around = Buffer.from("PROXY \r\n");
  const memory = Buffer.concat([around, bytes, around]);
  const before = Buffer.from(memory);
  const result = readProxyHeader(memory, around.length, around.length + bytes.length, most);
  assert.deepEqual(memory, before);
  return result;
}

function header(bytes: Uint8Array, most?: number): ProxyHeader {
  const result = read(bytes, most);
  assert.ok(typeof result === "object" && "bytes" in result, JSON.stringify(result));
  return result;
}

function problem(bytes: Uint8Array, most?: number): string {
  const result = read(bytes, most);
  return typeof result === "object" && "problem" in result ? result.problem : `no fault: ${JSON.stringify(result)}`;
}

/** What one gets byte by byte, and with how many. */
function stepwise(bytes: Uint8Array): { readonly result: ProxyRead; readonly given: number } {
  for (let given = 1; given <= bytes.length; given++) {
    const result = read(bytes.subarray(0, given));
    if (result !== "more") return { result, given };
  }
  return { result: "more", given: bytes.length };
}

const port = fc.nat({ max: 65_535 });
const v4 = fc.ipV4();
const v6 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => {
  const groups = Array.from({ length: 8 }, (_, i) =>
    (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16),
  );
  return new SocketAddress({ address: groups.join(":"), family: "ipv6" }).address;
});
const ends: fc.Arbitrary<Ends> = fc
  .constantFrom(v4, v6)
  .chain((host) => fc.record({ source: host, destination: host, sourcePort: port, destinationPort: port }));
const value = fc.record(
  {
    type: fc.constantFrom(1, 2, 5, 0x20, 0x30, 0xe0),
    value: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  },
  { noNullPrototype: true },
);
const tail = fc.uint8Array({ maxLength: 40 });

test("both versions: what was written is read, the client's bytes behind it are left", () => {
  fc.assert(
    fc.property(ends, fc.array(value, { maxLength: 6 }), fc.boolean(), tail, (given, values, checksum, rest) => {
      for (const bytes of [v1(given), v2(given, values, checksum)]) {
        const version = bytes[0] === 0x50 ? 1 : 2;
        const found = header(Buffer.concat([bytes, rest]));
        assert.equal(found.bytes, bytes.length);
        assert.deepEqual(found.client, { host: given.source, port: given.sourcePort });
        assert.deepEqual(found.info.destination, { host: given.destination, port: given.destinationPort });
        assert.equal(found.info.version, version);
        assert.equal(found.info.local, false);
        const kept = found.info.tlvs.filter(({ type }) => type !== 3);
        assert.deepEqual(kept, version === 1 ? [] : values);
      }
    }),
  );
});

const mutated = fc
  .tuple(ends, fc.array(value, { maxLength: 3 }), fc.boolean(), fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 }))))
  .map(([given, values, first, changes]) => {
    const bytes = first ? v1(given) : v2(given, values, true);
    for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
    return bytes;
  });
const started = fc
  .tuple(fc.constantFrom(V2_SIGNATURE, Buffer.from("PROXY "), Buffer.from("PROXY TCP4 "), v2()), fc.uint8Array())
  .map((parts) => Buffer.concat(parts));

test("whatever comes, split however: the same answer, no throw, and never more held than the limit", () => {
  fc.assert(
    fc.property(fc.oneof(mutated, started, fc.uint8Array({ maxLength: 300 })), tail, (bytes, rest) => {
      const all = Buffer.concat([bytes, rest]);
      const whole = read(all);
      const { result, given } = stepwise(all);
      assert.deepEqual(result, whole);
      if (result === "more") assert.ok(given < MOST);
      else assert.ok(given <= MOST);
    }),
    { numRuns: 2_000 },
  );
});

test("absent is said with the first byte that fits neither version", () => {
  for (const [text, given] of [
    ["G", 1],
    ["\0", 1],
    ["PROXX", 5],
    ["PROXY\t", 6],
    ["\r\n\r\n\0\r\nQUIT\r", 12],
  ] as const) {
    assert.deepEqual(stepwise(Buffer.from(`${text}${"x".repeat(200)}`, "latin1")), { result: "absent", given });
  }
  assert.equal(read(Buffer.alloc(0)), "more");
});

// ---- version 1 ----

test("version 1: UNKNOWN, with or without what is to be ignored", () => {
  for (const text of ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 \xff 65535 x\r\n"]) {
    const found = header(Buffer.from(text, "latin1"));
    assert.equal(found.bytes, text.length);
    assert.equal(found.client, undefined);
    assert.deepEqual(found.info, { version: 1, local: true, tlvs: [] });
  }
});

test("version 1: the longest line has 107 bytes, and nobody waits for more", () => {
  const address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
  const longest = Buffer.from(`PROXY UNKNOWN ${address} ${address} 65535 65535\r\n`);
  assert.equal(longest.length, 107);
  assert.equal(header(longest).bytes, 107);
  const endless = Buffer.from(`PROXY UNKNOWN ${"x".repeat(300)}\r\n`);
  assert.deepEqual(stepwise(endless), { result: { problem: "no line end within 107 bytes" }, given: 107 });
  // Its line end is there, but a byte too late.
  assert.match(problem(Buffer.from(`PROXY UNKNOWN ${"x".repeat(92)}\r\n`)), /107/);
});

for (const line of [
  "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
  "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 1e3 2\r\n",
  "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
  "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
  "PROXY TCP4 ::1 ::2 1 2\r\n",
  "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
  "PROXY TCP6 ::g ::2 1 2\r\n",
  "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY UNKNOWNS\r\n",
  "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
  "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
  "PROXY TCP4 1.2.3.4\n5.6.7.8 1 2\r\n",
  "PROXY \r\n",
]) {
  test(`version 1: ${JSON.stringify(line)} is refused`, () => {
    assert.equal(problem(Buffer.from(line)), "a line that is none of version 1");
  });
}

// ---- version 2 ----

test("version 2: LOCAL, whatever else it says", () => {
  for (const bytes of [
    v2Local(),
    v2Local(Buffer.alloc(12, 9), 0x11),
    v2Local(Buffer.alloc(5, 0xff), 0x11),
    v2Local(Buffer.alloc(7, 0xff), 0x77),
  ]) {
    const found = header(bytes);
    assert.equal(found.bytes, bytes.length);
    assert.equal(found.client, undefined);
    assert.deepEqual(found.info, { version: 2, local: true, tlvs: [] });
  }
  const tagged = v2Local(packValues([{ type: 5, value: Buffer.from("check-1") }]));
  assert.deepEqual(header(tagged).info.tlvs, [{ type: 5, value: Buffer.from("check-1") }]);
});

test("version 2: a client of unknown family is none", () => {
  assert.deepEqual(header(v2Raw(0x21, 0, Buffer.alloc(30, 0xff))).info, { version: 2, local: true, tlvs: [] });
});

test("version 2: unix sockets", () => {
  const paths = Buffer.alloc(216);
  paths.write("/run/a.sock", 0);
  paths.fill("b", 108);
  const found = header(v2Raw(0x21, 0x31, Buffer.concat([paths, packValues([{ type: 5, value: Buffer.from("id") }])])));
  assert.equal(found.client, undefined);
  assert.deepEqual(found.info.unix, { source: "/run/a.sock", destination: "b".repeat(108) });
  assert.equal(found.info.local, false);
  assert.equal(found.info.destination, undefined);
  assert.equal(found.info.tlvs[0]?.value.toString(), "id");
});

test("version 2: an IPv4-mapped address is the IPv4 address", () => {
  const ports = Buffer.from([0, 1, 0, 2]);
  const mapped = Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff, 192, 0, 2, 33])]);
  const { client, info } = header(v2Raw(0x21, 0x21, Buffer.concat([mapped, mapped, ports])));
  assert.deepEqual(
    [client, info.destination],
    [
      { host: "192.0.2.33", port: 1 },
      { host: "192.0.2.33", port: 2 },
    ],
  );
});

test("version 2: IPv6 addresses are written as the system writes them", () => {
  for (const host of [
    "::",
    "::1",
    "1::",
    "2001:db8::1",
    "1:0:0:2::3",
    "0:1:2:3:4:5:6:7",
    "1:0:2:0:3:0:4:0",
    "::2:0:0:3",
  ]) {
    assert.ok(isIPv6(host));
    const { client } = header(v2({ ...ENDS, source: host, destination: host }));
    assert.equal(client?.host, new SocketAddress({ address: host, family: "ipv6" }).address);
  }
});

test("version 2: padding is dropped, values are copies", () => {
  const values = [
    { type: 4, value: Buffer.alloc(9) },
    { type: 2, value: Buffer.from("example.org") },
    { type: 4, value: Buffer.alloc(0) },
  ];
  const bytes = v2(ENDS, values);
  const [tlv, ...more] = header(bytes).info.tlvs;
  bytes.fill(0);
  assert.deepEqual(more, []);
  assert.deepEqual(tlv, { type: 2, value: Buffer.from("example.org") });
});

test("version 2: a checksum must be right, wherever one byte is another", () => {
  const bytes = v2(ENDS, [{ type: 5, value: Buffer.from("request-17") }], true);
  assert.equal(header(bytes).info.tlvs.length, 2);
  // All but its own type: without one there is no checksum to be wrong.
  const typeAt = bytes.length - 7;
  for (let at = 16; at < bytes.length; at++) {
    if (at === typeAt) continue;
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    assert.match(problem(changed), /its (checksum|list of values) is wrong/, `byte ${at}`);
  }
  const local = Buffer.from(v2Local(packValues([{ type: 3, value: Buffer.alloc(4, 1) }])));
  assert.equal(problem(local), "its checksum is wrong");
});

for (const [what, bytes, said] of [
  ["another version", v2Raw(0x11, 0x11, Buffer.alloc(12)), "version and command 0x11"],
  ["an unknown command", v2Raw(0x22, 0x11, Buffer.alloc(12)), "version and command 0x22"],
  ["an unknown family", v2Raw(0x21, 0x41, Buffer.alloc(12)), "family and transport 0x41"],
  ["an unknown transport", v2Raw(0x21, 0x13, Buffer.alloc(12)), "family and transport 0x13"],
  ["a family without a transport", v2Raw(0x21, 0x10, Buffer.alloc(12)), "family and transport 0x10"],
  ["IPv4 that is too short", v2Raw(0x21, 0x11, Buffer.alloc(11)), "too short for its addresses"],
  ["IPv6 that is too short", v2Raw(0x21, 0x21, Buffer.alloc(35)), "too short for its addresses"],
  ["unix that is too short", v2Raw(0x21, 0x31, Buffer.alloc(215)), "too short for its addresses"],
  [
    "a value beyond the end",
    v2(ENDS, []).length > 0 && v2Raw(0x21, 0x11, Buffer.alloc(15, 1)),
    "its list of values is wrong",
  ],
  ["half a value's head", v2Raw(0x21, 0x11, Buffer.alloc(14)), "its list of values is wrong"],
  ["a short checksum", v2(ENDS, [{ type: 3, value: Buffer.alloc(3) }]), "its checksum is wrong"],
  ["two checksums", v2(ENDS, [{ type: 3, value: Buffer.alloc(4) }], true), "its checksum is wrong"],
] as const) {
  test(`version 2: ${what} is refused`, () => assert.equal(problem(bytes as Buffer), said));
}

test("version 2: one that is too long is refused by its 16th byte", () => {
  const bytes = v2Raw(0x21, 0x11, Buffer.alloc(MOST - 15));
  const said = { problem: `${MOST + 1} bytes; allowed: at most ${MOST} (limits.proxyHeader)` };
  assert.deepEqual(stepwise(bytes), { result: said, given: 16 });
  const largest = v2(ENDS, [{ type: 0xe0, value: Buffer.alloc(MOST - 16 - 12 - 3) }]);
  assert.equal(header(largest).bytes, MOST);
  assert.equal(packHost("::1").length, 16);
});
