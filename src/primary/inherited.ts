/**
 * Sockets that systemd started the primary with, put where they belong: those of the descriptor store by their
 * names, those of a socket unit by the address they are bound to. Whatever the configuration does not know is closed,
 * and removed from the store: a socket that nobody accepts from would hang its clients.
 */
import type { Config, ListenerConfig } from "../config/config.ts";
import { canonicalHost } from "../config/conflicts.ts";
import { listenerKey } from "../config/listener-key.ts";
import type { InheritedSocket } from "../os/activation.ts";
import { addon } from "../os/addon.ts";
import { closeDescriptor } from "../os/descriptors.ts";
import { SLOTS_MAX } from "../os/scoreboard.ts";
import type { Slots } from "./slots.ts";
import { parseSocketName } from "./socket-names.ts";

interface Bound {
  readonly protocol: "tcp" | "udp";
  readonly host: string;
  readonly port: number;
}

function boundTo(fd: number): Bound | undefined {
  const kind = addon().socketKind(fd);
  if (typeof kind === "number" || kind.type === "other") return undefined;
  const protocol = kind.type === "stream" ? "tcp" : "udp";
  const name = addon().socketName(fd, false);
  if (typeof name === "number") return undefined;
  const [host = "", port] = name.split(" ");
  return { protocol, host: canonicalHost(host), port: Number(port) };
}

/** The listener whose address a socket of a socket unit is bound to. */
function listenerAt(fd: number, { listeners }: Config): ListenerConfig | undefined {
  const bound = boundTo(fd);
  return listeners.find(
    ({ address }) =>
      bound &&
      address.protocol === bound.protocol &&
      address.port === bound.port &&
      canonicalHost(address.host) === bound.host,
  );
}

/** Returns the names under which sockets are stored that nobody needs any more. */
export function placeInherited(sockets: readonly InheritedSocket[], config: Config, slots: Slots): string[] {
  const unknown: string[] = [];
  const known = new Set(config.listeners.map(listenerKey));
  const activated = new Map<ListenerConfig, number[]>();
  for (const { name, fd } of sockets) {
    const place = parseSocketName(name);
    const listener = place ? undefined : listenerAt(fd, config);
    if (place && place.slot < SLOTS_MAX && known.has(place.key)) {
      slots.keepAs(place.slot, place.key, fd);
    } else if (listener) {
      activated.set(listener, [...(activated.get(listener) ?? []), fd]);
    } else {
      closeDescriptor(fd);
      if (place) unknown.push(name);
    }
  }
  for (const [listener, fds] of activated) slots.keepShared(config.workers, listener, fds);
  return unknown;
}
