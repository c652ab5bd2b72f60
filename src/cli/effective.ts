/** The configuration as it would be used, in the form of a configuration file. */
import { stringify } from "yaml";
import { type Admission, DEFAULT_TASKS } from "../base/settings.ts";
import {
  DRAIN_KINDS,
  LIMIT_KINDS,
  SERVER_LIMIT_KINDS,
  SERVER_TIMEOUT_KINDS,
  SHED_KINDS,
  SOCKET_KINDS,
  TASK_KINDS,
  TIMEOUT_KINDS,
} from "../config/bounds.ts";
import type { AdminConfig, Config, TlsConfig } from "../config/config.ts";
import { resolveSettings } from "../config/resolve.ts";
import { serviceLabel } from "../primary/label.ts";
import type { ListenerService } from "../service/udp.ts";
import { checkProtocol } from "../worker/load-service.ts";
import { closePools, configurePools, poolsOf, startPools } from "../worker/pools.ts";
import { loadServiceWithin } from "./loading.ts";

type Writers = Readonly<Record<string, { write(value: never): string }>>;

/** Each value as one would write it in a file: text only where a plain number or switch would not do. */
function written(values: object, kinds: Writers): Record<string, unknown> {
  const entries = Object.entries(values).map(([name, value]) => {
    const text = kinds[name]?.write(value as never) ?? String(value);
    return [name, text === String(value) ? value : text];
  });
  return Object.fromEntries(entries);
}

/** Lists that say something. */
function shownLists(admission: Admission): { admission?: Partial<Admission> } {
  const lists = Object.entries(admission).filter(([, blocks]) => blocks.length > 0);
  return lists.length === 0 ? {} : { admission: Object.fromEntries(lists) };
}

/** That there is a token, not which. */
function shownAdmin({ addressText, token, hosts, profiles }: AdminConfig): object {
  return {
    address: addressText,
    ...(token === undefined ? {} : { token: "(secret)" }),
    ...(hosts.length === 0 ? {} : { hosts }),
    profiles,
  };
}

/** With the paths that are used. */
function shownTls({ certificates, ca, ...options }: TlsConfig): object {
  const [first, ...more] = certificates.map(({ certificate, key, names }) => ({
    certificate: certificate.path,
    key: key.path,
    ...(names ? { names } : {}),
  }));
  return {
    ...first,
    ...(more.length > 0 ? { certificates: more } : {}),
    ...(ca ? { ca: ca.path } : {}),
    ...options,
  };
}

/** One thread of each pool is enough to see that its module can be loaded. */
async function tryPools(service: ListenerService, config: Config): Promise<void> {
  const pools = poolsOf([{ service }]);
  configurePools(pools, { ...config, tasks: { ...config.tasks, threads: 1 } });
  await startPools(pools);
  await closePools(pools);
}

/** Loads every service and its thread pools. Throws `service-invalid` or `config-invalid`. */
export async function showEffective(config: Config): Promise<string> {
  const listeners: object[] = [];
  for (const listener of config.listeners) {
    const service = await loadServiceWithin(listener.service);
    checkProtocol(listener, service);
    await tryPools(service, config);
    const { limits, timeouts } = resolveSettings(listener, service, config);
    // Shown where it says something: a cap of the listener's own, below that of the server.
    const cap = listener.limits.connections ?? service.limits.connections ?? config.connections;
    const { connections: _, ...others } = limits;
    const capped = cap < config.connections ? { connections: cap, ...others } : others;
    listeners.push({
      name: listener.name,
      address: listener.addressText,
      service: serviceLabel(listener.service),
      limits: written(capped, LIMIT_KINDS),
      timeouts: written(timeouts, TIMEOUT_KINDS),
      socket: written(listener.socket, SOCKET_KINDS),
      ...shownLists(listener.admission),
      ...(listener.tls ? { tls: shownTls(listener.tls) } : {}),
    });
  }
  const effective = {
    workers: config.workers,
    limits: {
      connections: config.connections,
      ...written({ bufferMemory: config.bufferMemory, handshakes: config.handshakes }, SERVER_LIMIT_KINDS),
    },
    timeouts: written({ drain: config.drainMs, hang: config.hangMs, prove: config.proveMs }, SERVER_TIMEOUT_KINDS),
    drain: written({ tls: config.tlsDrainMs }, DRAIN_KINDS),
    migration: config.migration,
    ...shownLists(config.admission),
    tasks: written({ ...DEFAULT_TASKS, ...config.tasks }, TASK_KINDS),
    shed: written(config.shed, SHED_KINDS),
    log: { level: config.logLevel },
    ...(config.admin ? { admin: shownAdmin(config.admin) } : {}),
    ...(config.control === undefined ? {} : { control: config.control }),
    ...(config.pidFile === undefined ? {} : { pidFile: config.pidFile }),
    listeners,
  };
  return `# ${config.source}: valid\n${stringify(effective)}`;
}
