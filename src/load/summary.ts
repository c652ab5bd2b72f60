/** A result for people. */
import { formatAddress } from "../base/address.ts";
import type { LoadMode, LoadOptions } from "./options.ts";
import type { LoadResult } from "./result.ts";

const WHAT: Readonly<Record<LoadMode, string>> = {
  closed: "closed loop",
  open: "open loop",
  flood: "flood",
  churn: "churn",
  hold: "hold",
};

/** 1234567.8 as "1,234,568". */
function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Three digits that matter: "0.041", "1.23", "123". */
function precise(value: number): string {
  return value >= 100 ? whole(value) : value.toFixed(value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

/** Above this share of its cores a generator may be what limits the rate. */
const BUSY = 0.9;

/** An open loop is always busy: it does not sleep between messages. */
function isBusy({ mode, processes }: LoadOptions, { cpuSeconds, seconds }: LoadResult): boolean {
  return mode !== "open" && cpuSeconds > BUSY * seconds * processes;
}

function describe(options: LoadOptions): string {
  const { mode, messagesPerSecond, pipeline } = options;
  const rate = messagesPerSecond === undefined ? "" : ` at ${whole(messagesPerSecond)}/s`;
  const depth = pipeline === 1 ? "" : `, ${pipeline} in flight on each connection`;
  return `${WHAT[mode]}${rate}${depth}`;
}

/** Lines without color, the same on a terminal and in a file. */
export function showResult(options: LoadOptions, result: LoadResult): string {
  const { connections, messages, bytes, seconds, latencyMs } = result;
  const failed = connections.requested - connections.opened;
  const rows: [string, string][] = [
    [
      "connections",
      `${whole(connections.opened)} opened${failed > 0 ? `, ${whole(failed)} failed` : ""}` +
        `${connections.closedByPeer > 0 ? `, ${whole(connections.closedByPeer)} closed by the server` : ""}`,
    ],
    [
      "messages",
      `${whole(messages.sent)} sent, ${whole(messages.received)} received, ${whole(messages.verified)} verified` +
        `${messages.outstanding > 0 ? `; ${whole(messages.outstanding)} got no reply` : ""}` +
        `${messages.unsent > 0 ? `; ${whole(messages.unsent)} were due and not sent` : ""}`,
    ],
  ];
  if (options.mode !== "hold" && seconds > 0) {
    const unit = options.mode === "churn" ? "connections/s" : "messages/s";
    rows.push(["rate", `${whole(result.perSecond)} ${unit} over ${precise(seconds)} s`]);
    rows.push(["received", `${precise((bytes.received * 8) / seconds / 1e6)} Mbit/s`]);
  }
  if (latencyMs) {
    const { p50, p90, p99, p999, max } = latencyMs;
    const values = [p50, p90, p99, p999, max].map(precise);
    rows.push([
      "latency",
      `p50 ${values[0]}  p90 ${values[1]}  p99 ${values[2]}  p99.9 ${values[3]}  max ${values[4]} ms`,
    ]);
  }
  if (messages.received > 0 && options.mode !== "hold") {
    const share = `${precise((result.cpuSeconds * 1e6) / messages.received)} µs per ${options.mode === "churn" ? "connection" : "message"}`;
    const hint = isBusy(options, result) ? " (busy: --processes may find a higher rate)" : "";
    rows.push(["own CPU", `${precise(result.cpuSeconds)} s, ${share}${hint}`]);
  }
  const [scheme, what] = options.udp ? ["udp://", "datagrams"] : ["", options.codec];
  const title = `${scheme}${formatAddress(options.host, options.port)}, ${what} of ${options.sizeBytes} bytes, ${describe(options)}`;
  return [title, ...rows.map(([name, value]) => `  ${name.padEnd(12)}${value}`), ""].join("\n");
}
