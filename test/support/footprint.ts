/**
 * What a server takes while a test has its way with it: memory of its workers and bytes in their buffers, watched from
 * the beginning; and in the end whether anything was left: connections, bytes, tasks, descriptors.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import type { TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { TestServer } from "./server.js";
import { until } from "./until.js";

const MiB = 1 << 20;
const LOOK_MS = 30;

export interface FootprintBounds {
  /** RSS of one worker above what it was, bytes. */
  readonly memory: number;
  /** In buffers, of all workers together, bytes. */
  readonly held: number;
}

export interface Footprint {
  /** When all clients have gone: waits for calm, fails over what was too much or is left, and says what it was. */
  calm(): Promise<string>;
}

export const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** Begin when the server is ready, and nobody is connected. */
export async function watchFootprint(t: TestContext, server: TestServer, bounds: FootprintBounds): Promise<Footprint> {
  const before = await server.status();
  const most = Math.max(...before.workers.map(({ memoryBytes }) => memoryBytes ?? 0));
  const descriptors = new Map(before.workers.map(({ pid }) => [pid, descriptorsOf(pid)]));
  const peak = { memory: 0, held: 0 };
  let done = false;
  t.after(() => {
    done = true;
  });
  const look = async (): Promise<void> => {
    const { workers, totals } = await server.status();
    peak.memory = Math.max(peak.memory, ...workers.map(({ memoryBytes }) => memoryBytes ?? 0));
    peak.held = Math.max(peak.held, totals.bytesHeldIn + totals.bytesHeldOut);
  };
  const watching = (async () => {
    // While a primary hands over to the next nobody may answer for a moment.
    for (; !done; await pause(LOOK_MS)) await look().catch(() => {});
  })();
  return {
    async calm() {
      const { totals, workers } = await until("no connection and no byte is left", async () => {
        const status = await server.status();
        const { open, bytesHeldIn, bytesHeldOut } = status.totals;
        return open + bytesHeldIn + bytesHeldOut === 0 ? status : undefined;
      });
      assert.ok(workers.every(({ waiting }) => waiting === 0));
      // Workers that have taken the place of others have nothing to be compared with.
      for (const { pid } of workers) {
        const count = descriptors.get(pid);
        if (count !== undefined) await until(`no descriptor is left in ${pid}`, () => descriptorsOf(pid) <= count);
      }
      done = true;
      await watching;
      const grown = peak.memory - most;
      assert.ok(grown <= bounds.memory, `${grown} bytes of memory more`);
      assert.ok(peak.held <= bounds.held, `${peak.held} bytes in buffers`);
      return `memory +${Math.round(grown / MiB)} MiB; at most ${Math.round(peak.held / 1024)} KiB in buffers; ${totals.restarts} restarts`;
    },
  };
}
