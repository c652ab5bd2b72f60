/** What a process reports at its end, and the messages between it and run.ts. All of it is plain JSON. */
import type { ErrorCode } from "../base/errors.ts";
import type { LatencyCounts } from "./latency.ts";
import type { LoadShare } from "./options.ts";
import type { ErrnoCounts, Mismatch } from "./tally.ts";

export interface LoadReport {
  readonly requested: number;
  readonly opened: number;
  readonly failed: ErrnoCounts;
  readonly resets: ErrnoCounts;
  readonly closedByPeer: number;
  /** In the window. */
  readonly sent: number;
  /** In the window. */
  readonly verified: number;
  /** In the window. */
  readonly received: number;
  /** From the beginning to the end. */
  readonly mismatched: number;
  /** From the beginning to the end. */
  readonly outstanding: number;
  /** From the beginning to the end. */
  readonly unsent: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Epoch ms. */
  readonly startedAt: number;
  /** Epoch ms. */
  readonly endedAt: number;
  readonly latencies: LatencyCounts;
  readonly mismatch?: Mismatch;
}

/** To a load process, in this order; `stop` may come at any time, `leave` ends a `hold`. */
export type ToLoad =
  | { readonly type: "begin"; readonly share: LoadShare }
  | { readonly type: "go" }
  | { readonly type: "measure" }
  | { readonly type: "stop" }
  | { readonly type: "leave" };

export type FromLoad =
  /** How many connects are decided so far. */
  | { readonly type: "progress"; readonly decided: number }
  /** Every connect is decided. */
  | { readonly type: "connected"; readonly opened: number }
  | { readonly type: "report"; readonly report: LoadReport }
  | { readonly type: "failed"; readonly code: ErrorCode; readonly message: string };
