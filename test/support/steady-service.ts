/**
 * The service that a verified load talks to in the tests of handover. It replies with a tag and the line, and counts the
 * lines of each connection in its state: a connection whose state went astray on a move gets wrong replies from then on.
 */
import { writeService } from "./folder.js";

/** As an expression of JavaScript. */
const PID_TAG = "process.pid";

export interface SteadyOptions {
  /** What stands in front of each reply: an expression. Default: the worker's pid. */
  readonly tag?: string;
  /** Further properties of the definition. */
  readonly more?: string;
  /** Statements in front of it. */
  readonly before?: string;
  /** Statements at the beginning of the handler. `text` is the line. */
  readonly first?: string;
}

/** Writes it into `folder` and returns its path. */
export function writeSteadyService(
  folder: string,
  { tag = PID_TAG, more = "", before = "", first = "" }: SteadyOptions = {},
  name?: string,
): string {
  const body = `${before}
const tag = ${tag};
export default defineService({
  codec: line(),
  state: () => ({ count: 0 }),
  onMessage(text, { connection }) {
    ${first}
    const due = connection.state.count++;
    if (Number(text.split(" ", 2)[1]) !== due) return tag + " the state says " + due + ": " + text;
    return tag + " " + text;
  },
  ${more}
});`;
  return writeService(folder, body, name);
}
