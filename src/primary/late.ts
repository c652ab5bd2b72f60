/**
 * Deadlines of others. A process that was stopped (SIGSTOP, a suspended machine) wakes up with its timers overdue and
 * the answers to what it asked still unread: so when time is up, what has arrived is read first, in one turn of the
 * event loop, and only who has not answered even then is late.
 */

/** Calls `act` once `ms` have passed, unless the returned function is called before. */
export function whenLate(ms: number, act: () => void): () => void {
  let turn: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    turn = setImmediate(act);
  }, ms);
  return () => {
    clearTimeout(timer);
    clearImmediate(turn);
  };
}
