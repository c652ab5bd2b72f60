/** What is told apart where a worker's time and troubles are counted. The scoreboard has its fields in these orders. */

/** Kinds of V8's garbage collections. */
export const GC_KINDS = ["minor", "major", "incremental", "weakcb"] as const;
export type GcKind = (typeof GC_KINDS)[number];

/** What the time of the engine's rounds goes to. `service`: handlers, and whatever else JavaScript does in a round. */
export const PHASES = ["receive", "decode", "service", "send"] as const;
export type Phase = (typeof PHASES)[number];

/** Why accepting failed. */
export const ACCEPT_ERRORS = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "other"] as const;
export type AcceptError = (typeof ACCEPT_ERRORS)[number];
