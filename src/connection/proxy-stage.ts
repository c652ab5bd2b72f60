/**
 * The PROXY header of a connection: read, believed if it comes from a trusted network, and then the client that it names
 * is the one that limits, lists, logs and the service see (engine.admit). Until then the connection holds a place, but
 * none of an address. A header that names nobody (LOCAL: the balancer's health checks; UNKNOWN), or the proxy's own end of
 * this very connection (HAProxy's checks in version 1), leaves the proxy as the client, whom the limits and lists of
 * client addresses do not concern.
 */
import type { CloseReason } from "../base/reasons.ts";
import type { ProxyProtocol } from "../base/settings.ts";
import { Held } from "../codec/held.ts";
import { type ProxyHeader, readProxyHeader } from "../codec/proxy-header.ts";
import { AddressSet } from "../config/cidr.ts";
import { COUNTER } from "../engine/layout.ts";
import type { Endpoint } from "./endpoint.ts";
import type { Origin } from "./origin.ts";
import type { Preface, PrefaceStage } from "./preface.ts";

/** Between two lines in the log, ms. */
const SILENCE_MS = 1_000;

type ProxyReason = Extract<CloseReason, `proxy-${string}`>;

export class ProxyStage implements PrefaceStage {
  readonly timeoutReason = "proxy-header-timeout";
  readonly #endpoint: Endpoint;
  readonly #trusted: AddressSet;
  readonly #required: boolean;
  /** Closed since the last line in the log. */
  #unsaid = 0;
  #silentUntil = 0;

  constructor(endpoint: Endpoint, { trust, required }: ProxyProtocol) {
    this.#endpoint = endpoint;
    this.#trusted = new AddressSet(trust);
    this.#required = required;
  }

  get timeoutMs(): number {
    return this.#endpoint.proxyHeaderMs;
  }

  begin(preface: Preface): void {
    const peer = this.#endpoint.transport.peer(preface.slot, preface.generation);
    preface.origin = { ...preface.origin, peer };
    if (this.#trusts(preface)) return;
    if (this.#required) this.#blame(preface, "proxy-untrusted", NOT_TRUSTED);
    // It can only be its own client: whom the limits do not let in holds no place until a header is overdue.
    else if (!this.#admits(preface, peer)) preface.refuse();
  }

  onData(preface: Preface, input: Buffer, from: number, to: number): void {
    const { held } = preface;
    if (!held) {
      this.#read(preface, input, from, to);
    } else {
      held.append(input, from, to);
      this.#read(preface, held.bytes, held.from, held.to);
    }
  }

  onEnd(preface: Preface): void {
    const { held } = preface;
    if (this.#required) preface.end("peer-closed");
    else this.#takeAsItIs(preface, held?.bytes, held?.from, held?.to);
  }

  onTimeout(preface: Preface): void {
    // Where it may be missing, a client that waits for the service to speak is one without.
    if (!this.#required && !preface.held) this.#takeAsItIs(preface);
    else this.#blame(preface, this.timeoutReason, preface.held ? "unfinished" : "none came");
  }

  #read(preface: Preface, bytes: Buffer, from: number, to: number): void {
    const read = readProxyHeader(bytes, from, to, this.#endpoint.limits.proxyHeader);
    if (read === "more") preface.held ??= new Held(this.#endpoint.memory, bytes, from, to);
    else if (read === "absent" && !this.#required) this.#takeAsItIs(preface, bytes, from, to);
    else if (!this.#trusts(preface)) this.#blame(preface, "proxy-untrusted", NOT_TRUSTED);
    else if (read === "absent") this.#blame(preface, "proxy-invalid", "the connection does not begin with one");
    else if ("problem" in read) this.#blame(preface, "proxy-invalid", read.problem);
    else this.#believe(preface, read, bytes, from, to);
  }

  #believe(preface: Preface, header: ProxyHeader, bytes: Buffer, from: number, to: number): void {
    const { counters } = this.#endpoint.transport;
    // The first byte of the client is still to come: its deadline is another one.
    const received = preface.slot * COUNTER.words + COUNTER.received;
    counters[received] = (counters[received] as number) - header.bytes;
    const { client, info } = header;
    const own = client !== undefined && isSame(client, preface.origin?.peer);
    preface.origin = { ...preface.origin, proxy: own ? { ...info, local: true } : info };
    if (own || this.#admits(preface, client)) preface.pass(bytes, from + header.bytes, to);
    else preface.refuse();
  }

  /** Without a header: the peer is the client, and was admitted at once where it is no proxy. */
  #takeAsItIs(preface: Preface, bytes?: Buffer, from?: number, to?: number): void {
    if (!this.#trusts(preface) || this.#admits(preface, preface.origin?.peer)) preface.pass(bytes, from, to);
    else preface.refuse();
  }

  #admits({ slot, generation }: Preface, client: Origin["peer"]): boolean {
    return !client || this.#endpoint.transport.admit(slot, generation, client.host, client.port) === undefined;
  }

  #trusts({ origin }: Preface): boolean {
    return this.#trusted.has(origin?.peer?.host ?? "");
  }

  /** Whoever sets a proxy up has to see what is wrong; whoever attacks does not get to fill the log. */
  #blame(preface: Preface, reason: ProxyReason, problem: string): void {
    const { log, transport } = this.#endpoint;
    this.#unsaid += 1;
    if (transport.now >= this.#silentUntil && log.isLevelEnabled("warn")) {
      const { peer } = preface.origin ?? {};
      log.warn({ reason, peer, connections: this.#unsaid }, `PROXY header: ${problem}; closed`);
      this.#unsaid = 0;
      this.#silentUntil = transport.now + SILENCE_MS;
    }
    preface.end(reason);
  }
}

function isSame(client: NonNullable<Origin["peer"]>, peer: Origin["peer"]): boolean {
  return client.host === peer?.host && client.port === peer.port;
}

const NOT_TRUSTED = "the peer is in none of the networks of proxyProtocol.trust";
