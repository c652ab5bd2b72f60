/**
 * One process's part of a load over UDP. As generator.ts, which main.ts drives in the same way, but nothing is opened,
 * and nobody waits for an answer that does not come: in the closed loop a message without one is lost after a second,
 * and the next one takes its place; in the open loop messages leave when they are due, whatever comes back.
 */
import { HeadraceError } from "../base/errors.ts";
import { endWords } from "../engine/datagram-end.ts";
import { Engine } from "../engine/engine.ts";
import { TICK_MS } from "../engine/layout.ts";
import { addon } from "../os/addon.ts";
import { check } from "../os/errno.ts";
import { DATAGRAM_FIELDS } from "../os/scoreboard.ts";
import { SOCKET_OPTION_NAMES } from "../os/socket.ts";
import { RoundClock } from "./clock.ts";
import { DatagramFlow, type DatagramLoad } from "./datagram-client.ts";
import { Latencies } from "./latency.ts";
import type { LoadShare } from "./options.ts";
import { Payload } from "./payload.ts";
import type { LoadReport } from "./report.ts";
import { type Snapshot, Tally } from "./tally.ts";

/** Listeners of one engine, each with a socket to send by. */
const FLOWS_MOST = 64;
/** An answer that takes longer is lost, ms. */
const LOST_MS = 1_000;
/** Sleep only when nothing is due for this long: a timer may be late by as much, ms. */
const SPIN_MS = 2;
/** Messages of one turn of the open loop, so that answers are read in between. */
const PER_TURN = 256;

export class DatagramGenerator implements DatagramLoad {
  readonly tally: Tally = new Tally();
  readonly payload: Payload;
  readonly server: Int32Array;
  readonly datagrams: Engine["datagrams"];
  readonly #engine: Engine;
  readonly #share: LoadShare;
  readonly #clock: RoundClock = new RoundClock();
  readonly #latencies: Latencies = new Latencies();
  readonly #flows: readonly DatagramFlow[];
  readonly #sockets: number[] = [];
  #first: Snapshot;
  #phase: "idle" | "running" | "over" = "idle";
  /** The open loop: when it began, and how many were due since. */
  #startedAt = 0;
  #due = 0;
  #ticks = 0;

  /** Throws `usage` when there are more flows than one process can have. */
  constructor(share: LoadShare) {
    const { connections, first, host, port } = share;
    if (connections > FLOWS_MOST) {
      const allowed = String(FLOWS_MOST * share.processes);
      throw new HeadraceError("usage", `--connections: UDP has up to ${FLOWS_MOST} flows in each of --processes`, {
        option: "--connections",
        given: String(share.all),
        allowed,
      });
    }
    this.#share = share;
    this.payload = new Payload("raw", share.sizeBytes);
    this.server = endWords(host, port, 0);
    this.#engine = new Engine({ totals: this.#clock.totals, slots: 1 });
    this.datagrams = this.#engine.datagrams;
    this.#flows = Array.from({ length: connections }, (_, index) => new DatagramFlow(this, first + index, index));
    this.#first = this.tally.snapshot();
    this.#engine.onTick(() => this.#tick());
  }

  get decided(): number {
    return this.tally.opened;
  }

  async connect(): Promise<void> {
    const { host, sources, sizeBytes } = this.#share;
    const options = new Int32Array(SOCKET_OPTION_NAMES.length).fill(-1);
    for (const flow of this.#flows) {
      this.tally.requested += 1;
      const from = sources[flow.number % sources.length] ?? (host.includes(":") ? "::" : "0.0.0.0");
      const fd = check(addon().udpBind(from, 0, true, options), "binding a UDP socket");
      this.#sockets.push(fd);
      const counters = new Float64Array(DATAGRAM_FIELDS.length);
      this.datagrams.rule(flow.row, { mostBytes: sizeBytes, factor: 0, counters });
      this.datagrams.receive(flow.row, flow.row, fd, flow);
      this.datagrams.sendBy(flow.row, fd);
      this.tally.opened += 1;
    }
  }

  answered(flow: DatagramFlow, sentAt: number): void {
    const time = this.#clock.now();
    this.#latencies.record(time - sentAt);
    if (this.#phase === "running" && this.#share.mode === "closed") flow.send(time);
  }

  go(): void {
    this.#phase = "running";
    this.#startedAt = this.#clock.fresh();
    if (this.#share.mode === "open") this.#pump();
    else this.#refill(this.#startedAt);
    this.#engine.flush();
  }

  measure(): void {
    this.#latencies.clear();
    this.#first = this.tally.snapshot();
  }

  async stop(): Promise<LoadReport> {
    this.#phase = "over";
    const last = this.tally.snapshot();
    this.#engine.flush();
    const until = this.#clock.fresh() + LOST_MS;
    const awaited = (): boolean => this.#flows.some((flow) => flow.awaited > 0);
    while (awaited() && this.#clock.fresh() < until) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const flow of this.#flows) flow.expire(Number.POSITIVE_INFINITY);
    return this.#report(last);
  }

  async leave(): Promise<void> {
    this.#engine.shutdown();
    for (const fd of this.#sockets) addon().fdClose(fd);
  }

  /** The open loop. */
  #pump(): void {
    if (this.#phase !== "running") return;
    const intervalMs = 1000 / (this.#share.messagesPerSecond ?? 1);
    const time = this.#clock.fresh();
    const due = Math.floor((time - this.#startedAt) / intervalMs);
    for (let count = 0; this.#due < due && count < PER_TURN; count++) {
      const flow = this.#flows[this.#due % this.#flows.length] as DatagramFlow;
      flow.send(this.#startedAt + this.#due++ * intervalMs);
    }
    this.#engine.flush();
    const waitMs = this.#startedAt + this.#due * intervalMs - time;
    if (waitMs > SPIN_MS) setTimeout(() => this.#pump(), waitMs - SPIN_MS);
    else setImmediate(() => this.#pump());
  }

  /** The closed loop: as many in flight as there should be. */
  #refill(time: number): void {
    for (const flow of this.#flows) while (flow.awaited < this.#share.pipeline) flow.send(time);
  }

  #tick(): void {
    const every = LOST_MS / TICK_MS / 4;
    if (this.#phase !== "running" || ++this.#ticks % every !== 0) return;
    const time = this.#clock.fresh();
    for (const flow of this.#flows) flow.expire(time - LOST_MS);
    if (this.#share.mode !== "closed") return;
    this.#refill(time);
    this.#engine.flush();
  }

  #report(last: Snapshot): LoadReport {
    const { tally } = this;
    const first = this.#first;
    const [sent, verified] = [last.sent - first.sent, last.verified - first.verified];
    return {
      requested: tally.requested,
      opened: tally.opened,
      failed: {},
      resets: {},
      closedByPeer: 0,
      sent,
      verified,
      received: verified + last.wrong - first.wrong,
      mismatched: tally.wrong,
      outstanding: tally.lost,
      unsent: 0,
      bytesSent: sent * this.payload.bytes,
      bytesReceived: last.bytesReceived - first.bytesReceived,
      seconds: (last.at - first.at) / 1000,
      cpuSeconds: (last.cpuMicros - first.cpuMicros) / 1e6,
      startedAt: first.epochMs,
      endedAt: last.epochMs,
      latencies: this.#latencies.counts(),
    };
  }
}
