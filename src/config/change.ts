/**
 * What it takes to get from one configuration to another while the server runs: what differs, and by the table in
 * effects.ts whether running workers are told, new ones are needed, or only a restart will do.
 * Pure: src/primary carries the plan out.
 */
import { DEFAULT_PROFILES } from "./admin.ts";
import type { CertificateFiles, Config, ListenerConfig, ServiceRef, TlsConfig } from "./config.ts";
import { overlap } from "./conflicts.ts";
import { EFFECTS, type Effect } from "./effects.ts";
import { listenerKey } from "./listener-key.ts";

export interface ConfigChange {
  /** Options that running workers are told, for people: `limits.connections`, `timeouts.idle (lines)`. */
  readonly live: readonly string[];
  /** Options that need new workers, worded as in `live`. */
  readonly workers: readonly string[];
  /** Sentences: what cannot be changed while the server runs, and what to do instead. */
  readonly restart: readonly string[];
  /** Listeners that only the new configuration has. Their addresses can be bound beside those that are open. */
  readonly added: readonly ListenerConfig[];
  /** Listeners that only the old configuration has. */
  readonly removed: readonly ListenerConfig[];
  /** The number of workers changes. */
  readonly scale?: { readonly from: number; readonly to: number };
}

/** A listener that both configurations have. */
interface Kept {
  readonly before: ListenerConfig;
  readonly after: ListenerConfig;
}

/** An option that differs: in a listener, or for the whole server. */
interface Difference {
  readonly option: string;
  readonly listener?: string;
}

/** Options outside of `listeners`. Those that `planChange` words by itself are not here. */
function serverOptions(config: Config): Readonly<Record<string, unknown>> {
  return {
    "limits.connections": config.connections,
    "limits.connectionsPerAddress": config.clients.connectionsPerAddress,
    "limits.connectRate": config.clients.connectRate,
    "limits.connectBurst": config.clients.connectBurst,
    "limits.ipv6Prefix": config.clients.ipv6Prefix,
    "limits.bufferMemory": config.bufferMemory,
    "limits.handshakes": config.handshakes,
    "timeouts.drain": config.drainMs,
    "timeouts.hang": config.hangMs,
    "timeouts.prove": config.proveMs,
    "drain.tls": config.tlsDrainMs,
    "migration.enabled": config.migration.enabled,
    "migration.rebalance": config.migration.rebalance,
    "admission.allow": config.admission.allow.join(),
    "admission.deny": config.admission.deny.join(),
    "tasks.threads": config.tasks.threads,
    "tasks.queue": config.tasks.queue,
    "shed.queueDelay": config.shed.queueDelay,
    "shed.loopDelay": config.shed.loopDelay,
    "shed.memory": config.shed.memory,
    "log.level": config.logLevel,
    "admin.address": config.admin?.addressText,
    "admin.token": config.admin?.token,
    "admin.hosts": (config.admin?.hosts ?? []).join(),
    "admin.profiles": config.admin?.profiles ?? DEFAULT_PROFILES,
  };
}

function serverDifferences(before: Config, after: Config): Difference[] {
  const old = serverOptions(before);
  return Object.entries(serverOptions(after)).flatMap(([option, value]) => (old[option] === value ? [] : { option }));
}

function sameService(a: ServiceRef, b: ServiceRef): boolean {
  if (a.kind === "module") return b.kind === "module" && a.path === b.path;
  return b.kind === "builtin" && a.name === b.name;
}

const pathsOf = ({ certificate, key }: CertificateFiles): string[] => [certificate.path, key.path];

/** Values that are equal when nothing has changed, by option. */
function tlsOptions(tls: TlsConfig | undefined): Readonly<Record<string, string>> {
  const [first, ...more] = tls?.certificates ?? [];
  const said: Record<string, unknown> = {
    certificate: first?.certificate.path,
    key: first?.key.path,
    "certificates[].certificate": more.map(pathsOf),
    "certificates[].names": more.map(({ names }) => names ?? []),
    ca: tls?.ca?.path,
    clientCertificate: tls?.clientCertificate,
    alpn: tls?.alpn,
    minVersion: tls?.minVersion,
    ciphers: tls?.ciphers,
    keyLog: tls?.keyLog,
  };
  return Object.fromEntries(Object.entries(said).map(([option, value]) => [option, JSON.stringify(value) ?? ""]));
}

function tlsDifferences({ before, after }: Kept): Difference[] {
  const old = tlsOptions(before.tls);
  return Object.entries(tlsOptions(after.tls)).flatMap(([option, value]) =>
    old[option] === value ? [] : { option: `listeners[].tls.${option}`, listener: after.name },
  );
}

function listenerDifferences({ before, after }: Kept): Difference[] {
  const listener = after.name;
  const found: Difference[] = [];
  if (before.name !== after.name) found.push({ option: "listeners[].name", listener });
  if (!sameService(before.service, after.service)) found.push({ option: "listeners[].service", listener });
  for (const group of ["limits", "timeouts", "socket", "admission"] as const) {
    const [old, fresh] = [before[group] as Record<string, unknown>, after[group] as Record<string, unknown>];
    for (const name of Object.keys({ ...old, ...fresh })) {
      // A list is another when its text is.
      if (String(old[name]) !== String(fresh[name])) found.push({ option: `${group}.${name}`, listener });
    }
  }
  for (const name of ["trust", "required"] as const) {
    if (String(before.proxyProtocol?.[name]) !== String(after.proxyProtocol?.[name])) {
      found.push({ option: `listeners[].proxyProtocol.${name}`, listener });
    }
  }
  return [...found, ...tlsDifferences({ before, after })];
}

/** `timeouts.idle`, or `timeouts.idle (lines, frames)` where other listeners keep theirs. */
function describe(option: string, all: readonly Difference[], kept: number): string {
  const where = all.flatMap((one) => (one.option === option ? [one.listener] : []));
  const common = where.includes(undefined) || (where.length === kept && !option.startsWith("listeners"));
  return common ? option : `${option} (${[...new Set(where)].join(", ")})`;
}

function fixed(option: "control" | "pidFile", unset: string, before: Config, after: Config): string[] {
  const [old, fresh] = [before[option] ?? unset, after[option] ?? unset];
  return old === fresh ? [] : [`${option}: cannot change from ${old} to ${fresh} while the server runs; restart it`];
}

function otherFamily({ before, after }: Kept): string {
  const [old, fresh] = [before.socket.ipv6Only, after.socket.ipv6Only];
  const what = `listener ${after.name}: socket.ipv6Only: cannot change from ${old} to ${fresh}`;
  return `${what} while ${after.addressText} is open; restart the server, or remove the listener, reload, and add it again`;
}

function inTheWay(added: ListenerConfig, removed: ListenerConfig): string {
  const what = `listener ${added.name}: ${added.addressText} cannot be opened before ${removed.addressText} is closed`;
  return `${what}; remove listener ${removed.name}, reload, and then add this one`;
}

function clash(a: ListenerConfig, b: ListenerConfig): boolean {
  const [one, other] = [a, b].map(({ address, socket }) => ({ address, ipv6Only: socket.ipv6Only }));
  return one !== undefined && other !== undefined && overlap(one, other);
}

/** The listener's key, whatever its `ipv6Only`. */
function addressKey(listener: ListenerConfig): string {
  return listenerKey({ ...listener, socket: { ...listener.socket, ipv6Only: false } });
}

/** What leads from `before` to `after`. Of both the service paths are pinned, or of neither. */
export function planChange(before: Config, after: Config): ConfigChange {
  const old = new Map(before.listeners.map((listener) => [addressKey(listener), listener]));
  const pairs = after.listeners.flatMap((listener): Kept[] => {
    const same = old.get(addressKey(listener));
    return same ? [{ before: same, after: listener }] : [];
  });
  const turned = pairs.filter((pair) => listenerKey(pair.before) !== listenerKey(pair.after));
  const kept = pairs.filter((pair) => !turned.includes(pair));
  const added = after.listeners.filter((listener) => !pairs.some((pair) => pair.after === listener));
  const removed = before.listeners.filter((listener) => !pairs.some((pair) => pair.before === listener));
  const differences = [
    ...serverDifferences(before, after),
    ...kept.flatMap(listenerDifferences),
    ...[...added, ...removed].map(({ name }) => ({ option: "listeners[].address", listener: name })),
  ];
  const differing = new Set(differences.map(({ option }) => option));
  const having = (effect: Effect): string[] =>
    Object.keys(EFFECTS)
      .filter((option) => differing.has(option) && EFFECTS[option] === effect)
      .map((option) => describe(option, differences, kept.length));
  return {
    live: having("live"),
    workers: having("workers"),
    restart: [
      ...fixed("control", "the default", before, after),
      ...fixed("pidFile", "none", before, after),
      ...turned.map(otherFamily),
      ...added.flatMap((one) => removed.filter((other) => clash(one, other)).map((other) => inTheWay(one, other))),
    ],
    added,
    removed,
    ...(before.workers === after.workers ? {} : { scale: { from: before.workers, to: after.workers } }),
  };
}
