/**
 * Can the listeners' addresses be had? Asked before anything is started, by binding each without SO_REUSEPORT:
 * SO_REUSEPORT alone would let a second server of the same user in silently, and half of the clients with it.
 * What the kernel says becomes one sentence with what to do. The first worker's bind asks again, for good.
 */
import { readFileSync } from "node:fs";
import type { Address } from "../base/address.ts";
import { HeadraceError } from "../base/errors.ts";
import type { ListenerConfig } from "../config/config.ts";
import { errnoName } from "../os/errno.ts";
import { probeSocket } from "../os/listening.ts";
import { packSocketOptions } from "../os/socket.ts";
import { findOwner } from "./owner.ts";

/** Throws for the first address that cannot be bound. Port 0 always can, if the host is ours. */
export function probeAddresses(listeners: readonly ListenerConfig[]): void {
  for (const listener of listeners) {
    const result = probeSocket(listener.address, packSocketOptions(listener.socket));
    if (result < 0) throw bindError(errnoName(result), listener);
  }
}

/** Who wants an address. */
interface Wanted {
  /** Begins the sentence. */
  readonly subject: string;
  readonly option: string;
  readonly address: Address;
  readonly addressText: string;
}

function inUse({ address }: Wanted): string {
  const { host, port, protocol } = address;
  const owner = findOwner(host, port, protocol);
  const who = owner ? `by process ${owner.pid} (${owner.command})` : "by a process that only root can see";
  return `is in use ${who}; stop it or choose another address`;
}

function privileged(): string {
  const path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
  let first = "1024";
  try {
    first = readFileSync(path, "utf8").trim();
  } catch {
    // An old kernel or a hidden /proc: the default holds.
  }
  return `needs a privilege: ports below ${first} are for root and CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE); choose a port from ${first} on`;
}

/** The error for a listener whose bind or listen failed with `errno`. */
export function bindError(errno: string, listener: ListenerConfig): HeadraceError {
  const option = `listener "${listener.name}"`;
  return addressError(errno, { ...listener, subject: `${option}: ${listener.addressText}`, option });
}

/** The error for whoever could not have an address. */
export function addressError(errno: string, wanted: Wanted): HeadraceError {
  const { subject, option, address, addressText } = wanted;
  const fields = { address: addressText, option, errno };
  switch (errno) {
    case "EADDRINUSE":
      return new HeadraceError("address-in-use", `${subject} ${inUse(wanted)}`, fields);
    case "EACCES":
    case "EPERM":
      return new HeadraceError("permission-denied", `${subject} ${privileged()}`, fields);
    case "EADDRNOTAVAIL": {
      const any = address.host.includes(":") ? "[::]" : "0.0.0.0";
      const advice = `choose one that \`ip address\` shows, or ${any} for all`;
      return new HeadraceError(
        "address-unavailable",
        `${subject} is not an address of this machine; ${advice}`,
        fields,
      );
    }
    case "EAFNOSUPPORT":
      return new HeadraceError(
        "address-unavailable",
        `${subject}: this machine has no IPv6; choose an IPv4 address`,
        fields,
      );
    default:
      return new HeadraceError("system", `${subject} cannot be bound: ${errno}`, fields);
  }
}
