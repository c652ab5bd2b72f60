/** Waiting for what has no event of its own: asks again and again, and says what it waited for when time is up. */
import { setTimeout as pause } from "node:timers/promises";

const POLL_MS = 10;
const PATIENCE_MS = 20_000;

/** Resolves with the first truthy answer of `ask`. */
export async function until<T>(what: string, ask: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (const start = Date.now(); Date.now() - start < PATIENCE_MS; await pause(POLL_MS)) {
    const answer = await ask();
    if (answer) return answer;
  }
  throw new Error(`waited ${PATIENCE_MS} ms in vain: ${what}`);
}

/** `promise`, or an error that says what did not come. */
export async function within<T>(what: string, promise: Promise<T>, patienceMs: number = PATIENCE_MS): Promise<T> {
  const late = new AbortController();
  const timeout = pause(patienceMs, undefined, { signal: late.signal }).then(() => {
    throw new Error(`waited ${patienceMs} ms in vain: ${what}`);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    late.abort();
    timeout.catch(() => {});
  }
}
