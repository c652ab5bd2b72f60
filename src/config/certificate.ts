/**
 * Certificates and keys, from the files that a listener's `tls` names to what a TLS context is made of. Nothing that a
 * client would have to find out is accepted: whatever is wrong with a file is said here, in one sentence each, by
 * `headrace check`, at a start and whenever the files change. What the files hold gets into no message.
 */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { alternativeNames } from "../base/alternative-names.ts";
import { messageOf } from "../base/errors.ts";
import type { CertificateMaterial, TlsMaterial } from "../base/tls-material.ts";
import { type GivenBytes, readGiven } from "./certificate-file.ts";
import type { CertificateFiles, GivenFile, TlsConfig } from "./config.ts";
import type { Finding } from "./finding.ts";

/** What may be shown of a certificate. */
interface CertificateFacts {
  readonly file: string;
  readonly names: readonly string[];
  /** ISO 8601. */
  readonly notAfter: string;
}

export interface Examined {
  readonly material: TlsMaterial;
  readonly facts: readonly CertificateFacts[];
  /** What does not keep the server from using them. */
  readonly warnings: readonly Warning[];
}

interface Warning {
  readonly message: string;
  /** A command, or what to do. */
  readonly repair: string;
}

/** The files of one listener, read at one moment. */
export interface TlsFiles {
  readonly tls: TlsConfig;
  /** By path. */
  readonly contents: ReadonlyMap<string, GivenBytes>;
  /** The same for the same contents. */
  readonly digest: string;
}

/** One that ends sooner should have been replaced by now, ms. */
export const SOON_MS: number = 7 * 24 * 3_600_000;
const OTHERS_READ = 0o004;
const CERTIFICATE_BLOCK =
  /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^-]+-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;
const CERTIFICATE_BEGIN = /^-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/gm;

/** Every file that `tls` names. */
export function filesOf({ certificates, ca }: TlsConfig): GivenFile[] {
  return [...certificates.flatMap(({ certificate, key }) => [certificate, key]), ...(ca ? [ca] : [])];
}

/** Reads all files of a listener. What cannot be read goes to `findings`. */
export function readTlsFiles(tls: TlsConfig, findings: Finding[]): TlsFiles {
  const contents = new Map<string, GivenBytes>();
  const hash = createHash("sha256");
  for (const { path, place } of filesOf(tls)) {
    const read = contents.get(path) ?? readGiven(path);
    if (typeof read === "string") findings.push({ place, problem: `${path} ${read}` });
    else contents.set(path, read);
    hash.update(typeof read === "string" ? "" : read.text).update("\0");
  }
  return { tls, contents, digest: hash.digest("base64") };
}

/** What was read, examined; what is wrong with it goes to `findings`, and then nothing of it may be used. */
export function examine({ tls, contents }: TlsFiles, now: number, findings: Finding[]): Examined | undefined {
  const before = findings.length;
  const warnings: Warning[] = [];
  const pairs = tls.certificates.map((files) => new Pair(files, contents, now, warnings));
  for (const pair of pairs) findings.push(...pair.findings);
  const ca = tls.ca && contents.get(tls.ca.path)?.text;
  if (tls.ca && ca !== undefined) checkAuthorities(tls.ca, ca, now, findings, warnings);
  if (findings.length === before) {
    for (const pair of pairs) pair.try(tls, findings);
  }
  if (findings.length > before) return undefined;
  return {
    material: { certificates: pairs.map((pair) => pair.material), ...(ca === undefined ? {} : { ca }) },
    facts: pairs.map((pair) => pair.facts),
    warnings,
  };
}

class Pair {
  readonly findings: Finding[] = [];
  readonly #files: CertificateFiles;
  readonly #chain: string;
  readonly #key: string;
  #leaf: X509Certificate | undefined;

  constructor(files: CertificateFiles, contents: ReadonlyMap<string, GivenBytes>, now: number, warnings: Warning[]) {
    this.#files = files;
    const { certificate, key } = files;
    const [chain, secret] = [contents.get(certificate.path), contents.get(key.path)];
    this.#chain = chain?.text ?? "";
    this.#key = secret?.text ?? "";
    if (chain) this.#readChain(certificate, now, warnings);
    const privateKey = secret && this.#readKey(key);
    if (secret && (secret.mode & OTHERS_READ) !== 0) {
      const message = `the private key ${key.path} can be read by every user of this machine`;
      warnings.push({ message, repair: `chmod o-rwx ${key.path}` });
    }
    if (privateKey && this.#leaf && !this.#leaf.checkPrivateKey(privateKey)) {
      this.#blame(key, `${key.path} is not the key of the certificate in ${certificate.path}`);
    }
  }

  get names(): readonly string[] {
    return this.#files.names ?? (this.#leaf ? namesIn(this.#leaf) : []);
  }

  get material(): CertificateMaterial {
    return { chain: this.#chain, key: this.#key, names: this.names };
  }

  get facts(): CertificateFacts {
    return { file: this.#files.certificate.path, names: this.names, notAfter: dateOf(this.#leaf?.validTo) };
  }

  /** Last, because what OpenSSL says of it (a key too short) is the least that can be understood. */
  try({ minVersion }: TlsConfig, findings: Finding[]): void {
    try {
      // Not imported: most servers have no TLS, and it takes a while to load.
      process.getBuiltinModule("node:tls").createSecureContext({ cert: this.#chain, key: this.#key, minVersion });
    } catch (error) {
      const { certificate } = this.#files;
      findings.push({ place: certificate.place, problem: `${certificate.path} is refused: ${reasonOf(error)}` });
    }
  }

  #blame({ place }: GivenFile, problem: string): void {
    this.findings.push({ place, problem });
  }

  #readChain(file: GivenFile, now: number, warnings: Warning[]): void {
    const chain = certificatesIn(this.#chain);
    if (typeof chain === "string") {
      this.#blame(file, `${file.path} ${chain}`);
      return;
    }
    const [leaf, issuer] = chain as [X509Certificate, X509Certificate?];
    this.#leaf = leaf;
    const problem = validityProblem(leaf, now);
    if (problem) this.#blame(file, `the certificate in ${file.path} ${problem}`);
    const renew = "renew it; a reload is not needed, the file is watched";
    if (!problem && Date.parse(leaf.validTo) - now < SOON_MS) {
      warnings.push({ message: `the certificate in ${file.path} expires on ${dateOf(leaf.validTo)}`, repair: renew });
    }
    const late = chain.slice(1).find((each) => Date.parse(each.validTo) < now);
    if (late) {
      const message = `an intermediate certificate in ${file.path} has expired (${lineOf(late.subject)})`;
      warnings.push({ message, repair: "renew the chain" });
    }
    if (issuer && !leaf.checkIssued(issuer)) {
      const message = `the second certificate in ${file.path} is not the issuer of the first: many clients will refuse it`;
      warnings.push({ message, repair: "put the certificate first, then its issuer, then the issuer of that" });
    }
    for (const name of this.#files.names ?? []) {
      if (coversName(leaf, name)) continue;
      const message = `the certificate in ${file.path} is not for ${name}: clients will refuse it`;
      warnings.push({ message, repair: `take ${name} out of \`names\`, or use another certificate` });
    }
  }

  #readKey(file: GivenFile): KeyObject | undefined {
    if (/-----BEGIN ENCRYPTED|^Proc-Type:.*ENCRYPTED/m.test(this.#key)) {
      this.#blame(file, `${file.path} is encrypted, and there is nobody to ask for the passphrase`);
      return undefined;
    }
    try {
      return createPrivateKey(this.#key);
    } catch {
      // What the parser says is about its own states, and the file is a secret.
      this.#blame(file, `${file.path} holds no private key in PEM form`);
      return undefined;
    }
  }
}

function checkAuthorities(file: GivenFile, text: string, now: number, findings: Finding[], warnings: Warning[]): void {
  const authorities = certificatesIn(text);
  if (typeof authorities === "string") {
    findings.push({ place: file.place, problem: `${file.path} ${authorities}` });
    return;
  }
  const valid = authorities.filter((each) => validityProblem(each, now) === undefined);
  const [odd] = authorities.filter((each) => !valid.includes(each));
  if (valid.length === 0 && odd) {
    findings.push({ place: file.place, problem: `the certificate in ${file.path} ${validityProblem(odd, now)}` });
  } else if (odd) {
    const message = `a certificate in ${file.path} ${validityProblem(odd, now)} (${lineOf(odd.subject)})`;
    warnings.push({ message, repair: "take it out, or renew it" });
  }
}

/** All that a PEM file holds, or what is wrong with it. */
function certificatesIn(text: string): X509Certificate[] | string {
  const blocks = text.match(CERTIFICATE_BLOCK) ?? [];
  // The parser of a worker reads to the end, and refuses all for the part.
  if ((text.match(CERTIFICATE_BEGIN)?.length ?? 0) > blocks.length) return "holds a certificate that is cut off";
  if (blocks.length === 0) return "holds no certificate in PEM form";
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch {
    return "holds a certificate that cannot be read";
  }
}

function validityProblem({ validFrom, validTo }: X509Certificate, now: number): string | undefined {
  if (Date.parse(validTo) < now) return `has expired on ${dateOf(validTo)}`;
  return Date.parse(validFrom) > now ? `is not valid before ${dateOf(validFrom)}` : undefined;
}

/** Host names of the certificate; the common name where there are none. */
function namesIn({ subjectAltName, subject }: X509Certificate): string[] {
  const alternative = alternativeNames(subjectAltName).flatMap(({ type, value }) => (type === "DNS" ? value : []));
  if (alternative.length > 0) return [...new Set(alternative)];
  const common = /^CN=(\S+)$/m.exec(subject)?.[1];
  return common === undefined ? [] : [common];
}

function coversName(leaf: X509Certificate, name: string): boolean {
  const wanted = name.toLowerCase();
  return namesIn(leaf).some((each) => each.toLowerCase() === wanted) || leaf.checkHost(name) !== undefined;
}

const dateOf = (time: string | undefined): string => new Date(time ?? 0).toISOString().replace(".000Z", "Z");

const lineOf = (subject: string): string => subject.replaceAll("\n", ", ");

/** "ee key too small" out of "error:0A00018F:SSL routines::ee key too small". */
function reasonOf(error: unknown): string {
  return messageOf(error).split(":").at(-1)?.trim() || "OpenSSL does not say why";
}
