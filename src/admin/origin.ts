/**
 * Where a browser's request comes from. Two attacks are kept out: a foreign name that resolves to this server (DNS
 * rebinding: its pages would be of "the same origin"), by looking at Host; and another site's page that has the user's
 * browser send a request with its cookie, by looking at Sec-Fetch-Site and Origin, which scripts cannot set.
 */
import { isIP } from "node:net";

/** The host in a Host header, in lower case, without brackets; undefined when it is none. */
export function hostnameOf(header: string | undefined): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/i.exec(header ?? "");
  return (match?.[1] ?? match?.[2])?.toLowerCase().replace(/\.$/, "");
}

/**
 * Whether a Host header may name this server: by `names` (those of the configuration), as localhost, or by an address:
 * no name was resolved to get there, so none can have been bent.
 */
export function isOwnHost(header: string | undefined, names: readonly string[]): boolean {
  const host = hostnameOf(header);
  if (host === undefined) return false;
  return host === "localhost" || host.endsWith(".localhost") || isIP(host) > 0 || names.includes(host);
}

export interface FetchHeaders {
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
  readonly "sec-fetch-site"?: string | string[] | undefined;
}

/** Not by a page of another origin, as far as the browser says. Who is no browser says nothing. */
export function isNotForeign(headers: FetchHeaders): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin" && site !== "none") return false;
  return headers.origin === undefined || isOwnOrigin(headers);
}

/** By a page of this server, for certain: what a request that changes something by a cookie has to be. */
export function isOwnPage(headers: FetchHeaders): boolean {
  return isNotForeign(headers) && (headers["sec-fetch-site"] === "same-origin" || isOwnOrigin(headers));
}

function isOwnOrigin({ origin, host }: FetchHeaders): boolean {
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`);
}
