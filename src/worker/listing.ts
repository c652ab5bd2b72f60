/**
 * What a worker says of its connections when it is asked: which ones come first, and what there is to see of those.
 * Both are done in slices, so that tens of thousands of connections hold up nobody; what ends between two slices is
 * told as gone, and nothing is kept of what is not wanted.
 */
import { formatAddress } from "../base/address.ts";
import { AddressSet, parseCidr } from "../config/cidr.ts";
import { ServedConnection } from "../connection/connection.ts";
import { Preface } from "../connection/preface.ts";
import type { ConnectionRow, ConnectionSort } from "../control/inspection.ts";
import type { ConnectionKeys, KeysAsked } from "../control/questions.ts";
import type { Engine } from "../engine/engine.ts";
import { COUNTER } from "../engine/layout.ts";
import { First } from "./first.ts";
import { nextTurn } from "./slices.ts";

type Listed = ServedConnection | Preface;

/** Of a turn of the loop, ms: far below what anybody would notice. */
const SLICE_MS = 2;
/** Connections between two looks at the clock. */
const STEP = 64;

function listedAt(engine: Engine, slot: number): Listed | undefined {
  const owner = engine.owner(slot);
  return owner instanceof ServedConnection || owner instanceof Preface ? owner : undefined;
}

/** Calls `each` for all connections until it says `false`. */
async function each(engine: Engine, visit: (listed: Listed, slot: number) => boolean | undefined): Promise<void> {
  let until = performance.now() + SLICE_MS;
  for (let slot = 0; slot < engine.slots; slot++) {
    const listed = listedAt(engine, slot);
    if (listed && visit(listed, slot) === false) return;
    if (slot % STEP !== STEP - 1 || performance.now() < until) continue;
    await nextTurn();
    until = performance.now() + SLICE_MS;
  }
}

function counter(engine: Engine, slot: number, index: number): number {
  return engine.counters[slot * COUNTER.words + index] as number;
}

/** Clock, whole ms. */
const openedAt = (listed: Listed): number =>
  Math.floor(listed instanceof Preface ? listed.openedAt : listed.look().openedAt);

/** Clock (ms) of the last byte, either way. */
function activeAt(engine: Engine, slot: number): number {
  return Math.max(counter(engine, slot, COUNTER.receivedAt), counter(engine, slot, COUNTER.progressAt));
}

/** Not by how long ago: in all workers, and in each slice, the same moment has the same key. */
const KEYS: Readonly<Record<ConnectionSort, (engine: Engine, listed: Listed, slot: number) => number>> = {
  buffered: (engine, _listed, slot) => engine.unsent[slot] as number,
  idle: (engine, _listed, slot) => -activeAt(engine, slot),
  age: (_engine, listed) => -openedAt(listed),
  bytes: (engine, _listed, slot) => counter(engine, slot, COUNTER.received) + counter(engine, slot, COUNTER.sent),
};

function clientOf(engine: Engine, listed: Listed): { readonly host: string; readonly port: number } {
  return listed instanceof Preface ? engine.peer(listed.slot, listed.generation) : listed.remote;
}

/** A network, or the beginning of an address as it is shown. */
function addressFilter(text: string): (host: string) => boolean {
  if (!text.includes("/") || typeof parseCidr(text) === "string") return (host) => host.startsWith(text);
  const block = new AddressSet([text]);
  return (host) => block.has(host);
}

export async function listKeys(engine: Engine, asked: KeysAsked): Promise<ConnectionKeys> {
  const { sort, order, most, address, listener } = asked;
  const fits = address === undefined ? undefined : addressFilter(address);
  const first = new First(most, order);
  let total = 0;
  await each(engine, (listed, slot) => {
    if (listener !== undefined && listed.endpoint.listener !== listener) return undefined;
    if (fits && !fits(clientOf(engine, listed).host)) return undefined;
    total += 1;
    first.offer(KEYS[sort](engine, listed, slot), slot);
    return undefined;
  });
  const { keys, items } = first.take();
  return { total, keys, handles: items.flatMap((slot) => [slot, engine.generation(slot)]) };
}

/** A row for each handle, so that none takes another's place; null: that connection has gone. */
export async function listRows(
  engine: Engine,
  worker: number,
  handles: readonly number[],
): Promise<(ConnectionRow | null)[]> {
  const rows: (ConnectionRow | null)[] = [];
  let until = performance.now() + SLICE_MS;
  for (let at = 0; at + 1 < handles.length; at += 2) {
    const [slot, generation] = [handles[at] as number, handles[at + 1] as number];
    const listed = engine.generation(slot) === generation ? listedAt(engine, slot) : undefined;
    rows.push(listed ? rowOf(engine, worker, listed, slot, generation) : null);
    if (performance.now() < until) continue;
    await nextTurn();
    until = performance.now() + SLICE_MS;
  }
  return rows;
}

function rowOf(engine: Engine, worker: number, listed: Listed, slot: number, generation: number): ConnectionRow {
  const client = clientOf(engine, listed);
  const served = listed instanceof ServedConnection;
  const peer = served ? listed.peer : (listed.origin?.peer ?? client);
  const tls = served ? listed.tls?.protocol : undefined;
  return {
    id: listed.id,
    worker,
    listener: listed.endpoint.listener,
    remote: formatAddress(client.host, client.port),
    peer: formatAddress(peer.host, peer.port),
    state: served ? listed.look().state : "opening",
    ageMs: Math.max(0, Math.round(engine.now - openedAt(listed))),
    idleMs: Math.max(0, Math.round(engine.now - activeAt(engine, slot))),
    bytesReceived: counter(engine, slot, COUNTER.received),
    bytesSent: counter(engine, slot, COUNTER.sent),
    bufferedBytes: engine.unsent[slot] as number,
    inFlight: served ? listed.look().inFlight : 0,
    ...engine.timing(slot, generation),
    ...(tls === undefined ? {} : { tls }),
  };
}

/** Resets the connection of this id. False: there is none. */
export async function killById(engine: Engine, id: string): Promise<boolean> {
  let killed = false;
  await each(engine, (listed) => {
    if (listed.id !== id) return undefined;
    if (listed instanceof Preface) listed.end("admin");
    else listed.reset("admin");
    killed = true;
    return false;
  });
  if (killed) engine.flush();
  return killed;
}
