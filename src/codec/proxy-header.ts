/**
 * The PROXY protocol, versions 1 and 2 (HAProxy, doc/proxy-protocol.txt): what a proxy sends before its client's own
 * bytes. Pure: whoever reads the connection (src/connection/proxy-stage.ts) asks again with more bytes until there is an
 * answer. An answer depends on the first bytes alone, so it is the same however they were split, and a header that needs
 * more than `maxBytes` is refused before it is waited for.
 */
import { isIPv4, isIPv6 } from "node:net";
import { type ProxyTlv, readTlvs } from "./proxy-tlv.ts";

interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

/** What a proxy says in front of its client's bytes. */
export interface ProxyInfo {
  readonly version: 1 | 2;
  /**
   * The proxy speaks for itself, as in its health checks (LOCAL, or it names its own end of this connection), or does
   * not say for whom (UNKNOWN).
   */
  readonly local: boolean;
  /** What the client has connected to, where that is an IP address. */
  readonly destination?: HostAndPort;
  /** The same of a client that came over a unix socket; paths, "" where there is none. */
  readonly unix?: { readonly source: string; readonly destination: string };
  /** Of version 2, in their order; without padding (NOOP). */
  readonly tlvs: readonly ProxyTlv[];
}

export interface ProxyHeader {
  /** Its length. */
  readonly bytes: number;
  /** The client; undefined where none with an IP address is named. */
  readonly client: HostAndPort | undefined;
  readonly info: ProxyInfo;
}

/** A header that is none of the protocol. */
interface ProxyFault {
  readonly problem: string;
}

/** `more`: not all of it is here. `absent`: these bytes are no PROXY header, nor the beginning of one. */
export type ProxyRead = ProxyHeader | ProxyFault | "more" | "absent";

const V1_START: Buffer = Buffer.from("PROXY ");
/** With CRLF (section 2.1). */
const V1_BYTES_MAX = 107;
const V1_LINE = /^PROXY (TCP4|TCP6) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/;
const V1_UNKNOWN = /^PROXY UNKNOWN($| )/;
const CR = 0x0d;
const LF = 0x0a;

const V2_START: Buffer = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const V2_HEAD_BYTES = 16;
const LOCAL = 0x20;
const PROXY = 0x21;
const UNSPEC = 0x00;
/** Byte 14, family and transport: the values that there are (section 2.2), and the bytes of the two addresses. */
const FAMILIES: ReadonlyMap<number, { readonly kind: "none" | "v4" | "v6" | "unix"; readonly bytes: number }> = new Map(
  [
    [UNSPEC, { kind: "none", bytes: 0 }],
    [0x11, { kind: "v4", bytes: 12 }],
    [0x12, { kind: "v4", bytes: 12 }],
    [0x21, { kind: "v6", bytes: 36 }],
    [0x22, { kind: "v6", bytes: 36 }],
    [0x31, { kind: "unix", bytes: 216 }],
    [0x32, { kind: "unix", bytes: 216 }],
  ] as const,
);
const UNIX_PATH_BYTES = 108;
const PORT_MAX = 65_535;
const NO_TLVS: readonly ProxyTlv[] = [];

/**
 * Looks at the start of `bytes[from, to)`, never beyond, and keeps nothing of it. `maxBytes` bounds version 2; it is at
 * least V1_BYTES_MAX.
 */
export function readProxyHeader(bytes: Buffer, from: number, to: number, maxBytes: number): ProxyRead {
  if (from === to) return "more";
  if (startsLike(V2_START, bytes, from, to)) return readV2(bytes, from, to, maxBytes);
  return startsLike(V1_START, bytes, from, to) ? readV1(bytes, from, to) : "absent";
}

/** As far as there are bytes. */
function startsLike(start: Buffer, bytes: Buffer, from: number, to: number): boolean {
  const length = Math.min(start.length, to - from);
  for (let index = 0; index < length; index++) if (bytes[from + index] !== start[index]) return false;
  return true;
}

// ---- version 1: a line ----

function readV1(bytes: Buffer, from: number, to: number): ProxyRead {
  const end = endOfLine(bytes, from, Math.min(to, from + V1_BYTES_MAX));
  if (end < 0) return to - from < V1_BYTES_MAX ? "more" : { problem: `no line end within ${V1_BYTES_MAX} bytes` };
  const line = bytes.toString("latin1", from, end);
  const length = end + 2 - from;
  if (V1_UNKNOWN.test(line)) {
    return { bytes: length, client: undefined, info: { version: 1, local: true, tlvs: NO_TLVS } };
  }
  const [, family, host = "", toHost = "", port, toPort] = V1_LINE.exec(line) ?? [];
  const isHost = family === "TCP4" ? isIPv4 : isPlainIPv6;
  const [client, destination] = [
    { host, port: Number(port) },
    { host: toHost, port: Number(toPort) },
  ];
  if (!isHost(host) || !isHost(toHost) || client.port > PORT_MAX || destination.port > PORT_MAX) {
    return { problem: "a line that is none of version 1" };
  }
  return { bytes: length, client, info: { version: 1, local: false, destination, tlvs: NO_TLVS } };
}

/** Without a zone. */
function isPlainIPv6(host: string): boolean {
  return isIPv6(host) && !host.includes("%");
}

/** Of its CR, or -1. */
function endOfLine(bytes: Buffer, from: number, to: number): number {
  for (let at = from; at < to - 1; at++) if (bytes[at] === CR && bytes[at + 1] === LF) return at;
  return -1;
}

// ---- version 2: binary ----

function readV2(bytes: Buffer, from: number, to: number, maxBytes: number): ProxyRead {
  if (to - from < V2_HEAD_BYTES) return "more";
  const command = bytes[from + 12] as number;
  const length = V2_HEAD_BYTES + bytes.readUInt16BE(from + 14);
  const local = command === LOCAL;
  if (!local && command !== PROXY) return { problem: `version and command ${hex(command)}` };
  const familyByte = bytes[from + 13] as number;
  const family = FAMILIES.get(familyByte);
  if (!family && !local) return { problem: `family and transport ${hex(familyByte)}` };
  if (length > maxBytes) return { problem: `${length} bytes; allowed: at most ${maxBytes} (limits.proxyHeader)` };
  if (to - from < length) return "more";
  const header = { bytes, from, to: from + length };
  const at = from + V2_HEAD_BYTES;
  // What stands in one that names nobody is to be ignored, so it cannot be wrong; but tags are kept where it has any.
  if (local || !family || family.kind === "none") {
    const tlvs = readTlvs(header, at + (family?.bytes ?? 0));
    if (tlvs === "checksum") return { problem: "its checksum is wrong" };
    const info = { version: 2, local: true, tlvs: typeof tlvs === "string" ? NO_TLVS : tlvs } as const;
    return { bytes: length, client: undefined, info };
  }
  if (length < V2_HEAD_BYTES + family.bytes) return { problem: "too short for its addresses" };
  const tlvs = readTlvs(header, at + family.bytes);
  if (typeof tlvs === "string") return { problem: `its ${tlvs} is wrong` };
  const common = { version: 2, local: false, tlvs } as const;
  if (family.kind === "unix") {
    const unix = { source: pathAt(bytes, at), destination: pathAt(bytes, at + UNIX_PATH_BYTES) };
    return { bytes: length, client: undefined, info: { ...common, unix } };
  }
  const [host, hostBytes] = family.kind === "v4" ? ([hostV4, 4] as const) : ([hostV6, 16] as const);
  const ports = at + 2 * hostBytes;
  const destination = { host: host(bytes, at + hostBytes), port: bytes.readUInt16BE(ports + 2) };
  const client = { host: host(bytes, at), port: bytes.readUInt16BE(ports) };
  return { bytes: length, client, info: { ...common, destination } };
}

const hex = (byte: number): string => `0x${byte.toString(16).padStart(2, "0")}`;

function pathAt(bytes: Buffer, at: number): string {
  const path = bytes.subarray(at, at + UNIX_PATH_BYTES);
  const end = path.indexOf(0);
  return path.toString("utf8", 0, end < 0 ? path.length : end);
}

function hostV4(bytes: Buffer, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
}

/** As RFC 5952 has it; an IPv4-mapped address as the IPv4 address that it is. */
function hostV6(bytes: Buffer, at: number): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(at + 2 * index).toString(16));
  const text = groups.join(":");
  if (text.startsWith("0:0:0:0:0:ffff:")) return hostV4(bytes, at + 12);
  // The longest run of at least two zeros, the first of several.
  const runs = [...text.matchAll(/(?<![^:])0(?::0)+(?![^:])/g)];
  const longest = runs.reduce((most, run) => (run[0].length > most[0].length ? run : most), runs[0] ?? ([""] as never));
  if (!longest[0]) return text;
  const before = text.slice(0, longest.index).replace(/:$/, "");
  const after = text.slice(longest.index + longest[0].length).replace(/^:/, "");
  return `${before}::${after}`;
}
