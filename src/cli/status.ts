/** `headrace status`: what the running server does, for people or as JSON. */
import type { Command } from "commander";
import type { ServerStatus } from "../control/status.ts";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";
import { showBytes, showDuration, table } from "./table.ts";

interface StatusOptions extends ControlOptions {
  readonly json?: boolean;
}

const percent = (value: number | undefined): string => (value === undefined ? "?" : `${value.toFixed(1)} %`);
const bytes = (value: number | undefined): string => (value === undefined ? "?" : showBytes(value));

/** The status, as text. */
function showStatus(status: ServerStatus): string {
  const { totals, closes } = status;
  const listeners = status.listeners.map(({ name, address, service, open, opened, requests }) => [
    name,
    address,
    service,
    open,
    opened,
    requests,
  ]);
  const workers = status.workers.map((worker) => [
    worker.index,
    worker.pid,
    worker.state,
    worker.open,
    worker.accepted,
    worker.requests,
    bytes(worker.bytesReceived),
    bytes(worker.bytesSent),
    percent(worker.cpuPercent),
    bytes(worker.memoryBytes),
    worker.restarts,
  ]);
  const reasons = Object.entries(closes).filter(([, count]) => count > 0);
  const closed = reasons.map(([reason, count]) => `${reason} ${count}`).join(", ") || "none yet";
  return [
    `headrace ${status.version} is ${status.state}, process ${status.pid}, for ${showDuration(status.uptimeMs)}`,
    "",
    ...table([["listener", "address", "service", "open", "accepted", "requests"], ...listeners]),
    "",
    ...table([
      ["worker", "pid", "state", "open", "accepted", "requests", "received", "sent", "CPU", "memory", "restarts"],
      ...workers,
    ]),
    "",
    `in all: ${totals.open} open, ${totals.accepted} accepted, ${totals.rejected} rejected, ${totals.requests} requests, ` +
      `${showBytes(totals.bytesReceived)} received, ${showBytes(totals.bytesSent)} sent, ${totals.restarts} restarts`,
    `closed: ${closed}`,
    "",
  ].join("\n");
}

export function addStatus(program: Command): void {
  addControlOption(program.command("status").description("show what the running server does"))
    .option("--json", "as JSON")
    .action(async ({ json = false, control }: StatusOptions) => {
      const reply = await askServer({ type: "status" }, control === undefined ? {} : { control });
      if (reply.type !== "status") return;
      process.stdout.write(json ? `${JSON.stringify(reply.status, null, 2)}\n` : showStatus(reply.status));
    });
}
