/**
 * Why a connection ended. Every close has exactly one of these: the service sees it, the log names it,
 * the scoreboard counts it at the index it has here (append only, so that old figures keep their meaning).
 */

export const CLOSE_REASONS = [
  "peer-closed",
  "peer-reset",
  "server-close",
  "handler-error",
  "protocol-error",
  "frame-empty",
  "frame-too-large",
  "first-byte-timeout",
  "frame-timeout",
  "idle-timeout",
  "write-stall",
  "slow-consumer",
  "drain",
  "killed",
  "io-error",
  "max-age",
  "heartbeat-missed",
  "memory-pressure",
  "request-timeout",
  "overload",
  "proxy-untrusted",
  "proxy-invalid",
  "proxy-header-timeout",
  "tls-error",
  "handshake-timeout",
  "admin",
  "rejected",
] as const;

export type CloseReason = (typeof CLOSE_REASONS)[number];

/**
 * Why a newcomer was turned away, in the order of admission_verdict (native/admission.h). `descriptors`: this process
 * had none left. What follows it is decided here: `handshakes-full`, too many TLS handshakes were in progress.
 */
export const REJECT_REASONS = [
  "max-connections",
  "max-listener",
  "per-address",
  "rate",
  "denied",
  "descriptors",
  "handshakes-full",
] as const;

export type RejectReason = (typeof REJECT_REASONS)[number];

/** What a codec may blame on the peer. */
export type ProtocolFault = "protocol-error" | "frame-empty" | "frame-too-large";

const INDEX: ReadonlyMap<CloseReason, number> = new Map(CLOSE_REASONS.map((reason, index) => [reason, index]));

/** Position of `reason` in the scoreboard's row of counters. */
export function reasonIndex(reason: CloseReason): number {
  return INDEX.get(reason) ?? 0;
}
