/**
 * What the options of `admin` may be, and what they come to: the address decides whether there is an admin server, and
 * whether a token of one's own is needed. The token is a secret: no message says what was given.
 */
import { isIPv4 } from "node:net";
import { type Address, parseAddress } from "../base/address.ts";
import type { AdminConfig, ListenerConfig } from "./config.ts";
import { canonicalHost, overlap } from "./conflicts.ts";
import type { Finding } from "./finding.ts";
import { ADDRESS, type GivenAddress, type Kind, Wrong } from "./kinds.ts";
import type { Read } from "./listener.ts";
import { shown } from "./shown.ts";

/** Where it is when nothing at all is configured. */
export const DEFAULT_ADMIN_ADDRESS = "127.0.0.1:9900";

/** The group as given. */
export interface AdminInput {
  address?: GivenAddress | "off";
  token?: string;
  hosts?: readonly string[];
  profiles?: boolean;
}

export const DEFAULT_PROFILES = true;

const ADDRESS_ALLOWED = 'IP address and port: "127.0.0.1:9900", "[::1]:9900", port 0: any free one; or off';

export const ADMIN_ADDRESS: Kind<GivenAddress | "off"> = {
  allowed: ADDRESS_ALLOWED,
  json: { type: "string" },
  read(given) {
    if (given === "off") return "off";
    const read = ADDRESS.read(given);
    if (!(read instanceof Wrong) && read.address.protocol === "tcp") return read;
    return new Wrong(`${shown(given)} is not an address`, ADDRESS_ALLOWED);
  },
  write: (value) => (value === "off" ? value : value.text),
};

const TOKEN_ALLOWED = "16 to 256 visible ASCII characters";

/** What JSON Schema calls `writeOnly` is a secret: validate.ts shows none. */
export const TOKEN: Kind<string> = {
  allowed: TOKEN_ALLOWED,
  json: { type: "string", minLength: 16, maxLength: 256, writeOnly: true },
  read(given) {
    if (typeof given === "number") return new Wrong("a number is not a token: put it in quotes", TOKEN_ALLOWED);
    if (typeof given === "string" && /^[\x21-\x7e]{16,256}$/.test(given)) return given;
    return new Wrong("what was given is not a token", TOKEN_ALLOWED);
  },
  write: () => "(secret)",
};

const MOST_HOSTS = 100;
const HOSTS_ALLOWED = `up to ${MOST_HOSTS} host names ("headrace.example.org")`;
const HOST_NAME = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;

export const HOSTS: Kind<readonly string[]> = {
  allowed: HOSTS_ALLOWED,
  json: { type: "array", items: { type: "string" }, maxItems: MOST_HOSTS },
  read(given) {
    const items = typeof given === "string" ? given.split(",").map((item) => item.trim()) : given;
    if (!Array.isArray(items)) return new Wrong(`${shown(given)} is not a list`, HOSTS_ALLOWED);
    if (items.length > MOST_HOSTS) return new Wrong(`a list of ${items.length} is too long`, HOSTS_ALLOWED);
    const strange = items.find((item) => typeof item !== "string" || item.length > 253 || !HOST_NAME.test(item));
    if (strange !== undefined) return new Wrong(`${shown(strange)} is not a host name`, HOSTS_ALLOWED);
    return items.map((item: string) => item.toLowerCase());
  },
  write: (value) => value.join(","),
};

/** Nobody but this machine can connect to it. */
export function isLoopback({ host }: Pick<Address, "host">): boolean {
  const canonical = canonicalHost(host);
  return canonical === "::1" || (isIPv4(canonical) && canonical.startsWith("127."));
}

/** The highest source that says something counts, option by option. `builtIn`: nothing at all is configured. */
export function adminOf(
  reads: readonly Read[],
  { builtIn, listeners }: { readonly builtIn: boolean; readonly listeners: readonly ListenerConfig[] },
  findings: Finding[],
): { admin?: AdminConfig } {
  const last = <Name extends keyof AdminInput>(name: Name): Read | undefined =>
    reads.findLast(({ input }) => input.admin?.[name] !== undefined);
  const value = <Name extends keyof AdminInput>(name: Name): AdminInput[Name] | undefined =>
    last(name)?.input.admin?.[name];
  const given = value("address") ?? (builtIn ? builtInAddress() : "off");
  if (given === "off") return {};
  const token = value("token");
  const { address, text } = given;
  const place = last("address")?.source.place(["admin", "address"]);
  if (place && token === undefined && !isLoopback(address)) {
    const problem = `${text} can be reached from elsewhere, and that needs a token of your own`;
    const allowed = "admin.token or HEADRACE_ADMIN_TOKEN beside it, or an address of 127.0.0.1 or ::1";
    findings.push({ place, problem, given: text, allowed });
  }
  const other = listeners.find((listener) =>
    overlap({ address, ipv6Only: false }, { address: listener.address, ipv6Only: listener.socket.ipv6Only }),
  );
  if (place && other) findings.push({ place, problem: `${text} is that of listener ${other.name}`, given: text });
  return {
    admin: {
      address,
      addressText: text,
      hosts: value("hosts") ?? [],
      profiles: value("profiles") ?? DEFAULT_PROFILES,
      ...(token === undefined ? {} : { token }),
    },
  };
}

function builtInAddress(): GivenAddress {
  return { text: DEFAULT_ADMIN_ADDRESS, address: parseAddress(DEFAULT_ADMIN_ADDRESS) as Address };
}
