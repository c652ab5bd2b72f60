/** A worker's answers to the primary's questions (control/questions.ts): one function for each kind. */
import type { Logger } from "../base/log.ts";
import type { Answer, Asked, Question, QuestionKind } from "../control/questions.ts";
import type { WorkerServer } from "./server.ts";

/** What questions are about. */
export interface Answering {
  readonly server: WorkerServer;
  readonly log: Logger;
}

type Answers = {
  readonly [Kind in QuestionKind]: (about: Answering, asked: Asked<Kind>) => Answer<Kind> | Promise<Answer<Kind>>;
};

const ANSWERS: Answers = {
  logLevel: ({ log, server }, { level }) => {
    log.level = level;
    server.setLogLevel(level);
    return { level };
  },
};

/** Throws, or rejects with, why there is no answer. */
export function answer(about: Answering, { kind, asked }: Question): unknown {
  const give = ANSWERS[kind] as (about: Answering, asked: unknown) => unknown;
  return give(about, asked);
}
