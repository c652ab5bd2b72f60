/**
 * Eight processes that connect to a server at once, again and again, and count in shared memory what they hold: raised
 * after the server's first reply, lowered before the close. So the count is never more than the server's own, and since
 * every change of it is looked at, no moment is missed in which the server has admitted too many.
 *
 * A word holds four counters of 16 bits, for up to four workers (the fourth: all others), changed and read in one step.
 * What a worker holds that is about to be killed is left out of the sum from then on.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { addon } from "#src/os/addon.js";
import { closeDescriptor } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { moduleUrl } from "./script.js";
import { until, within } from "./until.js";

const PROCESSES = 8;
const BYTES = 4_096;
/** Words of the shared memory, 64 bits each. */
const AT = { mode: 0, attempts: 1, refused: 2, violations: 3, dead: 4, pids: 8, held: 16, most: 32 };
const MODE = { churn: 1n, fill: 2n, end: 3n };

/** A member. Arguments: port, connections it wants, cap of each address (0: none), cap of all, its addresses. */
const MEMBER = `
import { Engine } from ${moduleUrl("#src/engine/engine.js")};
import { addon } from ${moduleUrl("#src/os/addon.js")};
import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
const AT = ${JSON.stringify(AT)};
const [port, wanted, each, all] = process.argv.slice(1, 5).map(Number);
const hosts = process.argv.slice(5);
const words = new BigInt64Array(addon().memoryMap(3, ${BYTES}, 0));
const options = packSocketOptions(DEFAULT_SOCKET);
const engine = new Engine({ slots: 4096 });
const held = [];
let trying = 0;
let pause = 0;
function fieldOf(pid) {
  for (let field = 0; field < 3; field++) {
    const was = Atomics.compareExchange(words, AT.pids + field, 0n, BigInt(pid));
    if (was === 0n || was === BigInt(pid)) return field;
  }
  return 3;
}
const one = (field) => 1n << BigInt(16 * field);
function enter(at, cap, field) {
  const now = Atomics.add(words, AT.held + at, one(field)) + one(field);
  const dead = Atomics.load(words, AT.dead);
  let sum = 0n;
  for (let each = 0; each < 4; each++) if ((dead & (1n << BigInt(each))) === 0n) sum += (now >> BigInt(16 * each)) & 0xffffn;
  let most = Atomics.load(words, AT.most + at);
  while (sum > most) {
    const was = Atomics.compareExchange(words, AT.most + at, most, sum);
    if (was === most) break;
    most = was;
  }
  if (cap > 0 && sum > BigInt(cap)) Atomics.add(words, AT.violations, 1n);
}
function attempt() {
  const address = Math.floor(Math.random() * hosts.length);
  const client = { slot: -1, generation: 0, field: -1, text: "" };
  trying++;
  Atomics.add(words, AT.attempts, 1n);
  const end = (refused) => {
    const at = held.indexOf(client);
    if (at >= 0) {
      held.splice(at, 1);
      for (const word of [0, 1 + address]) Atomics.sub(words, AT.held + word, one(client.field));
    } else if (client.field < 0) {
      client.field = 4;
      trying--;
      if (refused) Atomics.add(words, AT.refused, 1n);
    }
    engine.close(client.slot, client.generation, 0);
  };
  client.end = end;
  const owner = {
    onOpen() {
      const at = engine.reserve(2);
      engine.output.write("?\\n", at);
      engine.submit(client.slot, client.generation, at, 2, true);
    },
    onData(input, from, to) {
      client.text += input.toString("latin1", from, to);
      if (client.field >= 0 || !client.text.includes("\\n")) return;
      client.field = fieldOf(Number.parseInt(client.text));
      trying--;
      held.push(client);
      enter(0, all, client.field);
      enter(1 + address, each, client.field);
    },
    onEnd: () => end(true),
    onError: () => end(true),
    onWritable() {},
    onBlocked() {},
  };
  client.slot = engine.connect("127.0.0.1", port, hosts[address], options, owner);
  if (client.slot < 0) throw new Error("connect: " + client.slot);
  client.generation = engine.generation(client.slot);
}
setInterval(() => {
  const mode = Atomics.load(words, AT.mode);
  if (mode === ${MODE.end}n) {
    for (const client of [...held]) client.end(false);
    engine.flush();
    process.exit(0);
  }
  if (mode === ${MODE.churn}n) {
    for (let i = 0; i < wanted / 8 && held.length > 0; i++) held[Math.floor(Math.random() * held.length)].end(false);
  }
  for (let i = 0; i < 16 && held.length + trying < wanted; i++) attempt();
}, 10);
`;

export interface CrowdOptions {
  readonly port: number;
  /** Connections of each member. */
  readonly wanted: number;
  readonly cap?: number;
  readonly capPerAddress?: number;
  /** Client addresses, at most 8. */
  readonly hosts?: readonly string[];
}

export class Crowd {
  readonly #words: BigInt64Array;
  readonly #members: ChildProcess[];

  constructor(t: TestContext, { port, wanted, cap = 0, capPerAddress = 0, hosts = ["127.0.0.1"] }: CrowdOptions) {
    const memory = check(addon().memoryCreate("crowd", BYTES), "memfd_create");
    this.#words = new BigInt64Array(addon().memoryMap(memory, BYTES, 0));
    this.#mode(MODE.churn);
    const args = [port, wanted, capPerAddress, cap, ...hosts].map(String);
    this.#members = Array.from({ length: PROCESSES }, () => {
      const script = [...process.execArgv, "--input-type=module", "--eval", MEMBER, ...args];
      const member = spawn(process.execPath, script, { stdio: ["ignore", "inherit", "inherit", memory] });
      t.after(() => member.kill("SIGKILL"));
      return member;
    });
    closeDescriptor(memory);
  }

  /** What they hold: in all, or from one of the addresses. */
  held(host?: number): number {
    const word = Atomics.load(this.#words, AT.held + (host === undefined ? 0 : 1 + host));
    const dead = Atomics.load(this.#words, AT.dead);
    const fields = [0, 1, 2, 3].filter((field) => ((dead >> BigInt(field)) & 1n) === 0n);
    return fields.reduce((sum, field) => sum + Number((word >> BigInt(16 * field)) & 0xffffn), 0);
  }

  /** The most they ever held. */
  most(host?: number): number {
    return Number(Atomics.load(this.#words, AT.most + (host === undefined ? 0 : 1 + host)));
  }

  get figures(): { attempts: number; refused: number; violations: number } {
    const read = (at: number): number => Number(Atomics.load(this.#words, at));
    return { attempts: read(AT.attempts), refused: read(AT.refused), violations: read(AT.violations) };
  }

  /** A worker is about to be killed: whatever its clients believe, it holds nothing from now on. */
  lose(pid: number): void {
    for (let field = 0; field < 3; field++) {
      if (Atomics.load(this.#words, AT.pids + field) === BigInt(pid))
        Atomics.or(this.#words, AT.dead, 1n << BigInt(field));
    }
  }

  /** Connections come and go. */
  churn(): void {
    this.#mode(MODE.churn);
  }

  /** Nobody goes any more, and everybody tries for what is missing. */
  fill(): void {
    this.#mode(MODE.fill);
  }

  /** So many attempts more. */
  async attempts(count: number): Promise<void> {
    const before = this.figures.attempts;
    await until(`${count} attempts`, () => this.figures.attempts >= before + count);
  }

  async end(): Promise<void> {
    const ended = this.#members.map((member) => once(member, "exit"));
    this.#mode(MODE.end);
    await within("the crowd ends", Promise.all(ended));
  }

  #mode(mode: bigint): void {
    Atomics.store(this.#words, AT.mode, mode);
  }
}
