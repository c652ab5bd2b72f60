/**
 * The addresses of one target. A name is looked up before its first connection, and from then on beside the calls: old
 * addresses serve until newer ones are there. One that could not be reached lately is tried last. Holds as many
 * addresses as MOST, so it is bounded as the list of targets is.
 */
import { lookup } from "node:dns/promises";
import { isIP, isIPv6 } from "node:net";
import type { ClientCounters } from "./counters.ts";

/** The IP addresses of a name, the best first. */
export type Resolve = (host: string) => Promise<readonly string[]>;

const MOST = 32;
/** So long an address that failed stands behind the others, ms. */
const SHUNNED_MS = 10_000;

/** As getaddrinfo has it: /etc/hosts, DNS and what else the machine is set up for. */
export const systemResolve: Resolve = async (host) => {
  const found = await lookup(host, { all: true, order: "verbatim" });
  return found.map(({ address }) => address);
};

export class Addresses {
  readonly #host: string;
  readonly #resolve: Resolve;
  readonly #refreshMs: number;
  readonly #limitMs: number;
  readonly #counters: ClientCounters;
  #known: readonly string[];
  #fresh: Promise<readonly string[]> | undefined;
  /** performance.now(), ms. */
  #resolvedAt = Number.NEGATIVE_INFINITY;
  /** When an address failed. */
  readonly #failedAt = new Map<string, number>();
  #turn = 0;

  /** `limitMs`: a look-up that takes longer has failed, and the next one begins anew. */
  constructor(host: string, resolve: Resolve, refreshMs: number, limitMs: number, counters: ClientCounters) {
    this.#host = host;
    this.#resolve = resolve;
    this.#refreshMs = isIP(host) ? Number.POSITIVE_INFINITY : refreshMs;
    this.#limitMs = limitMs;
    this.#counters = counters;
    this.#known = isIP(host) ? [host] : [];
  }

  get known(): readonly string[] {
    return this.#known;
  }

  /** In the order in which they are to be tried. At once, unless none was ever known. Rejects as `resolve` does. */
  get(): readonly string[] | Promise<readonly string[]> {
    if (this.#known.length > 0) {
      if (performance.now() - this.#resolvedAt > this.#refreshMs && !isIP(this.#host)) void this.#refresh().catch(noop);
      return this.#ordered();
    }
    return this.#refresh().then(() => this.#ordered());
  }

  failed(address: string): void {
    if (this.#failedAt.size > MOST) this.#failedAt.clear();
    this.#failedAt.set(address, performance.now());
    // The name may have moved.
    this.#resolvedAt = Number.NEGATIVE_INFINITY;
  }

  worked(address: string): void {
    this.#failedAt.delete(address);
  }

  #refresh(): Promise<readonly string[]> {
    this.#fresh ??= this.#look().finally(() => {
      this.#fresh = undefined;
    });
    return this.#fresh;
  }

  async #look(): Promise<readonly string[]> {
    this.#counters.lookups += 1;
    // An old address is better than a question without end.
    this.#resolvedAt = performance.now();
    try {
      const found = (await this.#answer()).filter((address) => isIP(address)).slice(0, MOST);
      if (found.length === 0) throw Object.assign(new Error(`${this.#host} has no address`), { code: "ENOTFOUND" });
      this.#known = alternate(found);
      return this.#known;
    } catch (error) {
      this.#counters.lookupsFailed += 1;
      throw error;
    }
  }

  /** In time, or not at all. The wait alone keeps no process alive. */
  async #answer(): Promise<readonly string[]> {
    const [host, ms] = [this.#host, this.#limitMs];
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const expire = (): void =>
        reject(Object.assign(new Error(`${host} was not resolved within ${ms} ms`), { code: "ETIMEDOUT" }));
      timer = setTimeout(expire, ms).unref();
    });
    try {
      return await Promise.race([this.#resolve(host), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Another one first each time, so that connections spread; those that failed lately last. */
  #ordered(): readonly string[] {
    const known = this.#known;
    if (known.length === 1) return known;
    const first = this.#turn++ % known.length;
    const turned = [...known.slice(first), ...known.slice(0, first)];
    const now = performance.now();
    const shunned = (address: string): boolean =>
      now - (this.#failedAt.get(address) ?? Number.NEGATIVE_INFINITY) < SHUNNED_MS;
    return [...turned.filter((address) => !shunned(address)), ...turned.filter(shunned)];
  }
}

function noop(): void {
  // The old addresses serve on; the failure is counted.
}

/** The families in turn (RFC 8305 section 4), beginning with that of the first address. */
export function alternate(addresses: readonly string[]): readonly string[] {
  const sixFirst = isIPv6(addresses[0] ?? "");
  const leading = addresses.filter((address) => isIPv6(address) === sixFirst);
  const others = addresses.filter((address) => isIPv6(address) !== sixFirst);
  return leading
    .flatMap((address, index) => {
      const other = others[index];
      return other === undefined ? [address] : [address, other];
    })
    .concat(others.slice(leading.length));
}
