/**
 * `headrace run`, from a checked configuration to the exit code. Everything that can be refused is refused before
 * the first process is started; everything that was claimed is given back in the reverse order.
 */
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { closeLog, createLogger } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import { type ControlHandlers, ControlServer } from "../control/server.ts";
import { peerOf } from "../os/descriptors.ts";
import { probeAddresses } from "./addresses.ts";
import { claimControl } from "./control-claim.ts";
import { serviceLabel } from "./label.ts";
import { Primary } from "./primary.ts";
import { defaultControlPath, openRuntimeDirectory, ownUid } from "./runtime-directory.ts";
import type { SignalInbox } from "./signals.ts";
import { serverStatus } from "./status.ts";

/** What is announced once every worker accepts. */
export interface Ready {
  readonly version: string;
  readonly listeners: readonly { readonly name: string; readonly address: string; readonly service: string }[];
  readonly workers: number;
  readonly control: string;
  readonly source: string;
}

export interface RunOptions {
  readonly config: Config;
  readonly signals: SignalInbox;
  readonly version: string;
  /** A terminal: log lines for people. */
  readonly pretty: boolean;
  /** Told in place of the log's "ready" line. */
  readonly announce?: ((ready: Ready) => void) | undefined;
}

/** Serves until it is stopped. Resolves when nothing is left but this process; throws what kept it from serving. */
export async function runPrimary(options: RunOptions): Promise<void> {
  const { config, pretty } = options;
  process.title = "headrace primary";
  const log = createLogger({ level: config.logLevel, pretty });
  const uid = ownUid();
  const control = config.control ?? defaultControlPath(process.env, uid);

  probeAddresses(config.listeners);
  openRuntimeDirectory(control, process.env, uid);
  const claim = await claimControl(control);
  try {
    const primary = new Primary({ config, log, pretty });
    obeySignals(primary, options.signals, log);
    await listenControl(primary, control, options, log);
    claim.listening();
    if (await primary.start()) announce(primary, control, options, log);
    const { closed, forced } = await primary.stopped;
    log.info({ closed, forced }, "stopped");
  } catch (err) {
    // The error itself is for stderr; what a service threw underneath has a stack, and that belongs in the log.
    if (err instanceof Error && err.cause) log.error({ err: err.cause }, err.message);
    throw err;
  } finally {
    claim.release();
    await closeLog(log);
  }
}

async function listenControl(primary: Primary, control: string, options: RunOptions, log: Logger): Promise<void> {
  const handlers: ControlHandlers = {
    status: () => serverStatus(primary, { ...options, control }),
    stop(fast) {
      log.info({ fast }, "stopping: asked over the control socket");
      primary.stop(fast);
      return primary.stopped;
    },
  };
  try {
    await ControlServer.listen(control, { uid: ownUid(), peerOf, handlers });
  } catch (cause) {
    const message = `the control socket ${control} cannot be opened: ${messageOf(cause)}`;
    throw new HeadraceError("control-refused", message, { file: control }, { cause });
  }
}

function obeySignals(primary: Primary, signals: SignalInbox, log: Logger): void {
  signals.deliver({
    stop(signal) {
      const fast = primary.state === "stopping";
      log.info({ signal, fast }, fast ? `stopping now: ${signal} again` : `stopping: ${signal}`);
      primary.stop(fast);
    },
    other(signal) {
      log.warn({ signal }, `${signal} is not supported yet: ignored`);
    },
  });
}

function announce(primary: Primary, control: string, options: RunOptions, log: Logger): void {
  const { addresses } = primary;
  const { config, version } = options;
  const listeners = config.listeners.map((listener, index) => ({
    name: listener.name,
    address: addresses[index] ?? listener.addressText,
    service: serviceLabel(listener.service),
  }));
  const ready: Ready = { version, listeners, workers: config.workers, control, source: config.source };
  if (options.announce) options.announce(ready);
  else log.info(ready, "ready");
}
