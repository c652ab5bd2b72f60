/**
 * What a connection weighs that has said one line and now says nothing: the slope of the servers' memory between 5,000
 * and 15,000 of them, so that the program itself falls out. The same server is weighed twice, with two generators
 * holding connections beside each other, well within the minute after which headrace would close an idle one.
 *
 * Weighed is what is needed, after a collection: every process gets SIGWINCH, which a C program ignores, on which the
 * Go peer returns free memory to the system, and on which Node servers collect (peers/collect.mjs, loaded by
 * NODE_OPTIONS into both, with headrace otherwise as shipped). Idling alone would not do: V8 starts no collection in a
 * process that allocates nothing, so the slope would be whatever garbage the connecting left.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Bench, type Load, loadFaults, startGenerator } from "../generator.ts";
import { withServer } from "../measure.ts";
import type { Peer } from "../peers.ts";
import { catchesSignal, countSockets, pssBytes } from "../process/memory.ts";
import type { Column, Scenario } from "../scenario.ts";
import { type Server, startServer } from "../server.ts";

const FEW = 5_000;
const MANY = 15_000;
/** Beside the connections: files, pipes, event descriptors. */
const SPARE_DESCRIPTORS = 200;

const SIGWINCH = 28;
/** What the first sets free by finalizers, the second returns. */
const COLLECTIONS = 2;
const POLL_MS = 100;
const STEADY_POLLS = 5;
const STEADY_BYTES = 64 * 1024;
const PATIENCE_MS = 10_000;

interface IdleSample {
  faults: string[];
  kibPerConnection: number;
  fewBytes: number;
  manyBytes: number;
}

const KIB = 1024;

const SLOPE: Column<IdleSample> = {
  title: "KiB per connection",
  of: (sample) => sample.kibPerConnection,
  show: (value) => value.toFixed(2),
  spread: true,
};

const mebibytes = (title: string, of: (sample: IdleSample) => number): Column<IdleSample> => ({
  title,
  of: (sample) => of(sample) / KIB / KIB,
  show: (value) => value.toFixed(1),
});

/** Nothing announces that memory has settled: waits until several looks in a row see the same. Returns bytes. */
async function steadyPss(server: Server): Promise<number> {
  const deadline = Date.now() + PATIENCE_MS;
  const looks: number[] = [];
  while (Date.now() < deadline) {
    looks.push(pssBytes(server.pids));
    const recent = looks.slice(-STEADY_POLLS);
    if (recent.length === STEADY_POLLS && Math.max(...recent) - Math.min(...recent) <= STEADY_BYTES) break;
    await sleep(POLL_MS);
  }
  return looks.at(-1) ?? 0;
}

async function weigh(server: Server): Promise<number> {
  for (let collection = 0; collection < COLLECTIONS; collection++) {
    for (const pid of server.pids) process.kill(pid, SIGWINCH);
    await steadyPss(server);
  }
  return await steadyPss(server);
}

/** Opens connections beside those that are there, keeps them while `use` runs, and gives back what it returns. */
async function holding<T>(
  count: number,
  tls: Load["tls"],
  server: Server,
  bench: Bench,
  faults: string[],
  use: () => Promise<T>,
): Promise<T> {
  const load: Load = { mode: "hold", codec: "line", sizeBytes: 64, connections: count, ...(tls ? { tls } : {}) };
  const generator = await startGenerator(server.address, load, bench);
  try {
    faults.push(...loadFaults(await generator.result, load));
    return await use();
  } finally {
    await generator.end();
  }
}

/** How many, and whether over TLS. */
interface Crowd {
  few: number;
  many: number;
  tls?: "full";
}

async function weighTwice(peer: Peer, server: Server, bench: Bench, { few, many, tls }: Crowd): Promise<IdleSample> {
  const faults: string[] = [];
  if (peer.runsNode) {
    const deaf = server.pids.filter((pid) => !catchesSignal(pid, SIGWINCH)).length;
    if (deaf > 0) faults.push(`${deaf} of ${server.pids.length} processes cannot be asked to collect`);
  }
  return await holding(few, tls, server, bench, faults, async () => {
    const fewBytes = await weigh(server);
    const manyBytes = await holding(many - few, tls, server, bench, faults, async () => {
      const bytes = await weigh(server);
      const sockets = countSockets(server.pids);
      if (sockets < many) faults.push(`only ${sockets} sockets open at the end`);
      return bytes;
    });
    const kibPerConnection = (manyBytes - fewBytes) / KIB / (many - few);
    return { faults, kibPerConnection, fewBytes, manyBytes };
  });
}

/** Why the suite cannot run here, if it cannot. */
export function idleObstacle(bench: Bench): string | undefined {
  const needed = MANY + SPARE_DESCRIPTORS;
  const { descriptors } = bench.machine;
  return descriptors < needed
    ? `a process may open ${descriptors} files, ${needed} are needed (ulimit -Hn)`
    : undefined;
}

/** The scenario for a crowd; `suite` judges it, if it has a figure for it. */
export function idleScenario(
  suite: "idle" | "tls",
  crowd: Crowd,
  peers: readonly Peer[],
  bench: Bench,
): Scenario<IdleSample> {
  const { few, many, tls } = crowd;
  return {
    suite,
    title: `${suite}: memory (PSS, all processes) from ${few} to ${many} connections, one line each, after a collection`,
    connections: many,
    peers,
    against: ["go", "node-net"], // C keeps nothing in the process for a connection: no ratio to that.
    metric: SLOPE,
    columns: [
      SLOPE,
      mebibytes(`MiB at ${few}`, (sample) => sample.fewBytes),
      mebibytes(`MiB at ${many}`, (sample) => sample.manyBytes),
    ],
    judged: suite === "idle",
    measure: (peer) =>
      withServer(startServer(peer, tls ? "tls-line" : "line", bench.machine, { collectable: true }), (server) =>
        weighTwice(peer, server, bench, crowd),
      ),
  };
}

export function idleScenarios(peers: readonly Peer[], bench: Bench): Scenario<IdleSample>[] {
  return [idleScenario("idle", { few: FEW, many: MANY }, peers, bench)];
}
