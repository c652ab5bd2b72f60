/**
 * The PROXY header of a connection: read, believed if it comes from a trusted network, and then the client that it names
 * is the one that limits, lists, logs and the service see (engine.admit). Until then the connection holds a place, but
 * none of an address. A header that names nobody (LOCAL: the balancer's health checks; UNKNOWN), or the proxy's own end of
 * this very connection (HAProxy's checks in version 1), leaves the proxy as the client, whom the limits and lists of
 * client addresses do not concern.
 */
import type { CloseReason } from "../base/reasons.ts";
import type { ProxyProtocol } from "../base/settings.ts";
import { type ProxyHeader, readProxyHeader } from "../codec/proxy-header.ts";
import { AddressSet } from "../config/cidr.ts";
import { COUNTER } from "../engine/layout.ts";
import type { Endpoint } from "./endpoint.ts";
import { Held } from "./held.ts";
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
    if (this.#required && !this.#trusts(preface)) this.#blame(preface, "proxy-untrusted", NOT_TRUSTED);
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
    if (this.#required) preface.end("peer-closed");
    else this.#takeAsItIs(preface);
  }

  onTimeout(preface: Preface): void {
    // Where it may be missing, a client that waits for the service to speak is one without.
    if (!this.#required && !preface.held) this.#takeAsItIs(preface);
    else this.#blame(preface, this.timeoutReason, preface.held ? "unfinished" : "none came");
  }

  #read(preface: Preface, bytes: Buffer, from: number, to: number): void {
    const read = readProxyHeader(bytes, from, to, this.#endpoint.limits.proxyHeader);
    if (read === "more") preface.held ??= new Held(this.#endpoint.memory, bytes, from, to);
    else if (read === "absent" && !this.#required) this.#admit(preface, preface.origin?.peer, bytes, from, to);
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
    this.#admit(preface, own ? undefined : client, bytes, from + header.bytes, to);
  }

  /** Without a header: the peer is the client. */
  #takeAsItIs(preface: Preface): void {
    const { held } = preface;
    if (held) this.#admit(preface, preface.origin?.peer, held.bytes, held.from, held.to);
    else this.#admit(preface, preface.origin?.peer);
  }

  #admit(preface: Preface, client: Origin["peer"], bytes?: Buffer, from?: number, to?: number): void {
    const { transport } = this.#endpoint;
    const rejected = client && transport.admit(preface.slot, preface.generation, client.host, client.port);
    if (rejected) preface.refuse();
    else preface.pass(bytes, from, to);
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
