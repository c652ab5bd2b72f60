/**
 * What the configuration says about newcomers, told to the engine, which decides about each of them alone. Called when
 * a worker starts and whenever its configuration changes.
 */

import { packRanges } from "../config/cidr.ts";
import type { ClientLimits, Config, ListenerConfig } from "../config/config.ts";
import type { Settings } from "../config/resolve.ts";
import type { Engine, SharedAdmission } from "../engine/engine.ts";
import { ADMISSION_ROWS } from "../os/admission-table.ts";
import type { ListenerService } from "../service/udp.ts";

/** Where a worker counts. */
export interface AdmissionPlace {
  readonly table: SharedAdmission;
  readonly column: number;
}

export type ServerAdmission = Pick<Config, "connections" | "clients" | "admission">;

interface AdmittingListener {
  readonly config: ListenerConfig;
  readonly service: ListenerService;
  readonly row: number;
  readonly settings: Settings;
}

/** Listeners whose clients are limited as the server's count in this space, any other in one of its own. */
const SHARED_SPACE = 0;

function spaceOf(row: number, own: ClientLimits, servers: ClientLimits): number {
  const same = (Object.keys(servers) as (keyof ClientLimits)[]).every((name) => own[name] === servers[name]);
  return same ? SHARED_SPACE : 1 + row;
}

/** Datagrams of each listener are counted apart from connections. */
const datagramSpace = (row: number): number => 1 + ADMISSION_ROWS + row;

/** Caps of the whole server and of each listener, limits of its clients, and its lists. */
export function applyAdmission(
  engine: Engine,
  { table, column }: AdmissionPlace,
  server: ServerAdmission,
  listeners: readonly AdmittingListener[],
): void {
  const caps = new Int32Array(ADMISSION_ROWS);
  caps[0] = server.connections;
  for (const { config, service, row } of listeners) {
    caps[1 + row] = config.limits.connections ?? service.limits.connections ?? 0;
  }
  engine.limit(table, column, caps);
  for (const { config, row, settings } of listeners) {
    const { limits } = settings;
    engine.list(row, packRanges([server.admission, config.admission]));
    if (config.address.protocol === "udp") {
      const { datagramRate: rate, datagramBurst: burst, ipv6Prefix } = limits;
      const rule = { rate, burst, space: datagramSpace(row), ipv6Prefix };
      engine.rule(row, { ...rule, connections: "off", onLimit: "reset", namedLater: false });
      continue;
    }
    engine.rule(row, {
      connections: limits.connectionsPerAddress,
      rate: limits.connectRate,
      burst: limits.connectBurst,
      space: spaceOf(row, limits, server.clients),
      ipv6Prefix: limits.ipv6Prefix,
      onLimit: limits.onLimit,
      namedLater: config.proxyProtocol !== undefined,
    });
  }
}
