/** PROXY headers as balancers write them, and as nobody should. */
import { isIPv4, SocketAddress } from "node:net";
import { crc32c } from "#src/codec/crc32c.js";

export interface Ends {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface Value {
  readonly type: number;
  readonly value: Uint8Array;
}

export const ENDS: Ends = {
  source: "203.0.113.7",
  destination: "198.51.100.9",
  sourcePort: 41_000,
  destinationPort: 443,
};

/** A version 1 line. */
export function v1({ source, destination, sourcePort, destinationPort }: Ends = ENDS): Buffer {
  const family = isIPv4(source) ? "TCP4" : "TCP6";
  return Buffer.from(`PROXY ${family} ${source} ${destination} ${sourcePort} ${destinationPort}\r\n`);
}

export const V2_SIGNATURE: Buffer = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");

/** A version 2 header of any content. */
export function v2Raw(command: number, family: number, payload: Uint8Array, length: number = payload.length): Buffer {
  const head = Buffer.from([command, family, length >> 8, length & 0xff]);
  return Buffer.concat([V2_SIGNATURE, head, payload]);
}

export function packValues(values: readonly Value[]): Buffer {
  return Buffer.concat(
    values.flatMap(({ type, value }) => [Buffer.from([type, value.length >> 8, value.length & 0xff]), value]),
  );
}

/** 4 or 16 bytes. */
export function packHost(host: string): Buffer {
  if (isIPv4(host)) return Buffer.from(host.split(".").map(Number));
  const { address } = new SocketAddress({ address: host, family: "ipv6" });
  const [head = "", tail] = address.split("::");
  const groups = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const [before, after] = [groups(head), groups(tail ?? "")];
  const all = [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

/** A version 2 header of a TCP client; `checksum`: with a right one behind the values. */
export function v2(ends: Ends = ENDS, values: readonly Value[] = [], checksum = false): Buffer {
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(ends.sourcePort);
  ports.writeUInt16BE(ends.destinationPort, 2);
  const addresses = Buffer.concat([packHost(ends.source), packHost(ends.destination), ports]);
  const all = checksum ? [...values, { type: 3, value: Buffer.alloc(4) }] : values;
  const header = v2Raw(0x21, isIPv4(ends.source) ? 0x11 : 0x21, Buffer.concat([addresses, packValues(all)]));
  if (checksum) header.writeUInt32BE(crc32c(header, 0, header.length), header.length - 4);
  return header;
}

/** What a balancer says of itself: version 2, LOCAL. */
export const v2Local = (payload: Uint8Array = Buffer.alloc(0), family = 0): Buffer => v2Raw(0x20, family, payload);
