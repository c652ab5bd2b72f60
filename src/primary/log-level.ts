/**
 * The level of the log while the server runs: that of the configuration, or one that was set over it, in the primary and
 * in every worker, those to come included. Set over it, it holds until the next reload that succeeds, or the next
 * generation. A worker that does not answer in time keeps its level, which is not worth failing for: it is hanging, and
 * replaced by one that has it.
 */
import type { Logger } from "../base/log.ts";
import type { LogLevel } from "../base/settings.ts";
import type { Crew } from "./crew.ts";

const ANSWER_MS = 2_000;

export class LogLevels {
  readonly #crew: Crew;
  readonly #log: Logger;

  constructor(crew: Crew, log: Logger) {
    this.#crew = crew;
    this.#log = log;
  }

  /** What is logged now. */
  get level(): LogLevel {
    return this.#log.level as LogLevel;
  }

  /** Resolves when every worker that answers has it; says how many do. */
  async set(level: LogLevel): Promise<{ readonly level: LogLevel; readonly workers: number }> {
    const before = this.level;
    this.#crew.logLevel = level;
    this.#log.level = level;
    if (before !== level) this.#log.info({ before, level }, `the log level is ${level} now`);
    return { level, workers: await this.#tell(level) };
  }

  /** The configuration, which a reload has just brought, counts again. */
  async configured(level: LogLevel): Promise<void> {
    const wasSet = this.#crew.logLevel !== undefined;
    this.#crew.logLevel = undefined;
    this.#log.level = level;
    if (wasSet) await this.#tell(level);
  }

  /** A reload has failed, and given some workers the level of a configuration. */
  async again(): Promise<void> {
    if (this.#crew.logLevel !== undefined) await this.#tell(this.#crew.logLevel);
  }

  async #tell(level: LogLevel): Promise<number> {
    const answers = await Promise.allSettled(
      this.#crew.all.map((worker) => worker.ask("logLevel", { level }, ANSWER_MS)),
    );
    return answers.filter(({ status }) => status === "fulfilled").length;
  }
}
