/** A module of tasks, as a user may write one: some are good, some are not. */
import { existsSync } from "node:fs";
import { threadId } from "node:worker_threads";

export const notATask = 7;

export function same(...values: unknown[]): unknown {
  return values.length === 1 ? values[0] : values;
}

export function fails(message: string): never {
  throw Object.assign(new RangeError(message), { code: "E_WORK" });
}

export function spin(forMs: number): number {
  const until = performance.now() + forMs;
  while (performance.now() < until);
  return threadId;
}

/** Keeps its thread until the file is there. */
export function hold(path: string): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(path)) Atomics.wait(cell, 0, 0, 2);
}

export async function later(value: string): Promise<string> {
  await new Promise((resolve) => setTimeout(resolve, 1));
  return value;
}

export function exits(): void {
  process.exit(3);
}

export function exitsIf(now: boolean): boolean {
  if (now) process.exit(3);
  return now;
}

export function never(): Promise<never> {
  return new Promise(() => {});
}

export function functionless(): () => void {
  return () => {};
}

/** Fails outside of any task. */
export function failsLater(): void {
  setImmediate(() => {
    throw new Error("later");
  });
}

/** Of one kind, whatever it does: "throw", "exit" or "spin", or nothing. */
export function or(how: string, value: unknown): unknown {
  if (how === "throw") throw new Error(String(value));
  if (how === "exit") process.exit(3);
  return how === "spin" ? spin(Number(value)) : value;
}
