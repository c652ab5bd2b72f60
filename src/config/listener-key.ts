/**
 * What makes two listeners the same one, in two configurations or two generations: the sockets of the one then
 * serve the other. A name is no part of it, unless the kernel chose the port: then nothing else tells them apart.
 */
import type { ListenerConfig } from "./config.ts";
import { canonicalHost } from "./conflicts.ts";

/** `tcp|0.0.0.0|9000|false`; with port 0 the name follows. Unique within a configuration. */
export function listenerKey({ name, address, socket }: Pick<ListenerConfig, "name" | "address" | "socket">): string {
  const { protocol, port } = address;
  const host = canonicalHost(address.host);
  // It says nothing about an IPv4 socket: changing it for all listeners leaves those alone.
  const v6only = host.includes(":") && socket.ipv6Only;
  const key = `${protocol}|${host}|${port}|${v6only}`;
  return port === 0 ? `${key}|${name}` : key;
}
