/**
 * `headrace run`, from a checked configuration to the exit code. Everything that can be refused is refused before
 * the first process is started; everything that was claimed is given back in the reverse order, or handed on to the
 * next generation, whose this process then is no more.
 */

import type { HandedSessions } from "../admin/auth.ts";
import { EXIT, exitCodeOf, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { closeLog, createLogger } from "../base/log.ts";
import { within } from "../base/within.ts";
import type { Config } from "../config/config.ts";
import type { ChangeRequest } from "../control/protocol.ts";
import { type ControlHandlers, ControlServer } from "../control/server.ts";
import type { DrainingStatus } from "../control/status.ts";
import { type InheritedSocket, inheritedSockets } from "../os/activation.ts";
import { addon } from "../os/addon.ts";
import { halfOf } from "../os/admission-table.ts";
import { peerOf } from "../os/descriptors.ts";
import { openNotifier } from "../os/notify.ts";
import { probeAddresses } from "./addresses.ts";
import { AdminPort, type PreparedAdmin } from "./admin-port.ts";
import { AdminDesk } from "./admin-source.ts";
import { Aftermath } from "./aftermath.ts";
import { Certificates } from "./certificates.ts";
import { adoptControl, type ControlClaim, claimControl } from "./control-claim.ts";
import { diagnose } from "./diagnosis.ts";
import { ended } from "./ended.ts";
import type { HandoverChannel } from "./handover-channel.ts";
import { placeInherited } from "./inherited.ts";
import { serviceLabel } from "./label.ts";
import { readMachine } from "./machine.ts";
import { freshOrigin, type Origin } from "./origin.ts";
import { removePidFile, writePidFile } from "./pid-file.ts";
import { PinnedPaths } from "./pinned-paths.ts";
import { Primary } from "./primary.ts";
import { removeProfiles } from "./profiling.ts";
import { defaultControlPath, openRuntimeDirectory, ownUid } from "./runtime-directory.ts";
import { ServiceManager } from "./service-manager.ts";
import type { SignalInbox } from "./signals.ts";
import { socketName } from "./socket-names.ts";
import { type ServerIdentity, serverStatus } from "./status.ts";
import type { Launch } from "./successor.ts";
import { beginTakeover, completeTakeover, serveDeparting, type Takeover } from "./takeover.ts";
import { careForTls } from "./tls-care.ts";
import { refuseAsInit, upgrade } from "./upgrade.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** What is announced once every worker accepts. */
export interface Ready {
  readonly version: string;
  readonly generation: number;
  readonly listeners: readonly { readonly name: string; readonly address: string; readonly service: string }[];
  readonly workers: number;
  readonly control: string;
  readonly source: string;
  /** The admin server's address, and where its generated token is. */
  readonly admin?: { readonly address: string; readonly tokenFile?: string };
}

export interface RunOptions {
  readonly config: Config;
  /** Reads the configuration anew, from where `config` came. Throws what is wrong with it. */
  readonly readConfig: () => Config;
  readonly signals: SignalInbox;
  readonly version: string;
  /** A terminal: log lines for people. */
  readonly pretty: boolean;
  /** Told in place of the log's "ready" line. */
  readonly announce?: ((ready: Ready) => void) | undefined;
  /** How this process was started, for an upgrade. */
  readonly launch: Omit<Launch, "env">;
  /** An upgrade has started it: the generation before is at the other end of HANDOVER_FD. */
  readonly successor: boolean;
}

/** A generation that still drains gets this long beyond its own deadline when its successor stops too. */
const DEPARTED_GRACE_MS = 2_000;
/** From its last word to the end of its process. */
const ENDED_GRACE_MS = 1_000;
/** For the end of a profile that is being taken. */
const PROFILE_END_MS = 2_000;

/** Serves until it is stopped. Resolves when nothing is left but this process; throws what kept it from serving. */
export async function runPrimary(options: RunOptions): Promise<void> {
  process.title = "headrace primary";
  const { logLevel, logFile } = options.config;
  const log = createLogger({ level: logLevel, pretty: options.pretty, file: logFile });
  let code: number = EXIT.done;
  try {
    await new ServerProcess(options, log).run();
  } catch (err) {
    // The error itself is for stderr; what a service threw underneath has a stack, and that belongs in the log.
    if (err instanceof Error && err.cause) log.error({ err: err.cause }, err.message);
    code = exitCodeOf(err);
    throw err;
  } finally {
    if (!(await closeLog(log))) addon().exitNow(code);
  }
}

class ServerProcess {
  readonly #options: RunOptions;
  readonly #log: Logger;
  readonly #manager: ServiceManager;
  readonly #inherited: readonly InheritedSocket[];
  readonly #launch: Launch;
  readonly #aftermath: Aftermath = new Aftermath();
  readonly #pins: PinnedPaths = new PinnedPaths();
  /** Services at the paths that their links led to when they were first seen. */
  readonly #config: Config;
  readonly #certificates: Certificates;
  #claim: ControlClaim | undefined;
  #admin: AdminPort | undefined;
  #desk: AdminDesk | undefined;
  /** An upgrade's: until this generation is the main one. */
  #preparedAdmin: PreparedAdmin | undefined;
  #server: ControlServer | undefined;
  /** Before this one is the main primary: where its failures are told. */
  #trial: HandoverChannel | undefined;
  #predecessor: { readonly takeover: Takeover; readonly since: string; readonly gone: Promise<void> } | undefined;

  constructor(options: RunOptions, log: Logger) {
    this.#options = options;
    this.#log = log;
    this.#config = this.#pins.pin(options.config);
    this.#certificates = new Certificates(log);
    const notifier = openNotifier(process.env, process.pid, (problem) => log.warn(problem));
    this.#manager = new ServiceManager(notifier, !options.successor);
    this.#inherited = inheritedSockets(process.env, process.pid, (problem) => log.warn(problem));
    // After both, which take out of the environment what is meant for this process alone.
    this.#launch = { ...options.launch, env: { ...process.env, ...notifier.environment } };
  }

  async run(): Promise<void> {
    let primary: Primary | undefined;
    try {
      this.#certificates.require(this.#config);
      primary = this.#options.successor ? await this.#takeOver() : await this.#startFirst();
      const { closed, forced } = await primary.stopped;
      await this.#seeOff();
      this.#log.info({ closed, forced }, primary.departing ? "left to the next generation" : "stopped");
    } finally {
      this.#manager.end();
      if (this.#desk) await within(PROFILE_END_MS, this.#desk.end(), () => {});
      this.#preparedAdmin?.cancel();
      await this.#admin?.end();
      // The next generation's pid is in the file by now, unless it uses another file.
      if (this.#config.pidFile !== undefined) removePidFile(this.#config.pidFile);
      if (!primary?.departing) this.#claim?.release();
    }
  }

  /** A configuration that cannot hold here is said before it has to. */
  #warnOfMachine(): void {
    for (const { severity, message, repair } of diagnose(this.#config, readMachine())) {
      if (severity === "problem") this.#log.warn({ repair }, message);
    }
  }

  async #startFirst(): Promise<Primary> {
    this.#warnOfMachine();
    const config = this.#config;
    const origin = this.#inherit();
    probeAddresses(config.listeners.filter((listener) => !origin.slots.has(0, listener)));
    const uid = ownUid();
    const path = config.control ?? defaultControlPath(process.env, uid);
    openRuntimeDirectory(path, process.env, uid);
    this.#claim = await claimControl(path);
    removeProfiles(path);
    const primary = this.#createPrimary(origin);
    const admin = this.#openAdmin(primary, path, uid);
    // Health checks see it start.
    await (await admin.prepare(config.admin)).commit();
    await this.#listenControl(primary, this.#claim);
    this.#manager.begin(primary.crew);
    if (!(await primary.start())) return primary;
    this.#enterService(primary, this.#claim);
    primary.trim();
    return primary;
  }

  /** From the descriptor store or a socket unit, if this is a service that has either. */
  #inherit(): Origin {
    const config = this.#config;
    const sockets = this.#inherited;
    const origin = freshOrigin();
    for (const name of placeInherited(sockets, config, origin.slots)) this.#manager.forget(name);
    if (sockets.length > 0) this.#log.info({ sockets: sockets.length }, "sockets were inherited from systemd");
    return origin;
  }

  async #takeOver(): Promise<Primary> {
    const config = this.#config;
    const takeover = await beginTakeover(config, this.#options.version);
    if (takeover.countsApart) {
      const { generation } = takeover.before;
      this.#log.warn({ generation }, `until generation ${generation} has gone, limits hold for each of the two apart`);
    }
    this.#trial = takeover.channel;
    const primary = this.#createPrimary(takeover.origin, takeover.workers);
    const alone = !this.#manager.present;
    let signedIn: HandedSessions | undefined;
    const onSignedIn = (sessions: HandedSessions): void => {
      signedIn = sessions;
    };
    try {
      const admin = this.#openAdmin(primary, takeover.handed.path, ownUid());
      // What may fail; until this generation is the main one the other answers.
      this.#preparedAdmin = await admin.prepare(config.admin, takeover.handed.admin);
      if (!(await completeTakeover({ takeover, primary, log: this.#log, alone, onSignedIn }))) {
        primary.stop(true);
        return primary;
      }
    } catch (error) {
      // The old generation tells whoever asked for the upgrade.
      await takeover.channel.send({ type: "failed", message: messageOf(error) }).catch(() => {});
      throw error;
    }
    this.#trial = undefined;
    // It may have been rotated before signals came here.
    this.#reopenLogs(primary);
    // From here on there is no way back: whatever fails is said, and the service goes on.
    const { path, control, lock } = takeover.handed;
    this.#claim = adoptControl(path, control, lock);
    const prepared = this.#preparedAdmin;
    this.#preparedAdmin = undefined;
    await prepared.commit(signedIn).catch((err) => this.#log.error({ err }, "there is no admin server now"));
    await this.#listenControl(primary, this.#claim);
    this.#manager.begin(primary.crew);
    for (const { key, slot } of takeover.dropped) this.#manager.forget(socketName(key, slot));
    primary.arrived(`upgraded: process ${process.pid} serves, version ${this.#options.version}`);
    this.#enterService(primary, this.#claim);
    this.#serveDeparting(takeover, primary);
    primary.trim();
    return primary;
  }

  #serveDeparting(takeover: Takeover, primary: Primary): void {
    const ended = halfOf(takeover.before.generation);
    if (!takeover.channel.open) {
      takeover.channel.close();
      this.#aftermath.begin(primary.crew.admission, ended);
      return;
    }
    const gone = new Promise<void>((resolve) => {
      serveDeparting(takeover, primary, this.#log, () => {
        this.#predecessor = undefined;
        this.#aftermath.begin(primary.crew.admission, ended);
        resolve();
      });
    });
    this.#predecessor = { takeover, since: new Date().toISOString(), gone };
  }

  /** A successor that stops waits for the generation before it, which has its own deadline. */
  async #seeOff(): Promise<void> {
    const before = this.#predecessor;
    if (!before) return;
    const { channel, before: generation } = before.takeover;
    await channel.send({ type: "finish" }).catch(() => {});
    await within(this.#config.drainMs + DEPARTED_GRACE_MS, before.gone, () => {});
    if (this.#predecessor) {
      this.#log.warn({ pid: generation.pid }, "the generation before did not end in time: killing it");
      try {
        process.kill(generation.pid, "SIGKILL");
      } catch {
        // It has just gone.
      }
    }
    await ended(generation.pid, ENDED_GRACE_MS);
  }

  #createPrimary(origin: Origin, workers: number = this.#config.workers): Primary {
    const { pretty, readConfig } = this.#options;
    const primary = new Primary({
      config: this.#config,
      workers,
      onTrial: this.#options.successor,
      log: this.#log,
      pretty,
      origin,
      certificates: this.#certificates,
      observer: this.#manager,
      readConfig: () => this.#pins.pin(readConfig()),
      prepareAdmin: async (after) => this.#admin?.prepare(after.admin),
      onCrash: (worker) => this.#onCrash(worker),
    });
    this.#obeySignals(primary);
    return primary;
  }

  /** Before the old generation has let go, a worker that dies is a reason to go back to it. */
  #onCrash(worker: WorkerProcess): void {
    const message = `worker ${worker.slot} of the new generation ${worker.ending}`;
    this.#trial?.send({ type: "failed", message: worker.failure?.message ?? message }).catch(() => {});
  }

  #enterService(primary: Primary, claim: ControlClaim): void {
    const { addresses, crew, config } = primary;
    const { version, announce } = this.#options;
    const listeners = config.listeners.map((listener, index) => ({
      name: listener.name,
      address: addresses[index] ?? listener.addressText,
      service: serviceLabel(listener.service),
    }));
    this.#writePidFile(crew.generation);
    careForTls(primary, this.#log);
    const { generation } = crew;
    const workers = crew.owners.length;
    const admin = this.#readyAdmin();
    const { source } = config;
    const ready: Ready = { version, generation, listeners, workers, control: claim.path, source, ...admin };
    announce?.(ready);
    if (!announce || config.logFile !== undefined) this.#log.info(ready, "ready");
    this.#manager.ready(`generation ${generation}: ${workers} workers`, crew);
  }

  #writePidFile(generation: number): void {
    const { pidFile } = this.#config;
    if (pidFile === undefined) return;
    try {
      writePidFile(pidFile);
    } catch (error) {
      // At a first start it is a fault like any other; after an upgrade nobody could serve in this one's place.
      if (generation === 1) throw error;
      this.#log.error({ reason: messageOf(error) }, "the pid file is not right: it still names the primary before");
    }
  }

  #readyAdmin(): Pick<Ready, "admin"> {
    const { address, tokenFile } = this.#admin ?? {};
    return address === undefined ? {} : { admin: { address, ...(tokenFile === undefined ? {} : { tokenFile }) } };
  }

  #identity(primary: Primary, control: string): ServerIdentity {
    return {
      version: this.#options.version,
      control,
      admin: () => this.#admin?.address,
      predecessor: () => this.#predecessorStatus(primary),
    };
  }

  /** It serves once a configuration is committed to it. */
  #openAdmin(primary: Primary, control: string, uid: number): AdminPort {
    const log = this.#log;
    this.#desk = new AdminDesk({ primary, log, identity: this.#identity(primary, control) });
    const { successor } = this.#options;
    this.#admin = new AdminPort({ log, source: this.#desk.source, control, uid, successor });
    return this.#admin;
  }

  async #listenControl(primary: Primary, claim: ControlClaim): Promise<void> {
    const identity = this.#identity(primary, claim.path);
    const inspection = this.#desk?.inspection;
    const handlers: ControlHandlers = {
      status: () => serverStatus(primary, identity),
      stop: (fast) => {
        this.#log.info({ fast }, "stopping: asked over the control socket");
        primary.stop(fast);
        return primary.stopped;
      },
      ...(inspection ? { inspect: inspection } : {}),
      change: async (request) => ({ done: this.#change(primary, request).then((message) => ({ message })) }),
    };
    this.#server = await ControlServer.listen(claim.descriptor, { uid: ownUid(), peerOf, handlers });
  }

  #predecessorStatus({ crew }: Primary): DrainingStatus | undefined {
    if (!this.#predecessor) return undefined;
    const { takeover, since } = this.#predecessor;
    const { pid, generation } = takeover.before;
    return { pid, generation, open: crew.admission.countHalf(halfOf(generation), 0), since };
  }

  /** Throws at once when it cannot begin. */
  #change(primary: Primary, request: ChangeRequest): Promise<string> {
    switch (request.type) {
      case "reload":
        return primary.reload(request.replace);
      case "scale":
        return primary.scale(request.workers);
      case "drain":
        return primary.drain(request.worker);
      case "upgrade":
        return this.#upgrade(primary);
    }
  }

  #upgrade(primary: Primary): Promise<string> {
    refuseAsInit();
    const claim = this.#claim;
    if (!claim) throw new Error("upgrade: no control socket is claimed");
    if (this.#predecessor) throw primary.busy("upgrade", "the generation before still drains");
    return primary.change("upgrade", "upgrading", () =>
      upgrade({
        primary,
        log: this.#log,
        launch: this.#launch,
        aftermath: this.#aftermath,
        handed: {
          control: claim.descriptor,
          lock: claim.lock,
          path: claim.path,
          ...(this.#admin?.handed ? { admin: this.#admin.handed } : {}),
        },
        signedIn: () => this.#admin?.sessions,
        announce: (pid, status) => this.#manager.handOn(pid, status),
        onStep: (step) => primary.step(step),
        onDeparted: (channel) => this.#leave(primary, channel),
      }),
    );
  }

  /** The control socket is the successor's; a client that waits for the upgrade still gets its answer here. */
  #leave(primary: Primary, channel: HandoverChannel): void {
    this.#server?.stopAccepting();
    void this.#desk?.end();
    void this.#admin?.leave();
    channel.listen(
      ({ message }) => {
        if (message.type === "reopenLogs") this.#reopenLogs(primary);
        if (message.type !== "finish") return;
        this.#log.info("the next generation stops too");
        primary.hasten();
      },
      () => {
        this.#log.warn("the next generation has gone");
        if (primary.state !== "stopping") primary.stop(false);
      },
    );
    void primary.stopped.then(() => channel.close());
  }

  #obeySignals(primary: Primary): void {
    let departing = 0;
    const change = (signal: NodeJS.Signals, begin: () => Promise<string>): void => {
      this.#log.info({ signal }, `${signal} received`);
      try {
        // How it ends is logged where it ends.
        begin().catch(() => {});
      } catch (error) {
        this.#log.warn({ signal, reason: (error as Error).message }, `${signal} refused`);
      }
    };
    this.#options.signals.deliver({
      stop: (signal) => {
        // A service manager that stops the unit signals every process; this one is on its way out already.
        if (primary.departing && departing++ === 0) {
          this.#log.info({ signal }, "draining already for the next generation");
          return;
        }
        const fast = primary.state === "stopping" || this.#trial !== undefined;
        this.#log.info({ signal, fast }, fast ? `stopping now: ${signal}` : `stopping: ${signal}`);
        primary.stop(fast);
      },
      change: {
        SIGHUP: () => change("SIGHUP", () => primary.reload(false)),
        SIGUSR2: () => change("SIGUSR2", () => this.#upgrade(primary)),
        SIGTTIN: () => change("SIGTTIN", () => primary.scale(primary.crew.wanted + 1)),
        SIGTTOU: () => change("SIGTTOU", () => primary.scale(Math.max(1, primary.crew.wanted - 1))),
      },
      reopen: (signal) => {
        if (primary.config.logFile === undefined) {
          this.#log.info({ signal }, `${signal}: there is no log.file to reopen`);
          return;
        }
        this.#reopenLogs(primary);
        // Whoever rotates knows the main primary only.
        this.#predecessor?.takeover.channel.send({ type: "reopenLogs" }).catch(() => {});
      },
    });
  }

  #reopenLogs(primary: Primary): void {
    try {
      primary.reopenLogs();
      this.#log.info("the log file was reopened");
    } catch (error) {
      this.#log.error({ reason: messageOf(error) }, "the log file cannot be reopened: the one before is used on");
    }
  }
}
