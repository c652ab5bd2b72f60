/**
 * The three places a configuration comes from (file, environment, flags), in one shape: data that the schema
 * reads, and a function that says where each option in it was given.
 */
import { dirname } from "node:path";
import { HeadraceError } from "../base/errors.ts";
import { type Flags, UDP_SERVICES } from "./config.ts";
import { readDocument } from "./document.ts";
import { VARIABLE_PREFIX, VARIABLES, variableOf } from "./environment.ts";
import { DEFAULT_FILE, readConfigFile } from "./file.ts";
import type { Finding, Place } from "./finding.ts";
import { nearest } from "./nearest.ts";
import { absolutePath } from "./path.ts";
import { formatPath, type Path } from "./shown.ts";

export interface Source {
  /** For people: the file as named, "built-in defaults", "the environment", "the command line". */
  readonly name: string;
  /** In the shape of the schema, unchecked; undefined when nothing can be made of it. */
  readonly data: unknown;
  /** What is wrong even before the schema looks at `data`. */
  readonly findings: readonly Finding[];
  /** Folder that relative paths start from. */
  readonly folder: string;
  place(path: Path): Place;
}

const DEFAULT_SERVICE = "echo-line";
const DEFAULT_LISTEN = "127.0.0.1:9000";

const BUILT_IN = {
  listeners: [
    { name: "lines", address: DEFAULT_LISTEN, service: DEFAULT_SERVICE },
    { name: "frames", address: "127.0.0.1:9001", service: "echo-frame" },
  ],
};

/** What runs where nothing else is said. The limits and so on have their defaults in src/base/settings.ts. */
export function defaultSource(cwd: string): Source {
  const name = "built-in defaults";
  const place = (path: Path): Place => ({ label: `${name}: ${formatPath(path)}`, code: "config-invalid" });
  return { name, data: BUILT_IN, findings: [], folder: cwd, place };
}

/**
 * The file `--config` names, else HEADRACE_CONFIG, else headrace.yaml in `cwd` if it is there.
 * Throws `config-invalid` when it cannot be read, `usage` when `--config` is empty.
 */
export function fileSource(flag: string | undefined, env: NodeJS.ProcessEnv, cwd: string): Source | undefined {
  if (flag === "") throw new HeadraceError("usage", "--config: a file's name is missing", { option: "--config" });
  const named = flag ?? (env.HEADRACE_CONFIG || undefined);
  const file = named ?? DEFAULT_FILE;
  const text = readConfigFile(file, cwd, named !== undefined);
  if (text === undefined) return undefined;
  const document = readDocument(text);

  function placeAt(path: Path, line: number): Place {
    const option = formatPath(path);
    const label = option === "" ? `${file}:${line}` : `${file}:${line}: ${option}`;
    return { label, code: "config-invalid", file, line, ...(option === "" ? {} : { option }) };
  }

  return {
    name: file,
    data: document.faults.length > 0 ? undefined : document.data,
    findings: document.faults.map(({ path, line, problem }) => ({ place: placeAt(path, line), problem })),
    folder: dirname(absolutePath(cwd, file)),
    place: (path) => placeAt(path, document.lineOf(path)),
  };
}

/** The HEADRACE_* variables. An empty one counts as not set. */
export function environmentSource(env: NodeJS.ProcessEnv, cwd: string): Source {
  const data: Record<string, unknown> = {};
  const findings: Finding[] = [];
  const place = (name: string): Place => ({ label: formatPath([name]), code: "config-invalid", option: name });
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(VARIABLE_PREFIX) || name === "HEADRACE_CONFIG") continue;
    const path = VARIABLES.get(name);
    if (!path) {
      const known = [...VARIABLES.keys(), "HEADRACE_CONFIG"].map((variable) => variable.slice(VARIABLE_PREFIX.length));
      const near = nearest(name.slice(VARIABLE_PREFIX.length), known, Number.POSITIVE_INFINITY);
      findings.push({ place: place(name), problem: `unknown variable; the nearest is ${VARIABLE_PREFIX}${near}` });
    } else if (value) {
      setAt(data, path, value);
    }
  }
  return { name: "the environment", data, findings, folder: cwd, place: (path) => place(variableOf(path)) };
}

function setAt(data: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [group = "", name] = path;
  if (name === undefined) data[group] = value;
  else data[group] = { ...(data[group] as object | undefined), [name]: value };
}

/** The command line. A service without `--listen` is served on 127.0.0.1:9000; either replaces all listeners. */
export function flagsSource(flags: Flags, cwd: string): Source {
  const { service, listen = [], workers, logLevel, control } = flags;
  const otherwise = UDP_SERVICES.has(service as never) ? `udp://${DEFAULT_LISTEN}` : DEFAULT_LISTEN;
  const addresses = listen.length > 0 || service === undefined ? listen : [otherwise];
  const listeners = addresses.map((address) => ({ address, service: service ?? DEFAULT_SERVICE }));
  const data = {
    ...(workers === undefined ? {} : { workers }),
    ...(logLevel === undefined ? {} : { log: { level: logLevel } }),
    ...(control === undefined ? {} : { control }),
    ...(listeners.length === 0 ? {} : { listeners }),
  };
  return {
    name: "the command line",
    data,
    findings: [],
    folder: cwd,
    place(path) {
      const label = flagOf(path);
      return { label, code: "usage", option: label };
    },
  };
}

function flagOf(path: Path): string {
  if (path[0] === "listeners") return path[2] === "service" ? "service" : "--listen";
  return path[0] === "log" ? "--log-level" : `--${path.join("-")}`;
}
