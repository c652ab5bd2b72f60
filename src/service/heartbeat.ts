/**
 * Heartbeats as a service declares them: what a ping is and how a pong is told. When they are sent and what becomes of
 * a peer that does not answer is src/connection/beat.ts.
 */
import { TIMEOUT_KINDS } from "../config/bounds.ts";
import { Wrong } from "../config/kinds.ts";
import type { Connection, Duration } from "./connection.ts";

/** Pings without an answer. */
export const DEFAULT_MISSED = 3;
const MISSED_MAX = 100;

/**
 * A peer that has been silent for `every` gets a ping, and another after each further `every`; when `missed` of them
 * in a row brought no byte from it, it is reset (`heartbeat-missed`). A peer that talks is not pinged.
 */
export interface Heartbeat<State, In, Out, Env> {
  /** The service's own `timeouts.heartbeat`. */
  readonly every?: Duration;
  /** 1 to 100. Default 3. */
  readonly missed?: number;
  ping(connection: Connection<State, Out>, env: Env): NoInfer<Out>;
  /** A message for which this is true reaches neither middleware nor handler, and is not counted as a request. */
  isPong(message: In): boolean;
}

type Invalid = (option: string, problem: string, allowed: string) => Error;

/** Throws what `invalid` makes. */
export function checkHeartbeat(given: unknown, elsewhere: unknown, invalid: Invalid): void {
  if (given === undefined) return;
  if (typeof given !== "object" || given === null) throw invalid("heartbeat", "not an object", "{ ping, isPong }");
  const { every, missed, ping, isPong, ...unknown } = given as Partial<Record<string, unknown>>;
  const [odd] = Object.keys(unknown);
  if (odd !== undefined) throw invalid(`heartbeat.${odd}`, "unknown", "every, missed, ping, isPong");
  if (typeof ping !== "function") throw invalid("heartbeat.ping", "not a function", "(connection, env) => message");
  if (typeof isPong !== "function") throw invalid("heartbeat.isPong", "not a function", "(message) => boolean");
  if (missed !== undefined && !(Number.isSafeInteger(missed) && Number(missed) >= 1 && Number(missed) <= MISSED_MAX)) {
    throw invalid("heartbeat.missed", "not a number of pings", `1 to ${MISSED_MAX}`);
  }
  if (every === undefined) return;
  if (elsewhere !== undefined) throw invalid("heartbeat.every", "timeouts.heartbeat says it too", "one of the two");
  const read = TIMEOUT_KINDS.heartbeat.read(every);
  if (read instanceof Wrong) throw invalid("heartbeat.every", read.problem, TIMEOUT_KINDS.heartbeat.allowed);
}
