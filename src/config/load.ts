/**
 * Reads the configuration: file, environment and flags, each checked with the same schema, then merged, then
 * checked as a whole. Called at start, at reload and by `headrace check`; nothing else knows where an option is from.
 *
 * Precedence, lowest first: defaults, the service's own (resolve.ts), the file's top level, the listener in the
 * file, HEADRACE_* variables, flags.
 */
import { availableParallelism } from "node:os";
import {
  DEFAULT_ADMISSION,
  DEFAULT_DRAIN,
  DEFAULT_LIMITS,
  DEFAULT_MIGRATION,
  DEFAULT_SERVER_LIMITS,
  DEFAULT_SERVER_TIMEOUTS,
  DEFAULT_SHED,
  MAX_WORKERS,
} from "../base/settings.ts";
import { adminOf } from "./admin.ts";
import type { ClientLimits, Config, Flags } from "./config.ts";
import { type Finding, refuse } from "./finding.ts";
import { type Read, readListeners } from "./listener.ts";
import { absolutePath } from "./path.ts";
import { DEFAULT_LOG_LEVEL } from "./schema.ts";
import { defaultSource, environmentSource, fileSource, flagsSource, type Source } from "./source.ts";
import { readSource } from "./validate.ts";

export interface LoadInput {
  /** `--config`. Else HEADRACE_CONFIG, else `headrace.yaml` in `cwd` if it is there. */
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly flags: Flags;
  /** Absolute. Relative paths of flags and variables start here, those of a file in its folder. */
  readonly cwd: string;
}

/** sun_path holds 108 bytes with its closing NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

function workersOf(given: number | "auto" | undefined): number {
  return given === undefined || given === "auto" ? Math.min(availableParallelism(), MAX_WORKERS) : given;
}

/** The highest source that names a control socket. */
function controlOf(reads: readonly Read[], findings: Finding[]): { control?: string } {
  const last = reads.findLast(({ input }) => input.control !== undefined);
  if (last?.input.control === undefined) return {};
  const control = absolutePath(last.source.folder, last.input.control);
  const length = Buffer.byteLength(control);
  if (length > MAX_SOCKET_PATH) {
    const problem = `the path is ${length} bytes long once absolute`;
    findings.push({
      place: last.source.place(["control"]),
      problem,
      given: control,
      allowed: `${MAX_SOCKET_PATH} bytes`,
    });
  }
  return { control };
}

function pidFileOf(reads: readonly Read[]): { pidFile?: string } {
  const last = reads.findLast(({ input }) => input.pidFile !== undefined);
  return last?.input.pidFile === undefined ? {} : { pidFile: absolutePath(last.source.folder, last.input.pidFile) };
}

/** Of the server: what the sources set, in their order, over the defaults. */
function clientsOf(reads: readonly Read[]): ClientLimits {
  const limits = Object.assign({}, DEFAULT_LIMITS, ...reads.map(({ input }) => input.limits)) as typeof DEFAULT_LIMITS;
  const { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix } = limits;
  return { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix };
}

/**
 * The configuration, complete but for what each service declares.
 * Throws `config-invalid`, or `usage` when a flag is at fault, with one line per finding (at most 20).
 */
export function loadConfig({ file, env, flags, cwd }: LoadInput): Config {
  const findings: Finding[] = [];
  const read = (source: Source): Read => ({ source, input: readSource(source, findings) });
  const defaults = read(defaultSource(cwd));
  const fileGiven = fileSource(file, env, cwd);
  const fromFile = read(fileGiven ?? { ...defaults.source, data: {} });
  const fromEnvironment = read(environmentSource(env, cwd));
  const fromFlags = read(flagsSource(flags, cwd));
  refuse(findings);

  const reads = [defaults, fromFile, fromEnvironment, fromFlags];
  const last = <T>(pick: (input: Read["input"]) => T | undefined): T | undefined =>
    reads.map(({ input }) => pick(input)).findLast((value) => value !== undefined);
  const { drain, hang, prove } = DEFAULT_SERVER_TIMEOUTS;
  const { enabled, rebalance } = DEFAULT_MIGRATION;
  const connections = last(({ limits }) => limits?.connections) ?? DEFAULT_LIMITS.connections;
  const list = reads.findLast(({ input }) => input.listeners) ?? defaults;
  const sources = { file: fromFile, environment: fromEnvironment, list: list.source };
  const listeners = readListeners(list.input.listeners ?? [], sources, connections, findings);
  const builtIn = fileGiven === undefined && list === defaults;
  const config: Config = {
    workers: workersOf(last(({ workers }) => workers)),
    listeners,
    drainMs: last(({ timeouts }) => timeouts?.drain) ?? drain,
    hangMs: last(({ timeouts }) => timeouts?.hang) ?? hang,
    proveMs: last(({ timeouts }) => timeouts?.prove) ?? prove,
    connections,
    clients: clientsOf(reads),
    admission: Object.assign({}, DEFAULT_ADMISSION, ...reads.map(({ input }) => input.admission)),
    bufferMemory: last(({ limits }) => limits?.bufferMemory) ?? DEFAULT_SERVER_LIMITS.bufferMemory,
    handshakes: last(({ limits }) => limits?.handshakes) ?? DEFAULT_SERVER_LIMITS.handshakes,
    tlsDrainMs: last((input) => input.drain?.tls) ?? DEFAULT_DRAIN.tls,
    migration: {
      enabled: last(({ migration }) => migration?.enabled) ?? enabled,
      rebalance: last(({ migration }) => migration?.rebalance) ?? rebalance,
    },
    tasks: Object.assign({}, ...reads.map(({ input }) => input.tasks)),
    shed: Object.assign({ ...DEFAULT_SHED }, ...reads.map(({ input }) => input.shed)),
    logLevel: last(({ log }) => log?.level) ?? DEFAULT_LOG_LEVEL,
    ...adminOf(reads, { builtIn, listeners }, findings),
    ...controlOf(reads, findings),
    ...pidFileOf(reads),
    source: fromFile.source.name,
  };
  refuse(findings);
  return config;
}
