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

const WORKER_COLUMNS = [
  "worker",
  "pid",
  "state",
  "open",
  "accepted",
  "requests",
  "received",
  "sent",
  "held in",
  "held out",
  "CPU",
  "memory",
  "restarts",
  "moved in",
  "moved out",
  "shed",
  "waiting",
];

/** What stands above the tables. */
function heading(status: ServerStatus, now: number): string[] {
  const { version, state, pid, uptimeMs, generation, configVersion, health, lastChange } = status;
  const lines = [
    `headrace ${version} is ${state}, process ${pid}, for ${showDuration(uptimeMs)}`,
    `generation ${generation}, configuration ${configVersion}, health: ${health}`,
  ];
  if (status.admin !== undefined) lines.push(`admin server: http://${status.admin}`);
  if (lastChange) {
    const { outcome, message, at } = lastChange;
    const age = showDuration(now - Date.parse(at));
    const when = outcome === "running" ? `changing for ${age}` : `last change ${age} ago`;
    lines.push(`${when}: ${message.replaceAll("\n", "\n  ")}`);
  }
  return lines;
}

/** The processes that leave; nothing when there are none. */
function leaving({ draining }: ServerStatus, now: number): string[] {
  if (draining.length === 0) return [];
  const rows = draining.map(({ pid, generation, open, since }) => [
    pid,
    generation,
    open,
    showDuration(now - Date.parse(since)),
  ]);
  return ["", ...table([["draining", "generation", "open", "for"], ...rows])];
}

/** The certificates; nothing where there are none. */
function certificates({ tls }: ServerStatus): string[] {
  if (tls.length === 0) return [];
  const rows = tls.flatMap(({ listener, certificates: files }) =>
    files.map(({ file, names, notAfter }) => [listener, file, names.join(" ") || "-", notAfter]),
  );
  const problems = tls.flatMap(({ listener, problem }) =>
    problem ? `listener ${listener} keeps its certificate since ${problem.at}: ${problem.message}` : [],
  );
  return ["", ...table([["TLS", "certificate", "names", "expires"], ...rows]), ...problems];
}

/** What became of datagrams, where there are any; of what went wrong only what did. */
function ofDatagrams({ listeners }: ServerStatus): string[] {
  return listeners.flatMap(({ name, datagrams }) => {
    if (!datagrams) return [];
    const { received, sent, ...rest } = datagrams;
    const others = byReason({ ...rest });
    return [`datagrams of ${name}: ${received} received, ${sent} sent${others === "" ? "" : `; ${others}`}`];
  });
}

/** "idle-timeout 3, drain 1": those that are not 0. */
function byReason(counts: Readonly<Record<string, number>>): string {
  const counted = Object.entries(counts).filter(([, count]) => count > 0);
  return counted.map(([reason, count]) => `${reason} ${count}`).join(", ");
}

/** The status, as text. */
export function showStatus(status: ServerStatus): string {
  const { totals, closes, rejections } = status;
  const now = Date.parse(status.startedAt) + status.uptimeMs;
  const listeners = status.listeners.map(({ name, address, service, ...counted }) => [
    name,
    address,
    service,
    counted.open,
    counted.opened,
    counted.requests,
    counted.shed,
    counted.handshakes,
    counted.resumed,
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
    bytes(worker.bytesHeldIn),
    bytes(worker.bytesHeldOut),
    percent(worker.cpuPercent),
    bytes(worker.memoryBytes),
    worker.restarts,
    worker.movedIn,
    worker.movedOut,
    worker.shed,
    worker.waiting,
  ]);
  const [closed, rejected] = [byReason(closes), byReason(rejections)];
  return [
    ...heading(status, now),
    "",
    ...table([
      ["listener", "address", "service", "open", "accepted", "requests", "shed", "handshakes", "resumed"],
      ...listeners,
    ]),
    "",
    ...table([WORKER_COLUMNS, ...workers]),
    ...certificates(status),
    ...leaving(status, now),
    "",
    `in all: ${totals.open} open, ${totals.accepted} accepted, ${totals.rejected} rejected, ${totals.requests} requests, ${totals.shed} shed, ` +
      `${showBytes(totals.bytesReceived)} received, ${showBytes(totals.bytesSent)} sent, ` +
      `${showBytes(totals.bytesHeldIn)} held in, ${showBytes(totals.bytesHeldOut)} held out, ${totals.restarts} restarts`,
    ...(totals.late + totals.cancelled > 0 ? [`requests: ${totals.late} late, ${totals.cancelled} cancelled`] : []),
    ...(totals.published > 0 ? [`topics: ${totals.published} published, ${totals.dropped} dropped`] : []),
    ...ofDatagrams(status),
    `closed: ${closed || "none yet"}`,
    ...(rejected === "" ? [] : [`rejected: ${rejected}`]),
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
