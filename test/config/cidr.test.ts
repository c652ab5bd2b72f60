import assert from "node:assert/strict";
import { BlockList } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import type { Admission } from "#src/base/settings.js";
import { AddressSet, deniedRanges, packRanges, parseCidr } from "#src/config/cidr.js";

const MAPPED = 0xffffn << 32n;

test("blocks and addresses are read, IPv4 in its IPv4-mapped form", () => {
  const cases: [string, bigint, bigint][] = [
    ["10.0.0.0/8", MAPPED | 0x0a000000n, MAPPED | 0x0affffffn],
    ["1.2.3.4", MAPPED | 0x01020304n, MAPPED | 0x01020304n],
    ["0.0.0.0/0", MAPPED, MAPPED | 0xffffffffn],
    ["::/0", 0n, (1n << 128n) - 1n],
    ["2001:db8::/32", 0x20010db8n << 96n, (0x20010db9n << 96n) - 1n],
    ["::1", 1n, 1n],
    ["1:2:3:4:5:6:7:8/128", 0x00010002000300040005000600070008n, 0x00010002000300040005000600070008n],
    ["::ffff:10.1.0.0/112", MAPPED | 0x0a010000n, MAPPED | 0x0a01ffffn],
  ];
  for (const [text, from, to] of cases) assert.deepEqual(parseCidr(text), { from, to }, text);
});

test("what is no block is told why", () => {
  const none = "no IP address";
  const v4 = "the length of its prefix is 0 to 32";
  const v6 = "the length of its prefix is 0 to 128";
  const bits = "its address has bits beyond the prefix";
  const cases: Record<string, string> = {
    "": none,
    localhost: none,
    "1.2.3": none,
    "fe80::1%eth0": none,
    "1.2.3.4/33": v4,
    "1.2.3.4/": v4,
    "1.2.3.4/8/8": v4,
    "1.2.3.4/-1": v4,
    "::/129": v6,
    "10.0.0.1/8": bits,
    "2001:db8::1/64": bits,
  };
  for (const [text, problem] of Object.entries(cases)) assert.equal(parseCidr(text), problem, text);
});

/** By the ranges, as the engine looks them up. */
function denies(admissions: readonly Admission[], address: bigint): boolean {
  return deniedRanges(admissions).findLast(({ from }) => from <= address)?.denied ?? false;
}

const addressOf = (text: string): bigint => (parseCidr(text) as { from: bigint }).from;

test("allow, deny, both, and those of two places: who comes has to pass all", () => {
  const cases: [Admission[], string[], string[]][] = [
    [[{ allow: [], deny: [] }], ["1.2.3.4", "::1"], []],
    [[{ allow: [], deny: ["10.0.0.0/8"] }], ["9.255.255.255", "11.0.0.0", "::"], ["10.0.0.0", "10.255.255.255"]],
    [[{ allow: ["10.0.0.0/8"], deny: ["10.1.0.0/16"] }], ["10.0.9.9", "10.2.0.0"], ["10.1.2.3", "11.0.0.0", "::1"]],
    [[{ allow: ["10.0.0.0/9", "10.128.0.0/9"], deny: [] }], ["10.127.255.255", "10.128.0.0"], ["9.0.0.0"]],
    [
      [
        { allow: ["10.0.0.0/8"], deny: [] },
        { allow: ["10.1.0.0/16"], deny: ["10.1.1.1"] },
      ],
      ["10.1.0.1"],
      ["10.1.1.1", "10.2.0.0", "8.8.8.8"],
    ],
    // An IPv6 block is not about IPv4 clients.
    [[{ allow: ["::/0"], deny: [] }], ["::1", "2001::"], ["1.2.3.4"]],
    [[{ allow: [], deny: ["::/0"] }], ["1.2.3.4"], ["::1", "ffff::"]],
    [[{ allow: [], deny: ["::/0", "0.0.0.0/0"] }], [], ["1.2.3.4", "::1"]],
  ];
  for (const [admissions, let_in, turned_away] of cases) {
    for (const host of let_in) assert.equal(denies(admissions, addressOf(host)), false, host);
    for (const host of turned_away) assert.equal(denies(admissions, addressOf(host)), true, host);
  }
});

test("any lists of IPv4 blocks: the same as node:net's BlockList says of each list", () => {
  const octet = fc.nat(255);
  const block = fc.tuple(octet, octet, fc.integer({ min: 8, max: 16 })).map(([a, b, length]) => {
    const kept = ((a << 8) | b) & (0xffff << (16 - length));
    return { host: `${kept >> 8}.${kept & 255}.0.0`, length };
  });
  const blocks = fc.array(block, { maxLength: 6 });
  fc.assert(
    fc.property(blocks, blocks, fc.array(fc.tuple(octet, octet), { maxLength: 20 }), (allow, deny, hosts) => {
      const text = (list: typeof allow): string[] => list.map(({ host, length }) => `${host}/${length}`);
      const [allowed, denied] = [allow, deny].map((list) => {
        const made = new BlockList();
        for (const { host, length } of list) made.addSubnet(host, length);
        return made;
      });
      for (const [a, b] of hosts) {
        const host = `${a}.${b}.7.7`;
        const expected = (allow.length > 0 && !allowed?.check(host)) || denied?.check(host) === true;
        assert.equal(denies([{ allow: text(allow), deny: text(deny) }], addressOf(host)), expected, host);
      }
    }),
  );
});

test("packed: 16 bytes a start, ascending from 0; nothing when everybody may come", () => {
  assert.equal(packRanges([{ allow: [], deny: [] }]).denied.length, 0);
  const { starts, denied } = packRanges([{ allow: [], deny: ["10.0.0.0/8"] }]);
  assert.deepEqual([...denied], [0, 1, 0]);
  assert.equal(
    Buffer.from(starts).toString("hex"),
    ["0".repeat(32), `${"0".repeat(20)}ffff0a000000`, `${"0".repeat(20)}ffff0b000000`].join(""),
  );
});

test("a set of addresses holds what one of its blocks holds", () => {
  const block = fc
    .tuple(fc.oneof(fc.ipV4(), fc.constantFrom("2001:db8::", "::1", "fe80::")), fc.nat({ max: 128 }))
    .map(([host, length]) => ({ host, length: Math.min(length, host.includes(":") ? 128 : 32) }));
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom("10.0.0.1", "2001:db8::7", "::ffff:10.0.0.1"));
  fc.assert(
    fc.property(fc.array(block, { maxLength: 6 }), fc.array(host, { minLength: 1, maxLength: 8 }), (blocks, hosts) => {
      const list = new BlockList();
      const texts: string[] = [];
      for (const { host: text, length } of blocks) {
        const bits = text.includes(":") ? 128 : 32;
        const { from } = parseCidr(text) as { from: bigint };
        if ((from & ((1n << BigInt(bits - length)) - 1n)) !== 0n) continue;
        texts.push(`${text}/${length}`);
        list.addSubnet(text, length, bits === 32 ? "ipv4" : "ipv6");
      }
      const set = new AddressSet(texts);
      for (const each of [...hosts, ...hosts]) {
        // Node has IPv4 clients in IPv6 blocks; here they are in none but their own.
        const mapped = each.startsWith("::ffff:") ? each.slice(7) : each;
        const family = mapped.includes(":") ? "ipv6" : "ipv4";
        if (family === "ipv4" && texts.some((text) => text.includes(":"))) continue;
        assert.equal(set.has(each), list.check(mapped, family), `${each} in ${texts}`);
      }
    }),
  );
});

test("what is no address is in no set", () => {
  const all = new AddressSet(["0.0.0.0/0", "::/0"]);
  for (const host of ["", "localhost", "10.0.0.0/8", "fe80::1%eth0", "1.2.3"]) assert.equal(all.has(host), false, host);
  assert.equal(all.has("10.0.0.0"), true);
  assert.equal(new AddressSet([]).has("10.0.0.0"), false);
});
