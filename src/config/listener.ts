/**
 * Listeners as configured: options merged, services located, names made unique, and none in another's way.
 * Options come from the file's top level, then the listener itself, then the environment.
 */
import { basename, extname } from "node:path";
import {
  DEFAULT_ADMISSION,
  DEFAULT_SOCKET,
  type Limits,
  type ServerLimits,
  type ServerTimeouts,
  type Timeouts,
} from "../base/settings.ts";
import { LIMIT_KINDS, SERVER_LIMIT_KINDS } from "./bounds.ts";
import { BUILTIN_SERVICES, type ListenerConfig, type ServiceRef, UDP_SERVICES } from "./config.ts";
import { limitConflicts, overlap } from "./conflicts.ts";
import type { Finding } from "./finding.ts";
import { type Layer, merge, placeOf } from "./layers.ts";
import { absolutePath } from "./path.ts";
import {
  type ConfigInput,
  DEFAULT_PROXY_REQUIRED,
  type Groups,
  type GroupsInput,
  type ListenerInput,
} from "./schema.ts";
import type { Source } from "./source.ts";
import { readTls } from "./tls.ts";

/** A source, and what the schema read from it. */
export interface Read {
  readonly source: Source;
  readonly input: ConfigInput;
}

export interface ListenerSources {
  readonly file: Read;
  readonly environment: Read;
  /** Where the list of listeners is from: the file, the flags or the defaults. */
  readonly list: Source;
}

function layersOf<Name extends keyof Groups>(
  { file, environment, list }: ListenerSources,
  name: Name,
  own: GroupsInput,
  index: number,
): Layer<Groups[Name]>[] {
  const shared: GroupsInput = file.input;
  const above: GroupsInput = environment.input;
  return [
    { source: file.source, path: [name], values: shared[name] },
    { source: list, path: ["listeners", index, name], values: own[name] },
    { source: environment.source, path: [name], values: above[name] },
  ];
}

/**
 * `limits.connections` means another thing at the top (the server's total) than here (a further cap), so the
 * environment's, which is the total, does not replace a listener's own.
 */
function limitsOf(layers: readonly Layer<Limits>[], own: Partial<Limits> | undefined): Partial<Limits> {
  const connections = own?.connections;
  const { bufferMemory: _, handshakes: _handshakes, ...limits }: Partial<Limits & ServerLimits> = merge(layers);
  return { ...limits, ...(connections === undefined ? {} : { connections }) };
}

function checkLimits(layers: readonly Layer<Limits>[], findings: Finding[]): void {
  // Those at the top are the server's, too.
  const limits: Partial<Limits & ServerLimits> = merge(layers);
  const kinds = { ...LIMIT_KINDS, ...SERVER_LIMIT_KINDS };
  for (const { option, relation, other } of limitConflicts(limits)) {
    const place = placeOf(layers, option);
    const [value, bound] = [kinds[option].write(limits[option] ?? 0), kinds[other].write(limits[other] ?? 0)];
    if (place) findings.push({ place, given: value, problem: `${value} ${relation} limits.${other} (${bound})` });
  }
}

function timeoutsOf(layers: readonly Layer<Timeouts>[]): Partial<Timeouts> {
  // These stand among the timeouts at the top, and are the server's.
  const { drain: _drain, hang: _hang, prove: _prove, ...timeouts }: Partial<Timeouts & ServerTimeouts> = merge(layers);
  return timeouts;
}

function serviceAt(given: string, folder: string): ServiceRef {
  const builtin = BUILTIN_SERVICES.find((name) => name === given);
  return builtin ? { kind: "builtin", name: builtin } : { kind: "module", path: absolutePath(folder, given), given };
}

/** `./dist/game.js` gives "game". */
function nameFrom(service: string): string {
  const name = basename(service, extname(service)).replaceAll(/[^A-Za-z0-9._-]/g, "-");
  return name.replace(/^[^A-Za-z0-9]+/, "").slice(0, 56) || "listener";
}

/** Given names first; the others are made from the service, with a number where that is taken. */
function namesOf(inputs: readonly ListenerInput[]): string[] {
  const taken = new Set(inputs.flatMap(({ name }) => name ?? []));
  return inputs.map(({ name, service }) => {
    if (name !== undefined) return name;
    const base = nameFrom(service);
    let free = base;
    for (let number = 2; taken.has(free); number++) free = `${base}-${number}`;
    taken.add(free);
    return free;
  });
}

/** What a module's service is for is known once it is loaded. */
function checkProtocols(listeners: readonly ListenerConfig[], list: Source, findings: Finding[]): void {
  for (const [index, { address, addressText, service }] of listeners.entries()) {
    if (service.kind === "module") continue;
    const udp = UDP_SERVICES.has(service.name);
    if (udp === (address.protocol === "udp")) continue;
    const place = list.place(["listeners", index, "address"]);
    const problem = udp
      ? `${service.name} serves datagrams: udp://${addressText}`
      : `${addressText} is for datagrams, and ${service.name} serves connections`;
    const allowed = udp ? {} : { allowed: `${[...UDP_SERVICES].join(", ")}, or a module made by defineUdpService` };
    findings.push({ place, given: addressText, problem, ...allowed });
  }
}

/** What only a connection can have. */
const OF_CONNECTIONS = ["proxyProtocol", "tls"] as const satisfies readonly (keyof ListenerConfig)[];

function checkOptions(listeners: readonly ListenerConfig[], list: Source, findings: Finding[]): void {
  for (const [index, listener] of listeners.entries()) {
    if (listener.address.protocol !== "udp") continue;
    for (const option of OF_CONNECTIONS) {
      if (listener[option] === undefined) continue;
      const place = list.place(["listeners", index, option]);
      const problem = `is for connections, and ${listener.addressText} is for datagrams`;
      findings.push({ place, problem, allowed: "on TCP listeners" });
    }
  }
}

/** Each pair once; the later one is to blame. */
function checkPairs(listeners: readonly ListenerConfig[], list: Source, findings: Finding[]): void {
  for (const [index, listener] of listeners.entries()) {
    const { name, address, addressText, socket } = listener;
    for (const other of listeners.slice(0, index)) {
      if (other.name === name) {
        const place = list.place(["listeners", index, "name"]);
        findings.push({ place, given: name, problem: `"${name}" is the name of another listener too` });
      }
      const there = { address: other.address, ipv6Only: other.socket.ipv6Only };
      if (overlap({ address, ipv6Only: socket.ipv6Only }, there)) {
        const place = list.place(["listeners", index, "address"]);
        const problem = `${addressText} is taken by listener ${other.name} (${other.addressText})`;
        findings.push({ place, given: addressText, problem });
      }
    }
  }
}

/** `total`: connections of the server, which no listener's own cap may exceed. */
export function readListeners(
  inputs: readonly ListenerInput[],
  sources: ListenerSources,
  total: number,
  findings: Finding[],
): ListenerConfig[] {
  const names = namesOf(inputs);
  const listeners = inputs.map((input, index): ListenerConfig => {
    const limits = layersOf(sources, "limits", input, index);
    checkLimits(limits, findings);
    const cap = input.limits?.connections ?? 0;
    if (cap > total) {
      const place = sources.list.place(["listeners", index, "limits", "connections"]);
      findings.push({
        place,
        given: String(cap),
        problem: `${cap} is more than the server's limits.connections (${total})`,
      });
    }
    return {
      name: names[index] ?? "",
      address: input.address.address,
      addressText: input.address.text,
      service: serviceAt(input.service, sources.list.folder),
      limits: limitsOf(limits, input.limits),
      timeouts: timeoutsOf(layersOf(sources, "timeouts", input, index)),
      socket: { ...DEFAULT_SOCKET, ...merge(layersOf(sources, "socket", input, index)) },
      admission: { ...DEFAULT_ADMISSION, ...input.admission },
      ...(input.proxyProtocol ? { proxyProtocol: { required: DEFAULT_PROXY_REQUIRED, ...input.proxyProtocol } } : {}),
      ...(input.tls ? { tls: readTls(input.tls, sources.list, ["listeners", index, "tls"], findings) } : {}),
    };
  });
  checkProtocols(listeners, sources.list, findings);
  checkOptions(listeners, sources.list, findings);
  checkPairs(listeners, sources.list, findings);
  return listeners;
}
