/** A worker's answers to the primary's questions (control/questions.ts): one function for each kind. */
import type { Logger } from "../base/log.ts";
import type { Answer, Asked, Question, QuestionKind } from "../control/questions.ts";
import { profileCpu, snapshotHeap } from "../os/profile.ts";
import { killById, listKeys, listRows } from "./listing.ts";
import type { WorkerServer } from "./server.ts";

/** What questions are about. */
export interface Answering {
  readonly server: WorkerServer;
  /** Slot of this worker. */
  readonly worker: number;
  readonly log: Logger;
}

type Answers = {
  readonly [Kind in QuestionKind]: (about: Answering, asked: Asked<Kind>) => Answer<Kind> | Promise<Answer<Kind>>;
};

/** Of the profile that is being taken. */
let profiling: AbortController | undefined;

async function cpuProfile(_about: Answering, { path, seconds }: Asked<"cpuProfile">): Promise<Answer<"cpuProfile">> {
  if (profiling) throw new Error("a profile is being taken already");
  const ending = new AbortController();
  profiling = ending;
  try {
    await profileCpu(path, seconds, ending.signal);
  } finally {
    profiling = undefined;
  }
  return {};
}

const ANSWERS: Answers = {
  connectionKeys: ({ server }, asked) => listKeys(server.engine, asked),
  connectionRows: async ({ server, worker }, { handles }) => ({ rows: await listRows(server.engine, worker, handles) }),
  kill: async ({ server }, { id }) => ({ killed: await killById(server.engine, id) }),
  cpuProfile,
  endProfile: () => {
    profiling?.abort();
    return {};
  },
  heapSnapshot: (_about, { path }) => {
    snapshotHeap(path);
    return {};
  },
  logLevel: ({ log }, { level }) => {
    log.level = level;
    return { level };
  },
};

/** Throws, or rejects with, why there is no answer. */
export function answer(about: Answering, { kind, asked }: Question): unknown {
  const give = ANSWERS[kind] as (about: Answering, asked: unknown) => unknown;
  return give(about, asked);
}
