/**
 * One process's part of a load, from the first connect to its report. main.ts drives it through its phases; it decides
 * nothing but how long to wait for late replies. Every wait ends: a server that hangs leaves `outstanding` replies,
 * not a run that hangs too.
 */
import { HeadraceError } from "../base/errors.ts";
import { descriptorLimit, Engine } from "../engine/engine.ts";
import { Churn } from "./churn.ts";
import { Client } from "./client.ts";
import { RoundClock } from "./clock.ts";
import { ClosedLoop } from "./closed-loop.ts";
import { Connector } from "./connector.ts";
import { Encryption } from "./encryption.ts";
import { Flood } from "./flood.ts";
import { Hold } from "./hold.ts";
import { Latencies } from "./latency.ts";
import type { Load, Traffic } from "./load.ts";
import { OpenLoop } from "./open-loop.ts";
import { Opening } from "./opening.ts";
import type { LoadShare } from "./options.ts";
import { Payload } from "./payload.ts";
import type { LoadReport } from "./report.ts";
import { type Snapshot, Tally } from "./tally.ts";

/** Descriptors that a process needs for itself. */
const SPARE_DESCRIPTORS = 64;
/** Late replies are waited for as long as bytes keep coming, and this long after the last, ms. */
const DRAIN_QUIET_MS = 2_000;
/** But not longer than this in all, ms. */
const DRAIN_MS = 10_000;
/** For the server to answer our FINs, ms. */
const FAREWELL_MS = 1_000;
const POLL_MS = 5;

export class Generator implements Load {
  readonly engine: Engine;
  readonly share: LoadShare;
  readonly payload: Payload;
  readonly tally: Tally = new Tally();
  readonly latencies: Latencies = new Latencies();
  readonly clock: RoundClock = new RoundClock();
  readonly traffic: Traffic;
  readonly encryption: Encryption | undefined;
  readonly #clients: readonly Client[];
  readonly #opening: Opening;
  readonly #connector: Connector;
  #first: Snapshot;
  #arrivedAt = 0;
  #arrivedBytes = 0;

  /** Throws `usage` when the descriptors do not suffice, `tls-unavailable` where this Node has no TLS. */
  constructor(share: LoadShare) {
    checkDescriptors(share);
    this.share = share;
    this.payload = new Payload(share.codec, share.sizeBytes);
    this.engine = new Engine({ totals: this.clock.totals });
    this.encryption = share.tls === "off" ? undefined : new Encryption(this.engine, share);
    this.#connector = new Connector(this);
    const count = share.mode === "churn" ? 0 : share.connections;
    this.#clients = Array.from({ length: count }, (_, index) => new Client(this, share.first + index, index));
    this.#opening = new Opening(this, this.#connector, this.#clients);
    this.traffic = this.#makeTraffic();
    this.#first = this.tally.snapshot();
    this.engine.onTick(() => this.#tick());
  }

  get decided(): number {
    return this.tally.opened + this.tally.failures;
  }

  opened(client: Client): void {
    this.traffic.opened(client);
    if (this.share.mode !== "churn") this.#opening.decided(client);
  }

  gone(client: Client): void {
    this.traffic.gone?.(client);
    if (this.share.mode !== "churn") this.#opening.decided(client);
  }

  /** Settles when every connect is decided. */
  connect(): Promise<void> {
    this.#opening.start();
    this.engine.flush();
    return this.#opening.done;
  }

  go(): void {
    this.traffic.go();
    this.engine.flush();
  }

  /** The window starts here: what came before counts no more. */
  measure(): void {
    this.latencies.clear();
    this.traffic.measure?.(this.clock.fresh());
    this.#first = this.tally.snapshot();
  }

  /** Ends the window, waits for late replies as long as that makes sense, and reports. The connections stay open. */
  async stop(): Promise<LoadReport> {
    let last = this.tally.snapshot();
    this.traffic.stop(this.clock.fresh());
    if (this.share.mode !== "churn") this.#opening.stop();
    await this.#drained();
    this.traffic.finish?.(this.clock.fresh());
    // A hold is over when every message is answered, not when the last one was sent.
    if (this.share.mode === "hold") last = this.tally.snapshot();
    return this.#report(last);
  }

  /** Ends the connections as asked, and the engine. */
  async leave(): Promise<void> {
    for (const client of this.#clients) client.end(this.share.close);
    this.engine.flush();
    await this.#until(() => this.engine.open === 0, FAREWELL_MS);
    this.engine.shutdown();
  }

  #makeTraffic(): Traffic {
    switch (this.share.mode) {
      case "closed":
        return new ClosedLoop(this, this.#clients);
      case "open":
        return new OpenLoop(this, this.#clients);
      case "flood":
        return new Flood(this, this.#clients);
      case "churn":
        return new Churn(this, this.#connector);
      case "hold":
        return new Hold(this);
    }
  }

  #tick(): void {
    const time = this.clock.fresh();
    if (this.share.mode !== "churn") this.#opening.tick(time);
    this.traffic.tick?.(time);
    if (this.tally.bytesReceived === this.#arrivedBytes) return;
    this.#arrivedBytes = this.tally.bytesReceived;
    this.#arrivedAt = time;
  }

  async #drained(): Promise<void> {
    const { mode, timeoutMs } = this.share;
    const quietMs = mode === "hold" ? timeoutMs : DRAIN_QUIET_MS;
    const mostMs = mode === "hold" ? timeoutMs : DRAIN_MS;
    const from = this.clock.fresh();
    this.#arrivedAt = from;
    const idle = (): boolean => this.tally.awaited === 0 && this.#connector.deadlines.size === 0;
    await this.#until(() => idle() || this.clock.fresh() > this.#arrivedAt + quietMs, mostMs);
    this.#connector.deadlines.abandon();
    this.engine.flush();
  }

  /** Settles when `ready` says so, or when time is up. Without this timer nothing would keep looking. */
  #until(ready: () => boolean, mostMs: number): Promise<void> {
    const deadline = performance.now() + mostMs;
    return new Promise((resolve) => {
      const look = (): void => {
        if (!ready() && performance.now() < deadline) return;
        clearInterval(timer);
        resolve();
      };
      const timer = setInterval(look, POLL_MS);
      look();
    });
  }

  #report(last: Snapshot): LoadReport {
    const { tally } = this;
    const first = this.#first;
    const sent = last.sent - first.sent;
    const verified = last.verified - first.verified;
    return {
      requested: tally.requested,
      opened: tally.opened,
      failed: tally.failed,
      resets: tally.resets,
      closedByPeer: tally.closedByPeer,
      sent,
      verified,
      received: verified + last.wrong - first.wrong,
      mismatched: tally.wrong + tally.unexpected,
      outstanding: tally.awaited + tally.lost,
      unsent: tally.unsent,
      bytesSent: sent * this.payload.bytes,
      bytesReceived: last.bytesReceived - first.bytesReceived,
      seconds: (last.at - first.at) / 1000,
      cpuSeconds: (last.cpuMicros - first.cpuMicros) / 1e6,
      startedAt: first.epochMs,
      endedAt: last.epochMs,
      latencies: this.latencies.counts(),
      ...(tally.mismatch === undefined ? {} : { mismatch: tally.mismatch }),
    };
  }
}

function checkDescriptors({ connections, processes, all }: LoadShare): void {
  const limit = descriptorLimit();
  const most = limit - SPARE_DESCRIPTORS;
  if (connections <= most) return;
  const advice = `use --processes ${Math.ceil(all / most)}, or raise the limit (ulimit -n)`;
  throw new HeadraceError(
    "usage",
    `--connections: ${all} in ${processes} ${processes === 1 ? "process" : "processes"} need ${connections} descriptors${processes === 1 ? "" : " each"}, ` +
      `and the limit is ${limit}; ${advice}`,
    { option: "--connections", given: String(all), allowed: String(most * processes) },
  );
}
