/**
 * What is put under the load: a server that can be made to change without being stopped. Every process of it carries a
 * mark in its environment, since an upgrade (and pm2's daemon) leaves the process tree; by the mark all are found, and
 * none outlives the run.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MARK, markedProcesses } from "../../test/support/processes.js";
import type { Machine } from "../machine.ts";

export const SUBJECT_IDS = ["headrace", "nginx", "nginx-timeout", "pm2"] as const;
export type SubjectId = (typeof SUBJECT_IDS)[number];

/** Something that is done to it while the clients go on. */
export interface Change {
  readonly name: "reload" | "upgrade";
  /** Resolves when it is complete. Throws when it failed. */
  run(): Promise<void>;
}

export interface Subject {
  readonly name: string;
  readonly port: number;
  readonly changes: readonly Change[];
  /** Of the server as it is now. */
  processes(): number[];
  /** Ends all of it. */
  end(): Promise<void>;
}

export interface SubjectOptions {
  readonly machine: Machine;
  readonly workers: number;
  readonly quick: boolean;
}

/** Why a subject cannot run here. */
export class Absent extends Error {}

const PATIENCE_MS = 60_000;
const POLL_MS = 20;

/** A folder and a mark, for the processes of one subject. */
export class Place {
  readonly folder: string = mkdtempSync(join(tmpdir(), "headrace-handover-"));
  readonly env: NodeJS.ProcessEnv;
  readonly #mark: string = randomUUID();
  readonly #atExit = (): void => void this.clear();

  constructor(env: NodeJS.ProcessEnv = {}) {
    const { PATH, HOME, LANG } = process.env;
    this.env = { PATH, HOME, LANG, TMPDIR: this.folder, ...env, [MARK]: this.#mark };
    process.on("exit", this.#atExit);
  }

  get processes(): number[] {
    return markedProcesses(this.#mark);
  }

  /** Kills what is left, and removes the folder. Returns how many had to be killed. */
  clear(): number {
    process.off("exit", this.#atExit);
    const left = this.processes;
    for (const pid of left) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself between the look and the signal.
      }
    }
    rmSync(this.folder, { recursive: true, force: true });
    return left.length;
  }
}

/** Resolves with the first truthy answer; throws when none comes in time. */
export async function eventually<T>(what: string, ask: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (const start = Date.now(); Date.now() - start < PATIENCE_MS; await sleep(POLL_MS)) {
    const answer = await ask();
    if (answer) return answer;
  }
  throw new Error(`waited ${PATIENCE_MS / 1000} s in vain: ${what}`);
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
