/**
 * Answers what is asked about connections, over HTTP or the control socket: each worker is asked for those of its own
 * that could come first, and then for no more than the rows that are wanted. Workers that drain are asked too; one that
 * does not answer in time is named, and does not keep the others' answers. What cannot be asked is named as well: the
 * generation before, whose workers are not this primary's, and connections on their way from one worker to another.
 */
import { setTimeout as pause } from "node:timers/promises";
import { formatAddress } from "../base/address.ts";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { ClosedConnection, ConnectionPage, ConnectionQuery, ConnectionRow } from "../control/inspection.ts";
import type { ConnectionKeys } from "../control/questions.ts";
import type { DrainingStatus } from "../control/status.ts";
import type { Primary } from "./primary.ts";
import type { WorkerProcess } from "./worker-process.ts";

const ANSWER_MS = 3_000;
/** A connection that moves is in no worker for less than this. */
const MOVING_MS = 250;

/** A generation that still drains. */
type Before = DrainingStatus | undefined;

interface Answered {
  readonly worker: WorkerProcess;
  readonly answer: ConnectionKeys;
  /** The next key to be taken. */
  at: number;
}

/** Those that may have connections. */
function serving({ crew }: Primary): WorkerProcess[] {
  return crew.all.filter(({ state }) => state === "accepting" || state === "retired" || state === "stopping");
}

const beforeText = ({ generation, pid }: DrainingStatus): string =>
  `generation ${generation}, process ${pid}, still drains`;

/** Said by the generation that leaves, on a connection that was open already. */
const NEXT = "the next generation serves";

/** Connections may be on their way from one worker to another. */
function moving({ crew }: Primary, before: Before): boolean {
  return before !== undefined || crew.all.some(({ state }) => state === "retired");
}

export async function listConnections(
  primary: Primary,
  query: ConnectionQuery,
  before?: Before,
): Promise<ConnectionPage> {
  const { sort, order, limit, offset, address, listener, worker: slot } = query;
  const asked = {
    sort,
    order,
    most: offset + limit,
    ...(address === undefined ? {} : { address }),
    ...(listener === undefined ? {} : { listener }),
  };
  const missing: string[] = before ? [`${beforeText(before)}: its connections are not shown`] : [];
  const among = serving(primary).filter((worker) => slot === undefined || worker.slot === slot);
  const answers = await Promise.all(
    among.map(async (worker): Promise<Answered | undefined> => {
      try {
        return { worker, answer: await worker.ask("connectionKeys", asked, ANSWER_MS), at: 0 };
      } catch (error) {
        missing.push(messageOf(error));
        return undefined;
      }
    }),
  );
  if (primary.departing) missing.push(`${NEXT}: its connections are not shown`);
  else if (!before && moving(primary, before)) missing.push("connections on their way from one worker to another");
  const all = answers.filter((answer) => answer !== undefined);
  const wanted = merge(all, query);
  const rows = await rowsOf(wanted, missing);
  return { total: all.reduce((sum, { answer }) => sum + answer.total, 0), offset, rows, missing };
}

/** The handles that stand on the page, in order. */
function merge(
  all: readonly Answered[],
  { order, limit, offset }: ConnectionQuery,
): { from: Answered; handle: number }[] {
  const sign = order === "asc" ? 1 : -1;
  const wanted: { from: Answered; handle: number }[] = [];
  for (let place = 0; place < offset + limit; place++) {
    let first: Answered | undefined;
    for (const each of all) {
      const key = each.answer.keys[each.at];
      if (key === undefined) continue;
      if (first === undefined || sign * (key - (first.answer.keys[first.at] as number)) < 0) first = each;
    }
    if (!first) break;
    if (place >= offset) wanted.push({ from: first, handle: first.at });
    first.at += 1;
  }
  return wanted;
}

/** Asks for the rows, each worker once, and puts them in order. */
async function rowsOf(
  wanted: readonly { readonly from: Answered; readonly handle: number }[],
  missing: string[],
): Promise<ConnectionRow[]> {
  const places = new Map<Answered, number[]>();
  for (const { from, handle } of wanted) places.set(from, [...(places.get(from) ?? []), handle]);
  const found = new Map<Answered, Iterator<ConnectionRow | null>>();
  await Promise.all(
    [...places].map(async ([from, at]) => {
      const { handles } = from.answer;
      const asked = at.flatMap((index) => [handles[2 * index] as number, handles[2 * index + 1] as number]);
      try {
        const { rows } = await from.worker.ask("connectionRows", { handles: asked }, ANSWER_MS);
        found.set(from, rows.values());
      } catch (error) {
        missing.push(messageOf(error));
      }
    }),
  );
  return wanted.flatMap(({ from }) => found.get(from)?.next().value ?? []);
}

/**
 * Throws `not-found`, or `no-answer` when it may be where nobody could be asked. Which worker has it is not said by its id:
 * it may have moved, or be moving, in which case all are asked once more.
 */
export async function killConnection(primary: Primary, id: string, before?: Before): Promise<void> {
  const unsettled = (): boolean => primary.state !== "running" || moving(primary, before);
  const moved = unsettled();
  if (await killAnywhere(primary, id)) return;
  if (moved || unsettled()) {
    await pause(MOVING_MS);
    if (await killAnywhere(primary, id)) return;
  }
  if (primary.departing) throw new HeadraceError("no-answer", `${NEXT}; ask again`);
  if (before) {
    const why = `${beforeText(before)}, and may have connection ${id.slice(0, 100)}: its connections cannot be killed`;
    throw new HeadraceError("no-answer", why);
  }
  throw new HeadraceError("not-found", `there is no connection ${id.slice(0, 100)}`);
}

/** False: nobody has it. Throws when one who may have it gave no answer. */
async function killAnywhere(primary: Primary, id: string): Promise<boolean> {
  const answers = await Promise.allSettled(serving(primary).map((worker) => worker.ask("kill", { id }, ANSWER_MS)));
  if (answers.some((answer) => answer.status === "fulfilled" && answer.value.killed)) return true;
  const silent = answers.find((answer) => answer.status === "rejected");
  if (silent) throw new HeadraceError("no-answer", messageOf(silent.reason));
  return false;
}

export function lastClosed({ crew }: Primary, limit: number): ClosedConnection[] {
  return crew.closes.read(limit).map(({ host, port, received, sent, at, ...noted }) => ({
    ...noted,
    remote: formatAddress(host, port),
    bytesReceived: received,
    bytesSent: sent,
    at: new Date(at).toISOString(),
  }));
}
