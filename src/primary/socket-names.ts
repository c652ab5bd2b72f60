/**
 * Under what name a slot's socket is kept in systemd's descriptor store, and back. A name is at most 255 printable
 * ASCII characters without ":" (systemd.exec(5), fdname), and so is what stands for an IPv6 address in it.
 *
 *   slot-3|tcp|%3A%3A1|9000|false
 */

/** A slot's socket: whose listener it is (its key), and of which slot. */
export interface SocketPlace {
  readonly key: string;
  readonly slot: number;
}

const MAX_SLOT_DIGITS = 4;
const NAME = new RegExp(`^slot-(0|[1-9]\\d{0,${MAX_SLOT_DIGITS - 1}})\\|([\\w.~|%-]+)$`);

/** encodeURIComponent leaves what is readable and never a ":"; "|" separates the parts of a key and may stay. */
const encode = (key: string): string =>
  encodeURIComponent(key)
    .replaceAll("%7C", "|")
    .replaceAll(/[!'()*]/g, hex);

const hex = (character: string): string => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;

export function socketName(key: string, slot: number): string {
  return `slot-${slot}|${encode(key)}`;
}

/** What `socketName` made `name` of; undefined when it did not make it. */
export function parseSocketName(name: string): SocketPlace | undefined {
  const [, slot, encoded] = NAME.exec(name) ?? [];
  if (slot === undefined || encoded === undefined) return undefined;
  try {
    const place = { key: decodeURIComponent(encoded), slot: Number(slot) };
    return socketName(place.key, place.slot) === name ? place : undefined;
  } catch {
    // A "%" that begins nothing.
    return undefined;
  }
}
