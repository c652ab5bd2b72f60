/**
 * The same over TLS 1.3, AES-128-GCM and a P-256 certificate for all: what a message costs, what a handshake costs, full
 * and resumed, and what a silent connection weighs. A handshake is measured as a connection that makes it, sends one
 * line, takes the answer and goes; `churn` says what all but the handshake is.
 */
import type { Bench, Load } from "../generator.ts";
import { firstLine } from "../machine.ts";
import { type LoadSample, measureLoad } from "../measure.ts";
import type { Options } from "../options.ts";
import type { Peer } from "../peers.ts";
import type { Column, Scenario } from "../scenario.ts";
import { figure } from "../table.ts";
import { idleScenario } from "./idle.ts";
import { CLIENT_SHARE, LATENCY, loadRemarks, SERVER_SHARE } from "./load-columns.ts";

const CONNECTIONS = [100, 1_000];
const SHAKING = 50;
const JUDGED_BYTES = 64;
/** Fewer than in the clear: each weighs ten times as much. */
const CROWD = { few: 1_000, many: 4_000, tls: "full" } as const;

const CPU: Column<LoadSample> = {
  title: "server CPU µs/message",
  of: (sample) => sample.serverMicrosPerUnit,
  show: (value) => value.toFixed(2),
  spread: true,
};

const RATE: Column<LoadSample> = { title: "per second", of: (sample) => sample.perSecond, show: figure };

const PER_CPU_SECOND: Column<LoadSample> = {
  title: "connections per server CPU second",
  of: (sample) => sample.unitsPerServerCpuSecond,
  show: figure,
  spread: true,
};

/** Why the suite cannot run here, if it cannot. */
export function tlsObstacle(): string | undefined {
  return firstLine("openssl", "version") === undefined ? "no openssl (Debian: apt install openssl)" : undefined;
}

function loadScenario(title: string, load: Load, metric: Column<LoadSample>, peers: readonly Peer[], bench: Bench) {
  return {
    suite: "tls",
    title: `tls: ${title}`,
    connections: load.connections,
    peers,
    against: ["go", "node-net"],
    metric,
    columns: [RATE, metric, ...LATENCY, SERVER_SHARE, CLIENT_SHARE],
    judged: load.mode === "closed" && load.sizeBytes === JUDGED_BYTES,
    measure: (peer) => measureLoad(peer, "tls-line", load, bench),
    remarks: (samples) => loadRemarks(samples, bench.machine.clientCores),
  } satisfies Scenario<LoadSample>;
}

/** A message, a handshake in two ways. C has no TLS here. */
export function tlsScenarios(options: Options, all: readonly Peer[], bench: Bench): Scenario<LoadSample>[] {
  const { sizeBytes, connections = CONNECTIONS } = options;
  const peers = withTls(all);
  const message = { mode: "closed", codec: "line", sizeBytes, tls: "full" } as const;
  return [
    ...connections.map((count) => {
      const title = `lines of ${sizeBytes} bytes, ${count} connections, closed loop`;
      return loadScenario(title, { ...message, connections: count }, CPU, peers, bench);
    }),
    ...(["full", "resume"] as const).map((tls) => {
      const load: Load = { mode: "churn", codec: "line", sizeBytes, connections: SHAKING, tls };
      const kind = tls === "full" ? "full handshakes" : "handshakes with a session";
      return loadScenario(
        `${kind}: connect, one line, close; ${SHAKING} at a time`,
        load,
        PER_CPU_SECOND,
        peers,
        bench,
      );
    }),
  ];
}

export function tlsIdleScenario(all: readonly Peer[], bench: Bench): ReturnType<typeof idleScenario> {
  return idleScenario("tls", CROWD, withTls(all), bench);
}

function withTls(peers: readonly Peer[]): Peer[] {
  return peers.filter((peer) => peer.id !== "c");
}
