/** Certificates for tests, made by the openssl that is installed: an authority, and whoever it signs. */
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface Issued {
  /** Paths. */
  readonly certificate: string;
  readonly key: string;
}

export interface Wanted {
  /** Common name, and DNS name unless `names` says otherwise. */
  readonly name: string;
  /** Alternative names as openssl writes them: "DNS:a.example", "URI:spiffe://x". Empty: there are none. */
  readonly names?: readonly string[];
  /** Days that it is valid; negative: it has expired. */
  readonly days?: number;
  /** `-newkey` of openssl. Default: P-256. */
  readonly newKey?: readonly string[];
  readonly organization?: string;
}

const P256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

export function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export class Authority {
  readonly folder: string;
  readonly certificate: string;
  readonly #key: string;
  #issued = 0;

  constructor(folder: string, name = "Test authority") {
    this.folder = join(folder, name.replaceAll(/\W+/g, "-"));
    mkdirSync(this.folder);
    this.certificate = join(this.folder, "authority.pem");
    this.#key = join(this.folder, "authority.key");
    const subject = ["-subj", `/CN=${name}`, "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    openssl(
      "req",
      "-x509",
      ...P256,
      "-nodes",
      "-days",
      "30",
      "-keyout",
      this.#key,
      "-out",
      this.certificate,
      ...subject,
    );
  }

  /** PEM. */
  get text(): string {
    return readFileSync(this.certificate, "utf8");
  }

  /** Signs a new certificate for a new key. */
  issue({ name, names, days = 30, newKey = P256, organization }: Wanted): Issued {
    const place = join(this.folder, `${++this.#issued}`);
    const [certificate, key, request] = [`${place}.pem`, `${place}.key`, `${place}.csr`];
    const alternative = names ?? [`DNS:${name}`];
    const extension = alternative.length > 0 ? ["-addext", `subjectAltName=${alternative.join(",")}`] : [];
    const subject = `/CN=${name}${organization === undefined ? "" : `/O=${organization}`}`;
    openssl("req", "-new", ...newKey, "-nodes", "-keyout", key, "-out", request, "-subj", subject, ...extension);
    const by = ["-CA", this.certificate, "-CAkey", this.#key, "-CAcreateserial"];
    openssl("x509", "-req", "-in", request, ...by, "-days", `${days}`, "-copy_extensions", "copy", "-out", certificate);
    return { certificate, key };
  }
}

/** No two certificates have the same. */
export function serialOf(path: string): string {
  return new X509Certificate(readFileSync(path)).serialNumber;
}
