/**
 * What version 2 of the PROXY protocol carries behind the addresses: values with a type and a length (section 2.2 of
 * doc/proxy-protocol.txt). Pure. The one that is looked into is the checksum, which covers the whole header.
 */
import { crc32c } from "./crc32c.ts";

/** Types that services may want: 2 is the server name (SNI), 5 the proxy's id of the connection, 0x20 its TLS. */
export interface ProxyTlv {
  readonly type: number;
  readonly value: Buffer;
}

interface Header {
  readonly bytes: Buffer;
  readonly from: number;
  readonly to: number;
}

const CHECKSUM = 0x03;
const PADDING = 0x04;
const HEAD_BYTES = 3;
const CHECKSUM_BYTES = 4;
const NONE: readonly ProxyTlv[] = [];

/**
 * Those from `at` to the end of the header, as copies; or what is wrong: they do not end where the header does, or the
 * checksum (there may be one) is not that of the header.
 */
export function readTlvs(header: Header, at: number): readonly ProxyTlv[] | "list of values" | "checksum" {
  const { bytes, to } = header;
  if (at > to) return "list of values";
  if (at === to) return NONE;
  const kept = Buffer.allocUnsafeSlow(to - at);
  bytes.copy(kept, 0, at, to);
  const tlvs: ProxyTlv[] = [];
  let checksumAt = -1;
  let wrong = false;
  for (let next = at; next < to; ) {
    if (to - next < HEAD_BYTES) return "list of values";
    const type = bytes[next] as number;
    const value = next + HEAD_BYTES;
    const end = value + bytes.readUInt16BE(next + 1);
    if (end > to) return "list of values";
    if (type === CHECKSUM) {
      wrong ||= checksumAt >= 0 || end - value !== CHECKSUM_BYTES;
      checksumAt = value;
    }
    if (type !== PADDING) tlvs.push({ type, value: kept.subarray(value - at, end - at) });
    next = end;
  }
  return wrong || (checksumAt >= 0 && !isRight(header, checksumAt)) ? "checksum" : tlvs;
}

function isRight({ bytes, from, to }: Header, checksumAt: number): boolean {
  return bytes.readUInt32BE(checksumAt) === crc32c(bytes, from, to, checksumAt);
}
