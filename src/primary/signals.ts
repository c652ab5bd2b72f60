/**
 * The primary's signals, from the first moment on: Node would die of SIGHUP, and open its debugger on SIGUSR1,
 * until a handler stands. So this file imports nothing, is loaded before anything else, and keeps what arrives
 * until the primary is there to hear it.
 */

/** Graceful stop; the second of any is a fast one. */
const STOP: readonly NodeJS.Signals[] = ["SIGTERM", "SIGINT", "SIGQUIT"];
const CHANGE = ["SIGHUP", "SIGUSR2", "SIGTTIN", "SIGTTOU"] as const;
/** The log file was rotated. */
const REOPEN: readonly NodeJS.Signals[] = ["SIGUSR1"];

interface SignalListener {
  stop(signal: NodeJS.Signals): void;
  readonly change: Readonly<Record<(typeof CHANGE)[number], () => void>>;
  reopen(signal: NodeJS.Signals): void;
}

export interface SignalInbox {
  /** Delivers what has arrived, in order, and from then on each signal at once. */
  deliver(listener: SignalListener): void;
}

/** Installs the handlers. */
export function captureSignals(): SignalInbox {
  const early: NodeJS.Signals[] = [];
  let listener: SignalListener | undefined;
  const take = (signal: NodeJS.Signals): void => {
    if (!listener) early.push(signal);
    else if (STOP.includes(signal)) listener.stop(signal);
    else if (signal in listener.change) listener.change[signal as (typeof CHANGE)[number]]();
    else listener.reopen(signal);
  };
  for (const signal of [...STOP, ...CHANGE, ...REOPEN]) process.on(signal, take);
  return {
    deliver(to): void {
      listener = to;
      for (const signal of early.splice(0)) take(signal);
    },
  };
}
