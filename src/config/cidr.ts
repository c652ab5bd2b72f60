/**
 * CIDR blocks: read, and made into the ascending ranges that the engine searches (native/cidr.h). Pure. Addresses are
 * 128-bit numbers, an IPv4 address in its IPv4-mapped form (::ffff:1.2.3.4), so that it is the same client on an IPv4
 * and on an IPv6 listener. An IPv6 block never holds IPv4 clients, unless it is written in that form itself.
 */
import { isIPv4, isIPv6 } from "node:net";
import type { Admission } from "../base/settings.ts";
import { canonicalHost } from "./conflicts.ts";

/** Blocks of one list. */
export const CIDRS_MAX = 10_000;

/** First and last address. */
export interface Range {
  readonly from: bigint;
  readonly to: bigint;
}

const BITS = 128;
const V4_BITS = 32;
const LAST: bigint = (1n << BigInt(BITS)) - 1n;
const MAPPED: Range = { from: 0xffff_0000_0000n, to: 0xffff_ffff_ffffn };

function readV4(host: string): bigint {
  return host.split(".").reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

/** `host` is valid, without a zone. */
function readV6(host: string): bigint {
  const [head = "", rest] = canonicalHost(host).split("::");
  const groups = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const [before, after] = [groups(head), groups(rest ?? "")];
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  return [...before, ...zeros, ...after].reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** The block, or what is wrong with it. An address alone is a block of one. */
export function parseCidr(text: string): Range | string {
  const [host = "", length, ...more] = text.split("/");
  const v4 = isIPv4(host);
  if (!v4 && (!isIPv6(host) || host.includes("%"))) return "no IP address";
  const most = v4 ? V4_BITS : BITS;
  if (more.length > 0 || (length !== undefined && !(/^\d{1,3}$/.test(length) && Number(length) <= most))) {
    return `the length of its prefix is 0 to ${most}`;
  }
  const free = BigInt(most - Number(length ?? most));
  const address = v4 ? MAPPED.from | readV4(host) : readV6(host);
  const mask = (1n << free) - 1n;
  if ((address & mask) !== 0n) return "its address has bits beyond the prefix";
  return { from: address, to: address | mask };
}

/** Disjoint and ascending. */
function rangesOf(blocks: readonly string[]): Range[] {
  const ranges = blocks.flatMap((block): Range[] => {
    const range = parseCidr(block);
    if (typeof range === "string") throw new RangeError(`${block}: ${range}`);
    // Around the IPv4 clients.
    if (range.from >= MAPPED.from || range.to <= MAPPED.to) return [range];
    return [
      { from: range.from, to: MAPPED.from - 1n },
      { from: MAPPED.to + 1n, to: range.to },
    ];
  });
  const merged: { from: bigint; to: bigint }[] = [];
  for (const { from, to } of ranges.sort((a, b) => (a.from < b.from ? -1 : Number(a.from > b.from)))) {
    const last = merged.at(-1);
    if (last && from <= last.to + 1n) last.to = to > last.to ? to : last.to;
    else merged.push({ from, to });
  }
  return merged;
}

/** Addresses at which a list begins or ceases to hold: `true` where it begins. */
function edgesOf(ranges: readonly Range[]): Map<bigint, boolean> {
  return new Map(
    ranges.flatMap(({ from, to }): [bigint, boolean][] => [
      [from, true],
      [to + 1n, false],
    ]),
  );
}

/**
 * Where newcomers begin to be denied, or cease to be; the first range begins at 0. Who comes has to pass all of
 * `admissions`: to be in `allow`, if that is not empty, and not in `deny`. Empty when everybody may come.
 */
export function deniedRanges(admissions: readonly Admission[]): { readonly from: bigint; readonly denied: boolean }[] {
  const lists = admissions.flatMap(({ allow, deny }) => [
    ...(allow.length > 0 ? [{ edges: edgesOf(rangesOf(allow)), deniesInside: false, inside: false }] : []),
    ...(deny.length > 0 ? [{ edges: edgesOf(rangesOf(deny)), deniesInside: true, inside: false }] : []),
  ]);
  if (lists.length === 0) return [];
  const points = new Set([0n, ...lists.flatMap(({ edges }) => [...edges.keys()])]);
  const found: { from: bigint; denied: boolean }[] = [];
  for (const from of [...points].filter((point) => point <= LAST).sort((a, b) => (a < b ? -1 : 1))) {
    for (const list of lists) list.inside = list.edges.get(from) ?? list.inside;
    const denied = lists.some(({ inside, deniesInside }) => inside === deniesInside);
    if (found.at(-1)?.denied !== denied) found.push({ from, denied });
  }
  return found;
}

/** The same as the engine takes it: 16 bytes for each start, and a byte that is 1 where it denies. */
export function packRanges(admissions: readonly Admission[]): {
  readonly starts: Uint8Array;
  readonly denied: Uint8Array;
} {
  const ranges = deniedRanges(admissions);
  const starts = Buffer.alloc(ranges.length * 16);
  for (const [index, { from }] of ranges.entries()) {
    starts.writeBigUInt64BE(from >> 64n, index * 16);
    starts.writeBigUInt64BE(from & 0xffff_ffff_ffff_ffffn, index * 16 + 8);
  }
  return { starts, denied: Uint8Array.from(ranges, ({ denied }) => (denied ? 1 : 0)) };
}

/** A set of addresses, for asking about one after the other. */
export class AddressSet {
  readonly #ranges: readonly Range[];
  #lastHost = "";
  #lastAnswer = false;

  /** `blocks` are valid. */
  constructor(blocks: readonly string[]) {
    this.#ranges = rangesOf(blocks);
  }

  /** Whether it holds an IP address; what is none, it does not hold. */
  has(host: string): boolean {
    // Mostly it is the same few proxies that connect.
    if (host === this.#lastHost) return this.#lastAnswer;
    const address = parseCidr(host);
    this.#lastAnswer = typeof address !== "string" && !host.includes("/") && this.#find(address.from);
    this.#lastHost = host;
    return this.#lastAnswer;
  }

  #find(address: bigint): boolean {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle] as Range).to < address) low = middle + 1;
      else high = middle;
    }
    return (this.#ranges[low]?.from ?? address + 1n) <= address;
  }
}
