/** A TLS ClientHello byte by byte (RFC 5246, 7.4.1.2), for versions and ciphers that no library offers any more. */

export interface Hello {
  /** As on the wire: 0x0300 is SSL 3, 0x0301 TLS 1.0, …. */
  readonly version: number;
  /** Numbers of cipher suites (IANA). */
  readonly ciphers: readonly number[];
}

const u16 = (value: number): number[] => [value >> 8, value & 0xff];
const u24 = (value: number): number[] => [value >> 16, ...u16(value & 0xffff)];
const extension = (type: number, body: readonly number[]): number[] => [...u16(type), ...u16(body.length), ...body];

const EXTENSIONS = [
  // Groups: x25519, P-256. Point formats: uncompressed. Signatures: ECDSA and RSA with SHA-256, RSA with SHA-1.
  ...extension(10, [0, 4, ...u16(0x001d), ...u16(0x0017)]),
  ...extension(11, [1, 0]),
  ...extension(13, [0, 6, ...u16(0x0403), ...u16(0x0401), ...u16(0x0201)]),
];

export function clientHello({ version, ciphers }: Hello): Buffer {
  const body = [
    ...u16(version),
    ...new Array<number>(32).fill(7),
    0,
    ...u16(2 * ciphers.length),
    ...ciphers.flatMap(u16),
    ...[1, 0],
    // SSL 3 has no extensions.
    ...(version >= 0x0301 ? [...u16(EXTENSIONS.length), ...EXTENSIONS] : []),
  ];
  const message = [1, ...u24(body.length), ...body];
  return Buffer.from([22, ...u16(Math.min(version, 0x0301)), ...u16(message.length), ...message]);
}

/** What a server answers first: an alert by its number, "hello", or "nothing" before it closes. */
export function answerOf(bytes: Buffer): string {
  if (bytes.length < 7) return "nothing";
  if (bytes[0] === 21) return `alert ${bytes[6]}`;
  return bytes[0] === 22 && bytes[5] === 2 ? "hello" : `type ${bytes[0]}`;
}
