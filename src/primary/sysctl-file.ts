/**
 * sysctl/90-headrace.conf: which kernel settings are wanted, and how each is meant. `sysctl/tune.sh` applies the same
 * file by the same rules (explained at its top), so that what `headrace doctor` wants is what tune.sh sets. Pure but for
 * `packagedSettings`.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../os/addon.ts";

export type SysctlRule = "exact" | "at-least" | "at-most" | "range" | "ports";

export interface SysctlSetting {
  readonly key: string;
  readonly rule: SysctlRule;
  /** It belongs to the machine: no container can set it. */
  readonly host: boolean;
  /** As in /proc/sys, but with one blank between numbers. */
  readonly wanted: string;
}

const RULES: ReadonlySet<string> = new Set<SysctlRule>(["exact", "at-least", "at-most", "range", "ports"]);

interface Meaning {
  readonly rule: SysctlRule;
  readonly host: boolean;
  /** Of what percentages of memory are told in; absent: the value is plain. */
  readonly unitBytes?: number;
}

function meaningOf(words: readonly string[], pageBytes: number): Meaning {
  const unit = words.find((word) => word.startsWith("memory/"))?.slice("memory/".length);
  return {
    rule: (words.find((word) => RULES.has(word)) as SysctlRule | undefined) ?? "exact",
    host: words.includes("host"),
    ...(unit === undefined ? {} : { unitBytes: unit === "pages" ? pageBytes : Number(unit) }),
  };
}

/** "9% 12%" of so many bytes, in units. */
function shares(text: string, memoryBytes: number, unitBytes: number): string {
  return text.replaceAll(/(\d+)%/g, (_, percent) =>
    String(Math.floor(Math.floor((memoryBytes * Number(percent)) / 100) / unitBytes)),
  );
}

/** The settings of a file for a machine with so much memory. Lines that are none are passed over. */
export function parseSettings(text: string, memoryBytes: number, pageBytes: number): SysctlSetting[] {
  const settings: SysctlSetting[] = [];
  let meaning = meaningOf([], pageBytes);
  for (const line of text.split("\n")) {
    const words = /^#: *(.*)$/.exec(line)?.[1];
    if (words !== undefined) {
      meaning = meaningOf(words.split(/\s+/), pageBytes);
      continue;
    }
    const [, key, value] = /^(?:#=|-)? *([a-z][\w.-]+) *= *(.*?) *$/.exec(line) ?? [];
    if (key === undefined || value === undefined) continue;
    const { rule, host, unitBytes } = meaning;
    settings.push({ key, rule, host, wanted: unitBytes ? shares(value, memoryBytes, unitBytes) : plain(value) });
    meaning = meaningOf([], pageBytes);
  }
  return settings;
}

/** What comes with this package; nothing where that part of it is missing, which `headrace doctor` says. */
export function packagedSettings(memoryBytes: number, pageBytes: number): SysctlSetting[] {
  try {
    const text = readFileSync(join(packageRoot(), "sysctl", "90-headrace.conf"), "utf8");
    return parseSettings(text, memoryBytes, pageBytes);
  } catch {
    return [];
  }
}

/** The command that sets them. */
export function tuneCommand(...more: readonly string[]): string {
  return ["sudo", join(packageRoot(), "sysctl", "tune.sh"), "apply", ...more].join(" ");
}

const plain = (value: string): string => value.trim().split(/\s+/).join(" ");

/** Whether a list like "8080,9000-9010" has all ports from `first` to `last`. */
export function portsHave(list: string, first: number, last: number): boolean {
  const ranges = list.split(",").flatMap((part) => {
    const [from = "", to = from] = part.split("-");
    return /^\d+$/.test(from) ? [[Number(from), Number(to)] as const] : [];
  });
  for (let port = first; port <= last; ) {
    const range = ranges.find(([from, to]) => from <= port && port <= to);
    if (!range) return false;
    port = range[1] + 1;
  }
  return true;
}

function withPorts(list: string, wanted: string): string {
  return wanted.split(",").reduce((all, part) => {
    const [from = "", to = from] = part.split("-");
    if (portsHave(all, Number(from), Number(to))) return all;
    return all === "" ? part : `${all},${part}`;
  }, list);
}

/** What a setting is to be where it is `found`: as wanted, or as found as far as that is better. */
export function betterOf(rule: SysctlRule, found: string, wanted: string): string {
  if (rule === "exact") return wanted;
  if (rule === "ports") return withPorts(found, wanted);
  const [have, want] = [found, wanted].map((value) => value.split(" ")) as [string[], string[]];
  if (have.length !== want.length || !have.every((word) => /^\d+$/.test(word))) return wanted;
  return want
    .map((word, at) => {
      const more = rule === "at-least" || (rule === "range" && at > 0);
      const [given, asked] = [BigInt(have[at] ?? "0"), BigInt(word)];
      return String(more === given > asked ? given : asked);
    })
    .join(" ");
}
