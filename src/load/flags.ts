/**
 * The command line of `headrace bench` as LoadOptions. Every fault is a `usage` error that names the flag, what was
 * given and what is allowed; flags that contradict each other are refused, never weighed.
 */

import { isIPv4, isIPv6 } from "node:net";
import { parseAddress } from "../base/address.ts";
import { HeadraceError } from "../base/errors.ts";
import { HEADER_BYTES } from "../codec/rpc-header.ts";
import { choice, numeric, Wrong } from "../config/kinds.ts";
import { COUNT, DURATION, SIZE } from "../config/units.ts";
import { LOAD_CODECS, type LoadCodec, type LoadMode, type LoadOptions, type LoadTls } from "./options.ts";

/** As commander gives them; absent when not given. */
export interface LoadFlags {
  readonly codec?: string;
  readonly size?: string;
  readonly connections?: string;
  readonly connectRate?: string;
  readonly pipeline?: string;
  readonly rate?: string;
  readonly flood?: boolean;
  readonly churn?: boolean;
  readonly hold?: boolean;
  readonly tls?: boolean;
  readonly tlsResume?: boolean;
  readonly close?: string;
  readonly duration?: string;
  readonly warmup?: string;
  readonly source?: string;
  readonly timeout?: string;
  readonly processes?: string;
}

const DAY_MS = 86_400_000;
const MiB = 1024 * 1024;
/** A message and its header must fit the engine's output arena. */
const MOST_BYTES = MiB - HEADER_BYTES;

const COUNTS = numeric(COUNT, 1, 1_000_000);
const RATES = numeric(COUNT, 1, 100_000_000);
const DEPTHS = numeric(COUNT, 1, 65_536);
const PROCESSES = numeric(COUNT, 1, 256);
const DURATIONS = numeric(DURATION, 1, DAY_MS);

const MODES = ["rate", "flood", "churn", "hold"] as const;
const MODE_OF = { rate: "open", flood: "flood", churn: "churn", hold: "hold" } as const;

/** Flags that mean nothing in a mode, and why. */
const FOREIGN: Readonly<Partial<Record<LoadMode, readonly (readonly [flag: keyof LoadFlags, why: string])[]>>> = {
  flood: [["pipeline", "--flood sends without waiting"]],
  churn: [
    ["pipeline", "--churn sends one message per connection"],
    ["connectRate", "--churn connects as fast as connections come and go"],
  ],
  hold: [
    ["pipeline", "--hold sends one message per connection"],
    ["duration", "--hold lasts until its input is closed"],
    ["warmup", "--hold measures nothing"],
  ],
};

function usage(flag: string, problem: string, given?: string, allowed?: string): HeadraceError {
  return new HeadraceError("usage", `${flag}: ${problem}${allowed === undefined ? "" : `; allowed: ${allowed}`}`, {
    option: flag,
    ...(given === undefined ? {} : { given }),
    ...(allowed === undefined ? {} : { allowed }),
  });
}

interface Reader<T> {
  readonly allowed: string;
  read(given: unknown): T | Wrong;
}

function read<T>(flag: string, given: string | undefined, reader: Reader<T>, otherwise: T): T {
  if (given === undefined) return otherwise;
  const value = reader.read(given);
  if (!(value instanceof Wrong)) return value;
  throw usage(flag, value.problem, given, value.allowed ?? reader.allowed);
}

function flagName(option: keyof LoadFlags): string {
  return `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** "5000" or "5000/s". */
function readRate(flag: string, given: string | undefined): number | undefined {
  return given === undefined ? undefined : read(flag, given.replace(/\/s$/, ""), RATES, 0);
}

/** 0 is allowed: no warm-up. */
function readWarmup(given: string | undefined): number {
  return given === "0" || given === "0s" || given === "0ms" ? 0 : read("--warmup", given, DURATIONS, 1_000);
}

function readMode(flags: LoadFlags): LoadMode {
  const given = MODES.filter((name) => flags[name] !== undefined);
  const [name, second] = given;
  if (name === undefined) return "closed";
  if (second !== undefined) throw usage(`--${second}`, `contradicts --${name}; use one of them`);
  const mode = MODE_OF[name];
  for (const [foreign, why] of FOREIGN[mode] ?? []) {
    if (flags[foreign] !== undefined) throw usage(flagName(foreign), `contradicts --${name}: ${why}`);
  }
  return mode;
}

/** Only there a connection ends, and leaves its session, before the next one begins. */
function readTls({ tls, tlsResume }: LoadFlags, mode: LoadMode): LoadTls {
  if (tlsResume && mode !== "churn")
    throw usage("--tls-resume", "is for --churn: it takes up sessions of connections that are over");
  return tlsResume ? "resume" : tls ? "full" : "off";
}

function readSize(codec: LoadCodec, given: string | undefined): number {
  // A line of its "\n" alone could not be told from another.
  const least = codec === "line" ? 2 : 1;
  return read("--size", given, numeric(SIZE, least, MOST_BYTES), 64);
}

function readTarget(given: string): { host: string; port: number } {
  const target = parseAddress(given);
  if (typeof target === "string") throw usage("HOST:PORT", target, given);
  if (target.port === 0) throw usage("HOST:PORT", "port 0 cannot be connected to", given, "1 to 65535");
  return target;
}

function readSources(given: string | undefined, host: string): string[] {
  const sources = given === undefined ? [] : given.split(",").map((source) => source.trim());
  const [isSame, family] = isIPv6(host) ? [isIPv6, "IPv6"] : [isIPv4, "IPv4"];
  const wrong = sources.find((source) => !isSame(source));
  if (wrong !== undefined) throw usage("--source", `"${wrong}" is not an ${family} address`, wrong, "addresses, a,b,c");
  return sources;
}

/** Throws `usage`. */
export function readLoad(target: string, flags: LoadFlags): LoadOptions {
  const { host, port } = readTarget(target);
  const mode = readMode(flags);
  const codec = read("--codec", flags.codec, choice(LOAD_CODECS), "line");
  const connections = read("--connections", flags.connections, COUNTS, 1);
  const processes = read("--processes", flags.processes, PROCESSES, 1);
  if (processes > connections) {
    throw usage("--processes", `${processes} processes cannot share ${connections} connections`, String(processes));
  }
  const messagesPerSecond = readRate("--rate", flags.rate);
  const connectsPerSecond = readRate("--connect-rate", flags.connectRate);
  return {
    host,
    port,
    codec,
    sizeBytes: readSize(codec, flags.size),
    mode,
    connections,
    pipeline: read("--pipeline", flags.pipeline, DEPTHS, 1),
    tls: readTls(flags, mode),
    close: read("--close", flags.close, choice(["fin", "reset"]), "fin") === "fin" ? "finish" : "reset",
    warmupMs: readWarmup(flags.warmup),
    durationMs: read("--duration", flags.duration, DURATIONS, 5_000),
    timeoutMs: read("--timeout", flags.timeout, DURATIONS, 10_000),
    sources: readSources(flags.source, host),
    processes,
    ...(messagesPerSecond === undefined ? {} : { messagesPerSecond }),
    ...(connectsPerSecond === undefined ? {} : { connectsPerSecond }),
  };
}
