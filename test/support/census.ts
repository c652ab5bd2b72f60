/** What descriptors this process holds, to find what leaked. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { until } from "./until.js";

/** "number target" of each, but for the one that reads the folder. */
export function openDescriptors(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      return [];
    }
  });
}

/** Waits until the descriptors are again what they were (sockets of node:net close a little later). */
export async function sameDescriptors(before: readonly string[]): Promise<void> {
  const extra = (): string[] => openDescriptors().filter((each) => !before.includes(each));
  await until("descriptors to be closed", () => extra().length === 0).catch(() => assert.deepEqual(extra(), []));
}
