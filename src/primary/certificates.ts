/**
 * The certificates that the server has, by the files they came from. New contents of the files replace old ones only
 * when nothing is wrong with them; otherwise the old ones stay in use, the log says why, and `status` too, until the
 * files are right. Which certificate a worker uses is decided here alone: workers read none.
 */
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import { type Examined, examine, filesOf, readTlsFiles, SOON_MS, type TlsFiles } from "../config/certificate.ts";
import type { Config, ListenerConfig, TlsConfig } from "../config/config.ts";
import { type Finding, refuse } from "../config/finding.ts";
import { listenerKey } from "../config/listener-key.ts";
import type { TlsStatus } from "../control/status.ts";

/** The files of one listener, or of several that name the same ones. */
interface Held {
  tls: TlsConfig;
  digest: string;
  examined: Examined;
  /** ISO 8601. */
  loadedAt: string;
  /** Why newer contents are not used. */
  problem?: { readonly message: string; readonly at: string };
}

/** What reading the files again has come to. */
export interface Renewal {
  /** Listeners that have other certificates now. */
  readonly renewed: readonly string[];
  /** Sentences: why others keep theirs. */
  readonly kept: readonly string[];
}

const now = (): string => new Date().toISOString();

/** What is the same where the same files are used in the same way. */
function placeOf({ certificates, ca, minVersion }: TlsConfig): string {
  const pairs = certificates.map(({ certificate, key, names }) => [certificate.path, key.path, names ?? []]);
  return JSON.stringify([pairs, ca?.path, minVersion]);
}

const secured = ({ listeners }: Pick<Config, "listeners">): (ListenerConfig & { readonly tls: TlsConfig })[] =>
  listeners.flatMap((listener) => (listener.tls ? [{ ...listener, tls: listener.tls }] : []));

/** Throws `config-invalid`: one line for each file that cannot be used. Returns the warnings. */
export function checkCertificates(config: Pick<Config, "listeners">): Examined["warnings"] {
  const findings: Finding[] = [];
  const warnings = secured(config).flatMap(({ tls }) => load(tls, findings)?.examined.warnings ?? []);
  refuse(findings);
  return warnings.filter(({ message }, index) => warnings.findIndex((each) => each.message === message) === index);
}

function load(tls: TlsConfig, findings: Finding[]): Held | undefined {
  const before = findings.length;
  const files = readTlsFiles(tls, findings);
  const examined = findings.length === before ? examine(files, Date.now(), findings) : undefined;
  return examined && { tls, digest: files.digest, examined, loadedAt: now() };
}

export class Certificates {
  /** Hears that there are other files than before. */
  onOthers: () => void = () => {};
  readonly #log: Logger;
  readonly #held = new Map<string, Held>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Makes sure that there is a certificate for every listener of `config` that has TLS. Throws `config-invalid`, and
   * has changed nothing then.
   */
  require(config: Pick<Config, "listeners">): void {
    const findings: Finding[] = [];
    const fresh = new Map<string, Held>();
    for (const { tls } of secured(config)) {
      const place = placeOf(tls);
      if (this.#held.has(place) || fresh.has(place)) continue;
      const held = load(tls, findings);
      if (held) fresh.set(place, held);
    }
    refuse(findings);
    for (const [place, held] of fresh) {
      this.#held.set(place, held);
      this.#warn(held.examined);
    }
    if (fresh.size > 0) this.onOthers();
  }

  /** Forgets what only other configurations need. */
  keepOnly(config: Pick<Config, "listeners">): void {
    const places = new Set(secured(config).map(({ tls }) => placeOf(tls)));
    for (const place of this.#held.keys()) if (!places.has(place)) this.#held.delete(place);
  }

  /** What a worker that runs by `config` needs. */
  secretsOf(config: Pick<Config, "listeners">): TlsSecrets {
    const entries = secured(config).flatMap((listener) => {
      const held = this.#held.get(placeOf(listener.tls));
      return held ? [[listenerKey(listener), held.examined.material] as const] : [];
    });
    return Object.fromEntries(entries);
  }

  /** Every file that is in use. */
  get files(): string[] {
    return [...new Set([...this.#held.values()].flatMap(({ tls }) => filesOf(tls).map(({ path }) => path)))];
  }

  /**
   * Reads the files again. `tell`: what is wrong with them is logged, once, and shown in the status; without it
   * somebody may be in the midst of writing them, and it is only returned.
   */
  renew(config: Pick<Config, "listeners">, { tell }: { readonly tell: boolean }): Renewal {
    const renewed: string[] = [];
    const kept: string[] = [];
    for (const [place, held] of this.#held) {
      const names = secured(config)
        .filter(({ tls }) => placeOf(tls) === place)
        .map(({ name }) => name);
      const who = `listener ${names.join(", ")}`;
      const outcome = this.#renewOne(held);
      if (outcome === "same") continue;
      if (outcome === "new") {
        renewed.push(...names);
        this.#log.info({ listeners: names, certificates: held.examined.facts }, `${who}: certificate reloaded`);
        this.#warn(held.examined);
        continue;
      }
      kept.push(`${who} keeps its certificate: ${outcome}`);
      if (tell && held.problem?.message !== outcome) {
        held.problem = { message: outcome, at: now() };
        this.#log.error({ listeners: names, reason: outcome }, `${who} keeps its certificate: ${outcome}`);
      }
    }
    return { renewed, kept };
  }

  /** Why the files are not used, "same" when they hold what is in use already, or "new". */
  #renewOne(held: Held): string {
    const findings: Finding[] = [];
    let files: TlsFiles | undefined;
    let examined: Examined | undefined;
    try {
      files = readTlsFiles(held.tls, findings);
      if (findings.length === 0 && files.digest === held.digest) {
        delete held.problem;
        return "same";
      }
      if (findings.length === 0) examined = examine(files, Date.now(), findings);
    } catch (error) {
      return messageOf(error);
    }
    if (!examined) return findings.map(({ problem }) => problem).join("; ");
    held.digest = files.digest;
    held.examined = examined;
    held.loadedAt = now();
    delete held.problem;
    return "new";
  }

  /** Says again which of them end soon, or have ended: whoever was to renew them may have forgotten it. */
  remind(at: number): void {
    for (const { examined } of this.#held.values()) {
      for (const { file, notAfter } of examined.facts) {
        const left = Date.parse(notAfter) - at;
        if (left < 0) this.#log.error({ file, notAfter }, `the certificate in ${file} has expired on ${notAfter}`);
        else if (left < SOON_MS)
          this.#log.warn({ file, notAfter }, `the certificate in ${file} expires on ${notAfter}`);
      }
    }
  }

  #warn({ warnings }: Examined): void {
    for (const { message, repair } of warnings) this.#log.warn({ repair }, message);
  }

  /** For `status`. */
  status(config: Pick<Config, "listeners">): TlsStatus[] {
    return secured(config).flatMap(({ name, tls }) => {
      const held = this.#held.get(placeOf(tls));
      if (!held) return [];
      const { examined, loadedAt, problem } = held;
      return [{ listener: name, certificates: examined.facts, loadedAt, ...(problem ? { problem } : {}) }];
    });
  }
}
