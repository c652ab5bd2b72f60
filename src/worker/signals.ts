/**
 * A worker obeys its primary and no signal: a Ctrl-C, or a `pkill` that was meant for the primary, reaches every
 * process of the group. Imports nothing and is loaded first, because until a handler stands each of these kills.
 */
const IGNORED: readonly NodeJS.Signals[] = [
  "SIGTERM",
  "SIGINT",
  "SIGQUIT",
  "SIGHUP",
  "SIGUSR1",
  "SIGUSR2",
  "SIGTTIN",
  "SIGTTOU",
];

export function ignoreSignals(): void {
  for (const signal of IGNORED) process.on(signal, () => {});
}
