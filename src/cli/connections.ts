/** `headrace connections`: who is connected, who was, and an end to one of them. */
import { type Command, Option } from "commander";
import { HeadraceError } from "../base/errors.ts";
import {
  type ClosedConnection,
  CONNECTION_SORTS,
  type ConnectionPage,
  type ConnectionSort,
  SORT_ORDERS,
  type SortOrder,
} from "../control/inspection.ts";
import type { ControlReply, ControlRequest } from "../control/protocol.ts";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";
import { showBytes, showDuration, table } from "./table.ts";

interface ConnectionsOptions extends ControlOptions {
  readonly sort?: string;
  readonly order?: string;
  readonly address?: string;
  readonly listener?: string;
  readonly worker?: string;
  readonly limit?: string;
  readonly offset?: string;
  readonly closed?: boolean;
  readonly kill?: string;
  readonly json?: boolean;
}

const HELP = `
Sorted by buffered (unsent bytes), idle, age or bytes (both ways), the largest first. One page at a time; --offset
turns it. Looking costs the server little: workers that have many connections look through them in small slices.
A kill resets the connection; its close has the reason "admin".

Examples:
  $ headrace connections
  $ headrace connections --sort idle --limit 20 --listener lines
  $ headrace connections --address 10.1.0.0/16 --json
  $ headrace connections --closed --limit 50
  $ headrace connections --kill 1.0-mwqzqw1y-0-1`;

function whole(option: string, given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  if (/^\d{1,6}$/.test(given)) return Number(given);
  throw new HeadraceError("usage", `--${option}: ${JSON.stringify(given)} is not a whole number`, { option, given });
}

function given<Name extends string, T>(name: Name, value: T | undefined): { [Key in Name]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: T };
}

/** What was asked, as a request: the server checks words and ranges. */
function requestOf(options: ConnectionsOptions): ControlRequest {
  const limit = whole("limit", options.limit);
  if (options.kill !== undefined) return { type: "kill", id: options.kill };
  if (options.closed) return { type: "closed", limit: limit ?? 100 };
  return {
    type: "connections",
    sort: (options.sort ?? "buffered") as ConnectionSort,
    order: (options.order ?? "desc") as SortOrder,
    limit: limit ?? 100,
    offset: whole("offset", options.offset) ?? 0,
    ...given("address", options.address),
    ...given("listener", options.listener),
    ...given("worker", whole("worker", options.worker)),
  };
}

const PAGE_COLUMNS = [
  "id",
  "worker",
  "listener",
  "client",
  "state",
  "age",
  "idle",
  "received",
  "sent",
  "buffered",
  "in flight",
  "rtt",
  "resent",
  "TLS",
];

/** A page, as text. */
function showPage({ total, offset, rows, missing }: ConnectionPage): string {
  const lines = rows.map((row) => [
    row.id,
    row.worker,
    row.listener,
    row.remote,
    row.state,
    showDuration(row.ageMs),
    showDuration(row.idleMs),
    showBytes(row.bytesReceived),
    showBytes(row.bytesSent),
    showBytes(row.bufferedBytes),
    row.inFlight,
    row.rttMs === undefined ? "-" : `${row.rttMs.toFixed(1)} ms`,
    row.retransmits ?? "-",
    row.tls ?? "-",
  ]);
  const which = rows.length === 0 ? "none" : `${offset + 1} to ${offset + rows.length}`;
  const silent = missing.map((why) => `missing: ${why}`);
  return [...table([PAGE_COLUMNS, ...lines]), "", `${which} of ${total}`, ...silent, ""].join("\n");
}

/** The last closes, as text. */
function showClosed(rows: readonly ClosedConnection[]): string {
  const columns = ["closed at", "reason", "id", "worker", "listener", "client", "after", "received", "sent"];
  const lines = rows.map((row) => [
    row.at,
    row.reason,
    row.id,
    row.worker,
    row.listener,
    row.remote,
    showDuration(row.durationMs),
    showBytes(row.bytesReceived),
    showBytes(row.bytesSent),
  ]);
  return [...table([columns, ...lines]), ""].join("\n");
}

function show(reply: ControlReply, json: boolean): string {
  if (reply.type === "connections") return json ? asJson(reply.page) : showPage(reply.page);
  if (reply.type === "closed") return json ? asJson(reply.rows) : showClosed(reply.rows);
  return reply.type === "done" ? `${reply.message}\n` : "";
}

const asJson = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

export function addConnections(program: Command): void {
  addControlOption(program.command("connections").description("list the connections, or the last that ended; end one"))
    .addOption(new Option("--sort <by>", "what they are sorted by (default: buffered)").choices(CONNECTION_SORTS))
    .addOption(new Option("--order <order>", "largest or smallest first (default: desc)").choices(SORT_ORDERS))
    .option("--address <address>", "only clients from there: a network (10.0.0.0/8), or how an address begins")
    .option("--listener <name>", "only of this listener")
    .option("--worker <n>", "only of this worker")
    .option("--limit <n>", "rows, at most 1000; of --closed 10000 (default: 100)")
    .option("--offset <n>", "rows that are left out at the beginning, at most 10000")
    .option("--closed", "the last connections that ended, and why")
    .option("--kill <id>", "reset this connection")
    .option("--json", "as JSON")
    .addHelpText("after", HELP)
    .action(async (options: ConnectionsOptions) => {
      const reply = await askServer(requestOf(options), options);
      process.stdout.write(show(reply, options.json ?? false));
    });
}
