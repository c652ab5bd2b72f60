/**
 * What the primary may ask a worker while it lives, and what the answer is, by kind. An answer is plain data, and
 * bounded: it travels over Node's IPC, between orders. `src/worker/answers.ts` gives them, `WorkerProcess.ask` asks.
 */
import type { LogLevel } from "../base/settings.ts";
import type { UserMetricsAnswer } from "./user-metrics.ts";

interface Questions {
  /** Log from this level on, until the next configuration or worker. */
  logLevel: { readonly asked: { readonly level: LogLevel }; readonly answer: { readonly level: LogLevel } };
  /** What the service's own prom-client metrics say. */
  userMetrics: { readonly asked: Record<string, never>; readonly answer: UserMetricsAnswer };
}

export type QuestionKind = keyof Questions;
export type Asked<Kind extends QuestionKind> = Questions[Kind]["asked"];
export type Answer<Kind extends QuestionKind> = Questions[Kind]["answer"];

/** A question as it travels. */
export type Question = {
  [Kind in QuestionKind]: { readonly kind: Kind; readonly asked: Asked<Kind> };
}[QuestionKind];
