/**
 * A real systemd for one test, in namespaces of its own (rig.sh): the unit files of deploy/ run under it as they would
 * in production. It shares the machine's network, so that a test's own clients reach the service. Needs root. Nothing
 * is left of it when the test ends, however it ends.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { packageRoot } from "#src/os/addon.js";
import type { Outcome } from "../command.js";

const SCRIPT = join(packageRoot(), "test", "support", "systemd", "rig.sh");
/** A boot takes 0.5 s; with a systemd that has to be downloaded, 20 s on a good day. */
const BOOT_MS = 180_000;
const COMMAND_MS = 120_000;

export interface RigOptions {
  /** Debian suite to take systemd from: "trixie" has 257. Default: what the machine has. */
  readonly suite?: string;
  /** SRC=DST: shared with the machine, read-only. */
  readonly binds?: readonly string[];
}

/** Rejects with `what` when it takes too long. */
async function before<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  const done = new AbortController();
  const late = pause(ms, undefined, { signal: done.signal }).then(() => {
    throw new Error(`waited ${ms} ms in vain: ${what}`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    done.abort();
  }
}

export class Rig {
  readonly #env: NodeJS.ProcessEnv;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /** Runs a command inside, as root. */
  async run(command: readonly string[], input = ""): Promise<Outcome> {
    const child = spawn("bash", [SCRIPT, "exec", ...command], { cwd: "/", env: this.#env });
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    try {
      const all = Promise.all([once(child, "exit"), text(child.stdout), text(child.stderr)]);
      const [[code], stdout, stderr] = await before(COMMAND_MS, command.join(" "), all);
      return { code, stdout, stderr };
    } finally {
      child.kill("SIGKILL");
    }
  }

  /** The same, and it must succeed: what it printed. */
  async ok(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(command);
    assert.equal(code, 0, `${command.join(" ")}: exit ${code}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  async write(path: string, content: string): Promise<void> {
    const script = 'mkdir -p "$1" && cat >"$2"';
    const { code, stderr } = await this.run(["sh", "-c", script, "sh", dirname(path), path], content);
    assert.equal(code, 0, stderr);
  }
}

function starting(rig: ChildProcess, stderr: Promise<string>): Promise<void> {
  const died = once(rig, "exit").then(async ([code]) => {
    throw new Error(`no systemd could be started (${code}): ${await stderr}`);
  });
  died.catch(() => {});
  const booted = once(rig.stdout as NodeJS.ReadableStream, "data").then(() => {});
  return before(BOOT_MS, "systemd boots", Promise.race([booted, died]));
}

/** Boots one for this test. */
export async function startRig(t: TestContext, { suite = "", binds = [] }: RigOptions = {}): Promise<Rig> {
  const name = `headrace-test-${randomBytes(4).toString("hex")}`;
  const env = {
    PATH: process.env.PATH,
    RIG_NAME: name,
    RIG_NET: "host",
    RIG_SYSTEMD: suite,
    RIG_BIND: binds.join(" "),
  };
  const child = spawn("bash", [SCRIPT, "hold"], { stdio: ["pipe", "pipe", "pipe"], cwd: "/", env });
  const stderr = text(child.stderr);
  const exited = once(child, "exit");
  t.after(async () => {
    child.stdin.end();
    await before(COMMAND_MS, "the rig is taken down", exited);
    assert.ok(!existsSync(`/run/sdrig-${name}`), "something is left of the rig");
  });
  await starting(child, stderr);
  return new Rig(env);
}
