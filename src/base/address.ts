/**
 * Network addresses as configured: `127.0.0.1:9000`, `[::1]:9000`, `udp://…`. Hosts are IP literals or
 * `localhost`; names are not resolved, because a listener that moves with DNS surprises its operator.
 */
import { isIPv4, isIPv6 } from "node:net";

export interface Address {
  readonly protocol: "tcp" | "udp";
  /** IP literal, without brackets. */
  readonly host: string;
  /** 0: the kernel picks one. */
  readonly port: number;
}

/** Parses `host:port`; an error is returned as a sentence that says what is allowed. */
export function parseAddress(text: string): Address | string {
  const allowed = 'allowed: "127.0.0.1:9000", "[::]:9000", "localhost:9000", "udp://127.0.0.1:9000"';
  const match = /^(?:([a-z]+):\/\/)?(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  if (!match) return `"${text}" is not an address; ${allowed}`;
  const [, protocol = "tcp", bracketed, plain, digits] = match;
  if (protocol !== "tcp" && protocol !== "udp") return `"${protocol}://" is not supported; ${allowed}`;
  const port = Number(digits);
  if (port > 65_535) return `port ${port} is out of range; allowed: 0 to 65535`;
  if (bracketed !== undefined) {
    return isIPv6(bracketed)
      ? { protocol, host: bracketed, port }
      : `"${bracketed}" is not an IPv6 address; ${allowed}`;
  }
  const host = plain === "localhost" ? "127.0.0.1" : (plain ?? "");
  return isIPv4(host) ? { protocol, host, port } : `"${plain}" is not an IP address; ${allowed}`;
}

/** `host:port`, with brackets around IPv6. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
