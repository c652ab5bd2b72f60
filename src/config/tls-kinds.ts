/**
 * What the options of a listener's `tls` may be: lists of names, each of which is checked by itself. Ciphers are named
 * one by one and as OpenSSL names them; words that stand for many ("HIGH") are not taken, because what they stand for
 * changes with the library.
 */
import { CLIENT_CERTIFICATE, TLS_VERSIONS, type TlsDefaults } from "../base/settings.ts";
import { choice, type Kind, Wrong } from "./kinds.ts";
import { nearest } from "./nearest.ts";
import { shown } from "./shown.ts";

/** One item of a list: what is wrong with it, if anything. */
type Check = (item: string) => string | undefined;

function list(allowed: string, most: number, check: Check): Kind<readonly string[]> {
  return {
    allowed,
    json: { type: "array", items: { type: "string" }, maxItems: most },
    read(given) {
      const items = typeof given === "string" ? given.split(",").map((item) => item.trim()) : given;
      if (!Array.isArray(items)) return new Wrong(`${shown(given)} is not a list`, allowed);
      if (items.length > most) return new Wrong(`a list of ${items.length} is too long`, allowed);
      for (const [index, item] of items.entries()) {
        if (typeof item !== "string") return new Wrong(`${shown(item)} is not a name`, allowed);
        const problem = items.indexOf(item) === index ? check(item) : "is given twice";
        if (problem !== undefined) return new Wrong(`${shown(item)} ${problem}`, allowed);
      }
      return items as string[];
    },
    write: (value) => value.join(","),
  };
}

const LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?";
const SERVER_NAME = new RegExp(`^(\\*\\.)?${LABEL}(\\.${LABEL})*$`, "i");
const MOST_NAMES = 100;

/** Names as clients send them (RFC 6066): host names, of which the first label may be a wildcard. */
export const SERVER_NAMES: Kind<readonly string[]> = list(
  `up to ${MOST_NAMES} host names ("example.org", "*.example.org")`,
  MOST_NAMES,
  (name) => (SERVER_NAME.test(name) && name.length <= 253 ? undefined : "is not a host name"),
);

const MOST_PROTOCOLS = 32;

function protocolProblem(name: string): string | undefined {
  const bytes = Buffer.byteLength(name);
  return bytes >= 1 && bytes <= 255 ? undefined : `has ${bytes} bytes`;
}

/** Without encryption, without authentication, broken, or without an exchange of keys that headrace can make. */
const UNSAFE = /NULL|ADH|AECDH|PSK|SRP|RC4|RC2|DES|MD5|EXP|SEED|IDEA|^TLS_AES_128_CCM_8/;

function cipherProblem(name: string): string | undefined {
  // Not imported: most configurations name no ciphers, and it takes a while to load.
  const known = process.getBuiltinModule("node:tls").getCiphers();
  if (known.includes(name.toLowerCase()) && name === name.toUpperCase()) {
    return UNSAFE.test(name) ? "is not safe" : undefined;
  }
  const names = known.map((each) => each.toUpperCase()).filter((each) => !UNSAFE.test(each));
  const near = nearest(name.toUpperCase(), names);
  return `is not a cipher${near ? `; did you mean ${near}?` : ""}`;
}

export const TLS_KINDS: { readonly [Name in keyof TlsDefaults]: Kind<TlsDefaults[Name]> } = {
  clientCertificate: choice(CLIENT_CERTIFICATE),
  alpn: list(
    `up to ${MOST_PROTOCOLS} names of 1 to 255 bytes ("http/1.1", "my-protocol")`,
    MOST_PROTOCOLS,
    protocolProblem,
  ),
  minVersion: choice(TLS_VERSIONS),
  ciphers: list(
    'OpenSSL\'s names of cipher suites ("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256")',
    50,
    cipherProblem,
  ),
};
