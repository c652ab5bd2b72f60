/** Options that are right by themselves and wrong together. Pure: load.ts and resolve.ts word the errors. */
import type { Address } from "../base/address.ts";
import type { Limits, ServerLimits } from "../base/settings.ts";

type Mark = "lowWater" | "highWater" | "buffered" | "frame" | "bufferMemory";

export interface Conflict {
  readonly option: Exclude<Mark, "bufferMemory">;
  readonly relation: "must be below" | "must not be above" | "must not be above a third of";
  readonly other: Mark;
}

/**
 * A frame that is not there yet may have a buffer of twice its size, and at three quarters of the budget reading pauses
 * until half is free: one that needs more than that never gets whole.
 */
const FRAMES_OF_BUDGET = 3;

/** Conflicts among the limits that are set. */
export function limitConflicts(limits: Partial<Pick<Limits & ServerLimits, Mark>>): Conflict[] {
  const { lowWater, highWater, buffered, frame, bufferMemory } = limits;
  const conflicts: Conflict[] = [];
  if (lowWater !== undefined && highWater !== undefined && lowWater >= highWater) {
    conflicts.push({ option: "lowWater", relation: "must be below", other: "highWater" });
  }
  if (highWater !== undefined && buffered !== undefined && highWater > buffered) {
    conflicts.push({ option: "highWater", relation: "must not be above", other: "buffered" });
  }
  if (frame !== undefined && bufferMemory !== undefined && frame * FRAMES_OF_BUDGET > bufferMemory) {
    conflicts.push({ option: "frame", relation: "must not be above a third of", other: "bufferMemory" });
  }
  return conflicts;
}

export interface Endpoint {
  readonly address: Address;
  readonly ipv6Only: boolean;
}

/** One spelling per host: `0:0:0:0:0:0:0:1` is `::1`. Those with a zone (`fe80::1%eth0`) stay as they are. */
export function canonicalHost(host: string): string {
  const url = host.includes(":") ? `http://[${host}]` : `http://${host}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/^\[(.*)\]$/, "$1") : host.toLowerCase();
}

function covers(wide: Endpoint, narrow: Endpoint): boolean {
  const host = canonicalHost(wide.address.host);
  const v6 = narrow.address.host.includes(":");
  return (host === "0.0.0.0" && !v6) || (host === "::" && (v6 || !wide.ipv6Only));
}

/** Whether two listeners cannot exist together: the same address, or one that covers the other. Port 0 is free. */
export function overlap(a: Endpoint, b: Endpoint): boolean {
  if (a.address.port !== b.address.port || a.address.port === 0) return false;
  if (a.address.protocol !== b.address.protocol) return false;
  return canonicalHost(a.address.host) === canonicalHost(b.address.host) || covers(a, b) || covers(b, a);
}
