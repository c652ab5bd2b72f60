/** Certificates for tests, made by the openssl that is installed: an authority, and whoever it signs. As files, or as text. */
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Paths. */
export interface Issued {
  readonly certificate: string;
  readonly key: string;
}

/** PEM. */
export interface Identity {
  readonly chain: string;
  readonly key: string;
}

export interface Wanted {
  /** Common name, and DNS name unless `names` says otherwise. */
  readonly name: string;
  /** Alternative names as openssl writes them: "DNS:a.example", "URI:spiffe://x". Empty: there are none. */
  readonly names?: readonly string[];
  /** Days that it is valid; negative: it has expired. */
  readonly days?: number;
  /** Instead of `days`: until then, to the second. */
  readonly end?: Date;
  /** `-newkey` of openssl. Default: P-256. */
  readonly newKey?: readonly string[];
  readonly organization?: string;
  /** "clientAuth", "serverAuth". Default: any. */
  readonly usage?: string;
}

const P256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const AUTHORITY_DAYS = "30";

export function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export class Authority {
  readonly folder: string;
  /** Path. */
  readonly certificate: string;
  readonly #key: string;
  #issued = 0;

  /** Its files are in a folder of its own in `folder`. */
  constructor(folder: string, name = "Test authority") {
    this.folder = join(folder, name.replaceAll(/\W+/g, "-"));
    mkdirSync(this.folder);
    this.certificate = join(this.folder, "authority.pem");
    this.#key = join(this.folder, "authority.key");
    const subject = ["-subj", `/CN=${name}`, "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    const out = ["-keyout", this.#key, "-out", this.certificate];
    openssl("req", "-x509", ...P256, "-nodes", "-days", AUTHORITY_DAYS, ...out, ...subject);
  }

  /** PEM. */
  get text(): string {
    return readFileSync(this.certificate, "latin1");
  }

  /** Signs a new certificate for a new key. */
  issue({ name, names, days = 30, end, newKey = P256, organization, usage }: Wanted): Issued {
    const place = join(this.folder, `${++this.#issued}`);
    const [certificate, key, request] = [`${place}.pem`, `${place}.key`, `${place}.csr`];
    const alternative = names ?? [`DNS:${name}`];
    const extensions = [
      ...(alternative.length > 0 ? ["-addext", `subjectAltName=${alternative.join(",")}`] : []),
      ...(usage === undefined ? [] : ["-addext", `extendedKeyUsage=${usage}`]),
    ];
    const subject = `/CN=${name}${organization === undefined ? "" : `/O=${organization}`}`;
    openssl("req", "-new", ...newKey, "-nodes", "-keyout", key, "-out", request, "-subj", subject, ...extensions);
    if (end) this.#signUntil(end, place);
    else {
      const by = ["-CA", this.certificate, "-CAkey", this.#key, "-CAcreateserial", "-copy_extensions", "copy"];
      openssl("x509", "-req", "-in", request, ...by, "-days", `${days}`, "-out", certificate);
    }
    return { certificate, key };
  }

  /** The same as text. */
  identity(wanted: Wanted): Identity {
    const { certificate, key } = this.issue(wanted);
    return { chain: readFileSync(certificate, "latin1"), key: readFileSync(key, "latin1") };
  }

  /** `openssl x509` knows days only. */
  #signUntil(end: Date, place: string): void {
    const rules = ["[ca]", "default_ca=d", "[d]", `database=${place}.index`, `new_certs_dir=${this.folder}`];
    const more = ["rand_serial=yes", "default_md=sha256", "policy=p", "copy_extensions=copy"];
    writeFileSync(`${place}.cnf`, [...rules, ...more, "[p]", "commonName=supplied", ""].join("\n"));
    writeFileSync(`${place}.index`, "");
    const by = ["-cert", this.certificate, "-keyfile", this.#key, "-notext"];
    const enddate = end.toISOString().replaceAll(/\.\d+|[-:T]/g, "");
    const files = ["-in", `${place}.csr`, "-out", `${place}.pem`];
    openssl("ca", "-batch", "-config", `${place}.cnf`, ...by, "-enddate", enddate, ...files);
  }
}

/** One whose files are gone when the process ends: for whom only the text of certificates matters. */
export function passingAuthority(name?: string): Authority {
  const folder = mkdtempSync(join(tmpdir(), "headrace-ca-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return new Authority(folder, name);
}

/** No two certificates have the same. */
export function serialOf(path: string): string {
  return new X509Certificate(readFileSync(path)).serialNumber;
}
