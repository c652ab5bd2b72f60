/**
 * A batch of connections as bytes: one record after the other, each a fixed head (its sizes first), then id, host,
 * received bytes, unsent bytes, state, topics (JSON), origin (JSON, migration-origin.ts) and what waits of its topics
 * (migration-waiting.ts: the one part that depends on the batches before). Pure; src/worker/migration.ts says who reads
 * it when. Whoever decodes has the same protocol version, so a batch that does not fit is a bug: it throws, and no
 * connection of it is taken.
 */
import { NONE_OWN, OWN_DEADLINES } from "../connection/deadlines.ts";
import { type ConnectionRecord, STATE_KINDS } from "../connection/moved.ts";
import { readOrigin, writeOrigin } from "./migration-origin.ts";
import type { WaitingIn, WaitingOut } from "./migration-waiting.ts";

/** A record, and which of the sender's endpoints it belongs to. */
export interface BatchEntry {
  readonly endpoint: number;
  readonly record: ConnectionRecord;
}

const NUMBERS = [
  "received",
  "sent",
  "receivedAt",
  "progressAt",
  "frameSince",
  "busyUntil",
  "seen",
  "mode",
  "requests",
  "openedAt",
] as const;
const BEAT = ["pingedAt", "missed", "activeAt"] as const;
const FLAGS = ["backedUp", "pausedByUser", "inputEnded", "reading"] as const;

/** Offsets in the head. */
const AT = {
  endpoint: 0,
  flags: 2,
  kind: 3,
  id: 4,
  host: 6,
  port: 8,
  held: 12,
  unsent: 16,
  state: 20,
  topics: 24,
  origin: 28,
  numbers: 32,
};
const NUMBER_BYTES = Float64Array.BYTES_PER_ELEMENT;
const BEAT_AT: number = AT.numbers + NUMBERS.length * NUMBER_BYTES;
const OWN_AT: number = BEAT_AT + BEAT.length * NUMBER_BYTES;
const HEAD_BYTES: number = OWN_AT + OWN_DEADLINES.length * NUMBER_BYTES;
/** Bit of the flags: it has deadlines of its own. */
const HAS_OWN: number = 1 << FLAGS.length;

/** The parts of a record, to be written one behind the other. */
export function encodeRecord({ endpoint, record }: BatchEntry, waiting: WaitingOut): Uint8Array[] {
  const { held, unsent, state, remote, own } = record;
  const topics = Buffer.from(record.topics.length > 0 ? JSON.stringify(record.topics) : "");
  const origin = Buffer.from(record.origin ? writeOrigin(record.origin) : "");
  const id = Buffer.from(record.id);
  const host = Buffer.from(remote.host);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt16LE(endpoint, AT.endpoint);
  head.writeUInt8(
    FLAGS.reduce((bits, flag, bit) => bits | (record[flag] ? 1 << bit : 0), own.length > 0 ? HAS_OWN : 0),
    AT.flags,
  );
  head.writeUInt8(STATE_KINDS.indexOf(state.kind), AT.kind);
  head.writeUInt16LE(id.length, AT.id);
  head.writeUInt16LE(host.length, AT.host);
  head.writeUInt16LE(remote.port, AT.port);
  head.writeUInt32LE(held.length, AT.held);
  head.writeUInt32LE(unsent.length, AT.unsent);
  head.writeUInt32LE(state.bytes.length, AT.state);
  head.writeUInt32LE(topics.length, AT.topics);
  head.writeUInt32LE(origin.length, AT.origin);
  for (const [index, name] of NUMBERS.entries()) head.writeDoubleLE(record[name], AT.numbers + index * NUMBER_BYTES);
  for (const [index, name] of BEAT.entries()) head.writeDoubleLE(record.beat[name], BEAT_AT + index * NUMBER_BYTES);
  for (const [index, ms] of own.entries()) head.writeDoubleLE(ms, OWN_AT + index * NUMBER_BYTES);
  return [head, id, host, held, unsent, state.bytes, topics, origin, ...waiting.encode(record.waiting)];
}

/** Cuts `bytes` up. Throws RangeError when they are not exactly `count` records. */
export function decodeBatch(bytes: Buffer, count: number, waiting: WaitingIn): BatchEntry[] {
  const reader = new Reader(bytes);
  const entries = Array.from({ length: count }, () => decodeRecord(reader, waiting));
  if (reader.left > 0) throw new RangeError(`migration: ${reader.left} bytes behind the last record`);
  return entries;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** The next `length` bytes, as a view. */
  take(length: number): Buffer {
    if (length > this.left) throw new RangeError(`migration: ${length} bytes expected, ${this.left} there`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

function decodeRecord(reader: Reader, waiting: WaitingIn): BatchEntry {
  const head = reader.take(HEAD_BYTES);
  const id = reader.take(head.readUInt16LE(AT.id)).toString();
  const host = reader.take(head.readUInt16LE(AT.host)).toString();
  const held = reader.take(head.readUInt32LE(AT.held));
  const unsent = reader.take(head.readUInt32LE(AT.unsent));
  const bytes = reader.take(head.readUInt32LE(AT.state));
  const topics = reader.take(head.readUInt32LE(AT.topics)).toString();
  const origin = reader.take(head.readUInt32LE(AT.origin)).toString();
  const kind = STATE_KINDS[head.readUInt8(AT.kind)];
  if (!kind) throw new RangeError("migration: unknown kind of state");
  const number = (name: (typeof NUMBERS)[number]): number =>
    head.readDoubleLE(AT.numbers + NUMBERS.indexOf(name) * NUMBER_BYTES);
  const beat = (name: (typeof BEAT)[number]): number => head.readDoubleLE(BEAT_AT + BEAT.indexOf(name) * NUMBER_BYTES);
  const hasOwn = (head.readUInt8(AT.flags) & HAS_OWN) !== 0;
  const flag = (name: (typeof FLAGS)[number]): boolean => (head.readUInt8(AT.flags) & (1 << FLAGS.indexOf(name))) !== 0;
  return {
    endpoint: head.readUInt16LE(AT.endpoint),
    record: {
      id,
      remote: { host, port: head.readUInt16LE(AT.port) },
      origin: origin === "" ? undefined : readOrigin(origin),
      received: number("received"),
      sent: number("sent"),
      receivedAt: number("receivedAt"),
      progressAt: number("progressAt"),
      frameSince: number("frameSince"),
      busyUntil: number("busyUntil"),
      seen: number("seen"),
      mode: number("mode"),
      requests: number("requests"),
      openedAt: number("openedAt"),
      own: hasOwn ? OWN_DEADLINES.map((_, index) => head.readDoubleLE(OWN_AT + index * NUMBER_BYTES)) : NONE_OWN,
      beat: { pingedAt: beat("pingedAt"), missed: beat("missed"), activeAt: beat("activeAt") },
      backedUp: flag("backedUp"),
      pausedByUser: flag("pausedByUser"),
      inputEnded: flag("inputEnded"),
      reading: flag("reading"),
      topics: topics === "" ? [] : topicsOf(topics),
      waiting: waiting.decode(reader),
      held,
      unsent,
      state: { kind, bytes },
    },
  };
}

function topicsOf(text: string): string[] {
  try {
    const topics: unknown = JSON.parse(text);
    if (Array.isArray(topics) && topics.every((topic) => typeof topic === "string")) return topics;
  } catch {
    // Told below.
  }
  throw new RangeError("migration: topics that are none");
}
