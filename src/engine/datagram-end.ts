/**
 * The other end of a datagram between text and the words that stand for it in the arenas (END of layout.ts). Little-endian,
 * as both machines that Node runs on here are.
 */
import { HeadraceError } from "../base/errors.ts";
import { parseCidr } from "../config/cidr.ts";
import { canonicalHost } from "../config/conflicts.ts";
import { END, SOURCE_NONE } from "./layout.ts";

const ADDRESS_BYTES = 16;
const MAPPED_WORD = 0xffff_0000 | 0;
const WORD_MASK = 0xffff_ffffn;
const MOST_PORT = 65_535;

function isMapped(words: Int32Array, at: number): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED_WORD;
}

/** The address in the words from `at` on, as text; an IPv4-mapped one is IPv4. */
export function hostOfEnd(words: Int32Array, at: number): string {
  const bytes = Buffer.from(words.buffer, words.byteOffset + at * words.BYTES_PER_ELEMENT, ADDRESS_BYTES);
  if (isMapped(words, at)) return bytes.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  const scope = words[at + END.scope] as number;
  return canonicalHost(groups.join(":")) + (scope === 0 ? "" : `%${scope}`);
}

/** The words of an address. Throws `address-unavailable` for what is none. */
export function endWords(host: string, port: number, listener: number): Int32Array {
  const range = typeof host === "string" && !host.includes("/") ? parseCidr(host) : "";
  const fits = Number.isInteger(port) && port >= 1 && port <= MOST_PORT;
  if (typeof range === "string" || !fits) {
    const given = `${host} ${port}`;
    const allowed = `an IP address and a port from 1 to ${MOST_PORT}`;
    throw new HeadraceError("address-unavailable", `${given} is not where a datagram can go; allowed: ${allowed}`, {
      given,
      allowed,
    });
  }
  const words = new Int32Array(END.words);
  const bytes = Buffer.from(words.buffer);
  for (let word = 0; word < 4; word++) {
    bytes.writeUInt32BE(Number((range.from >> BigInt(32 * (3 - word))) & WORD_MASK), word * 4);
  }
  words[END.port] = port | (listener << 16);
  words[END.source] = SOURCE_NONE;
  return words;
}
