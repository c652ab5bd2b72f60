/**
 * A worker's life: it does what the primary says, and reports. When it cannot go on it
 * says why and ends; being replaced is the primary's business. When the primary has gone it stops by itself.
 */
import { closeSync } from "node:fs";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { closeLog, createLogger, type Logger } from "../base/log.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import type { Config } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import {
  type FromWorker,
  MOVE_TAG,
  type StartOrder,
  type ToWorker,
  WORKER_FDS,
  type WorkerFailure,
} from "../control/worker-messages.ts";
import { addon } from "../os/addon.ts";
import { AdmissionTable } from "../os/admission-table.ts";
import { CloseRing } from "../os/close-rings.ts";
import { receiveDescriptors } from "../os/descriptors.ts";
import { check } from "../os/errno.ts";
import { Scoreboard, type WorkerBlock } from "../os/scoreboard.ts";
import { TopicRings } from "../os/topic-rings.ts";
import { answer } from "./answers.ts";
import { checkProtocol, loadService } from "./load-service.ts";
import { receiveConnections, sendConnections } from "./migration.ts";
import { openServer, type ServedListener, type WorkerServer } from "./server.ts";
import { slotsToServe } from "./siblings.ts";
import { HeldSockets } from "./sockets.ts";
import { type StackWatch, watchStack } from "./stack-watch.ts";

/** How long a worker without a primary goes on answering what is in flight. */
const ORPHAN_DRAIN_MS = 5_000;
const ORPHAN_GRACE_MS = 500;

/** Resolves when the message is with the kernel: what was said before exit() is not lost. */
function report(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected && process.send) process.send(message, () => resolve());
    else resolve();
  });
}

function failureOf(error: unknown): WorkerFailure {
  const { code, fields } = error instanceof HeadraceError ? error : { code: "worker-failed" as const, fields: {} };
  const origin = error instanceof HeadraceError ? error.cause : error;
  const stack = origin instanceof Error && origin.stack ? { stack: origin.stack } : {};
  const message = error instanceof HeadraceError ? error.message : `failed: ${messageOf(error)}`;
  return { type: "failed", code, message, fields, ...stack };
}

/** What a worker has from the `loaded` report on. */
interface Serving {
  readonly order: StartOrder<Config>;
  readonly scoreboard: Scoreboard;
  readonly block: WorkerBlock;
  readonly server: WorkerServer;
  readonly sockets: HeldSockets;
  readonly stack: StackWatch;
}

class Worker {
  #log: Logger | undefined;
  #serving: Serving | undefined;
  /** Those that came after the start order. */
  #tls: TlsSecrets | undefined;
  #stopping = false;

  async obey(order: ToWorker<Config>): Promise<void> {
    try {
      await this.#carryOut(order);
    } catch (error) {
      await this.#fail(failureOf(error));
    }
  }

  /** A bug, in this program or in the service's code. The state is unknown, so nothing is drained. */
  async crash(error: unknown): Promise<void> {
    // First of all and at once: the round in which it happened is lost, and serving on with half of it would give
    // clients each other's bytes.
    this.#serving?.server.abort();
    this.#log?.fatal({ err: error }, `worker crashed: ${messageOf(error)}`);
    await this.#fail({ type: "failed", code: "worker-failed", message: `crashed: ${messageOf(error)}`, fields: {} });
  }

  /** The primary has died: nobody will replace this worker or stop it. */
  orphaned(): void {
    setTimeout(() => process.exit(1), ORPHAN_DRAIN_MS + ORPHAN_GRACE_MS);
    this.#log?.error("the primary has gone: stopping");
    const serving = this.#serving;
    if (!serving) process.exit(1);
    void this.#stop(serving, {
      drainMs: Math.min(ORPHAN_DRAIN_MS, serving.order.config.drainMs),
      tlsMs: 0,
      queued: true,
    });
  }

  async #carryOut(order: ToWorker<Config>): Promise<void> {
    if (order.type === "start") return this.#start(order);
    if (order.type === "secure") return this.#secure(order.tls);
    const serving = this.#serving;
    if (!serving) throw new Error(`worker: "${order.type}" came before it was ready`);
    switch (order.type) {
      case "bind":
      case "take":
        return this.#obtain(serving, order);
      case "accept":
        return this.#accept(serving);
      case "drop":
        return this.#drop(serving, order.slot);
      case "unlist":
        return this.#unlist(serving, order.keys);
      case "retire":
        this.#refuseAll(serving, order.queued);
        serving.sockets.close();
        return report({ type: "retired" });
      case "moveOut":
      case "moveIn":
        return this.#move(serving, order);
      case "configure":
        return this.#configure(serving, order.config, order.tls);
      case "ask":
        return this.#answer(serving, order);
      case "stop":
        return this.#stop(serving, order);
      case "abort":
        return this.#abort(serving);
    }
  }

  async #start(order: StartOrder<Config>): Promise<void> {
    const { slot, seat, config, pretty, generation } = order;
    process.title = `headrace worker ${slot}`;
    const log = createLogger({ level: config.logLevel, worker: slot, pretty });
    this.#log = log;
    const scoreboard = Scoreboard.attach(WORKER_FDS.scoreboard);
    const admission = AdmissionTable.attach(WORKER_FDS.admission, WORKER_FDS.wake);
    if (!admission) throw new Error("worker: the admission table is another version's");
    check(addon().fdInherit(WORKER_FDS.wake), "the admission table's eventfd");
    closeSync(WORKER_FDS.scoreboard);
    // Rings are mapped when they are first used.
    check(addon().fdInherit(WORKER_FDS.topics), "topics");
    check(addon().fdInherit(WORKER_FDS.tickets), "ticket keys");
    const block = scoreboard.block(seat);
    block.set("pid", process.pid);
    const listeners: ServedListener[] = [];
    // The sockets come later, with `bind` or `take`: whatever can fail before there are clients should.
    for (const [index, listener] of config.listeners.entries()) {
      const service = await loadService(listener.service);
      checkProtocol(listener, service);
      listeners.push({ config: listener, service, row: order.rows[index] ?? index });
    }
    const server = await openServer({
      listeners,
      block,
      admission: { table: admission, column: order.column },
      worker: slot,
      idPrefix: `${generation}.${slot}-${Date.now().toString(36)}`,
      config,
      drainMs: config.drainMs,
      bufferMemory: config.bufferMemory,
      tls: { secrets: this.#tls ?? order.tls, tickets: WORKER_FDS.tickets, handshakes: config.handshakes },
      rings: new TopicRings(WORKER_FDS.topics, order.column),
      closes: new CloseRing(WORKER_FDS.closes, order.column),
      tasks: config,
      log,
    });
    closeSync(WORKER_FDS.closes);
    // The engine has mapped it.
    closeSync(WORKER_FDS.admission);
    const stack = watchStack(slot, config.hangMs, pretty);
    server.engine.onTick(() => stack.beat());
    this.#serving = { order, scoreboard, block, server, sockets: new HeldSockets(), stack };
    // They may have come while it was opened.
    if (this.#tls) this.#secure(this.#tls);
    await report({
      type: "loaded",
      handsOff: listeners.some(({ service }) => "handOff" in service && service.handOff !== undefined),
    });
  }

  async #obtain(
    { order: { slot, config }, sockets }: Serving,
    order: Extract<ToWorker<Config>, { type: "bind" | "take" }>,
  ): Promise<void> {
    if (order.type === "take") {
      sockets.take(order.slots, order.listeners);
    } else {
      const unbound = sockets.bind(slot, config.listeners, order.ports, order.exclusive);
      if (unbound) {
        const { errno, listener } = unbound;
        return this.#fail({ type: "failed", code: "system", message: `bind: ${errno}`, fields: { errno }, listener });
      }
    }
    await report({ type: "bound" });
  }

  async #accept(serving: Serving): Promise<void> {
    const { order, server, block, sockets } = serving;
    if (sockets.of(order.slot).length === 0) throw new Error(`worker: has no sockets of slot ${order.slot}`);
    server.accept(order.slot, sockets.of(order.slot));
    server.engine.onTick(() => this.#lookAfterSiblings(serving));
    block.set("startedAt", Date.now());
    block.set("accepting", 1);
    await report({ type: "accepting" });
  }

  #refuseAll({ block, server }: Serving, queued: boolean): void {
    block.set("accepting", 0);
    for (const slot of server.accepting) server.refuse(slot, { queued });
  }

  #lookAfterSiblings(serving: Serving): void {
    const { order, scoreboard, block, server, sockets } = serving;
    if (block.get("accepting") !== 1) return;
    const slots = sockets.slots.toSorted((a, b) => a - b);
    const wanted = slotsToServe(scoreboard, order, slots, server.engine.now);
    for (const slot of server.accepting) {
      if (slot !== order.slot && !wanted.includes(slot)) server.refuse(slot, { queued: false });
    }
    for (const slot of wanted) {
      if (server.accepting.has(slot)) continue;
      this.#log?.debug({ slot }, `slot ${slot} is not served: accepting for it`);
      try {
        server.accept(slot, sockets.of(slot));
      } catch (err) {
        // A favour to a sibling must not end this worker.
        this.#log?.error({ err, slot }, `slot ${slot} is not served, and cannot be served from here`);
        sockets.drop(slot);
      }
    }
  }

  async #drop({ server, sockets }: Serving, slot: number): Promise<void> {
    server.refuse(slot, { queued: true, substitutes: sockets.of(0) });
    sockets.drop(slot);
    await report({ type: "dropped", slot });
  }

  #unlist({ order, server, sockets }: Serving, keys: readonly string[]): void {
    for (const [index, listener] of order.config.listeners.entries()) {
      if (!keys.includes(listenerKey(listener))) continue;
      server.unlist(index);
      sockets.unlist(index);
    }
  }

  async #move({ server }: Serving, order: Extract<ToWorker<Config>, { type: "moveOut" | "moveIn" }>): Promise<void> {
    const [channel = -1] = receiveDescriptors(WORKER_FDS.channel, MOVE_TAG, 1);
    const log = this.#log as Logger;
    if (order.type === "moveIn") {
      const { moved } = await receiveConnections({ channel, server, log });
      return report({ type: "moved", id: order.id, moved, kept: 0, cut: false });
    }
    const { id, handOff, withinMs, most } = order;
    const choice = most === undefined ? { handOff } : { handOff, most };
    const outcome = await sendConnections({ channel, server, log, withinMs, ...choice });
    await report({ type: "moved", id, ...outcome });
  }

  #secure(secrets: TlsSecrets): void {
    this.#tls = secrets;
    try {
      this.#serving?.server.secure(secrets);
    } catch (err) {
      // The primary has tried them; whoever comes gets those before.
      this.#log?.error({ err }, `new certificates are not used: ${messageOf(err)}`);
    }
  }

  async #configure({ server, stack }: Serving, config: Config, secrets: TlsSecrets): Promise<void> {
    try {
      server.configure(config, secrets);
    } catch (error) {
      return report({ type: "configured", problem: messageOf(error) });
    }
    this.#tls = secrets;
    if (this.#log) this.#log.level = config.logLevel;
    stack.limit(config.hangMs);
    await report({ type: "configured" });
  }

  /** Whatever is wrong with an answer is the asker's to say: it disturbs nobody here. */
  async #answer(
    { server, order }: Serving,
    { id, question }: Extract<ToWorker<Config>, { type: "ask" }>,
  ): Promise<void> {
    try {
      const value = await answer({ server, worker: order.slot, log: this.#log as Logger }, question);
      await report({ type: "answer", id, value });
    } catch (error) {
      await report({ type: "answer", id, problem: messageOf(error) });
    }
  }

  async #stop(
    serving: Serving,
    { drainMs, tlsMs, queued }: { readonly drainMs: number; readonly tlsMs: number; readonly queued: boolean },
  ): Promise<void> {
    if (this.#stopping) {
      serving.server.hasten(drainMs);
      return;
    }
    this.#stopping = true;
    // The sockets close in the turn in which accepting ends, so that no client gets into a queue that nobody will
    // look at again.
    this.#refuseAll(serving, queued);
    serving.sockets.close();
    const { closed, forced } = await serving.server.stop({ drainMs, tlsMs });
    await report({ type: "stopped", closed, forced });
    await this.#leave(0);
  }

  async #abort({ server }: Serving): Promise<void> {
    const forced = server.connections().length;
    server.abort();
    await report({ type: "stopped", closed: 0, forced });
    await this.#leave(0);
  }

  async #fail(failure: WorkerFailure): Promise<void> {
    await report(failure);
    await this.#leave(1);
  }

  async #leave(code: number): Promise<never> {
    if (this.#log && !(await closeLog(this.#log))) addon().exitNow(code);
    process.exit(code);
  }
}

/** Waits for orders. */
export function runWorker(): void {
  // Should this event loop stand still when the primary goes, nothing here would ever notice.
  check(addon().exitWithPeer(WORKER_FDS.channel, ORPHAN_DRAIN_MS + 2 * ORPHAN_GRACE_MS), "watching the primary");
  const worker = new Worker();
  process.on("uncaughtException", (error) => void worker.crash(error));
  process.on("message", (order) => void worker.obey(order as ToWorker<Config>));
  process.once("disconnect", () => worker.orphaned());
  if (!process.connected) worker.orphaned();
}
