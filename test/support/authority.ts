/** A certificate authority of a test's own, by the openssl command: P-256 keys, PEM. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Identity {
  /** PEM. */
  readonly chain: string;
  readonly key: string;
}

interface IssueOptions {
  /** Subject alternative names as openssl writes them: "DNS:example.org", "IP:127.0.0.1". */
  readonly names?: readonly string[];
  /** Default: P-256. */
  readonly rsaBits?: number;
  /** "clientAuth", "serverAuth". Default: any. */
  readonly usage?: string;
}

export class Authority {
  /** Its own certificate, PEM. */
  readonly certificate: string;
  readonly #folder: string;
  #issued = 0;

  constructor(name = "headrace test authority") {
    this.#folder = mkdtempSync(join(tmpdir(), "headrace-ca-"));
    process.on("exit", () => rmSync(this.#folder, { recursive: true, force: true }));
    const usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    this.#request("ca", name, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", ...usage]);
    this.certificate = this.#read("ca.pem");
  }

  issue(name: string, { names = [`DNS:${name}`], rsaBits, usage }: IssueOptions = {}): Identity {
    const file = `issued-${this.#issued++}`;
    this.#request(file, name, [
      ...(rsaBits ? ["-newkey", `rsa:${rsaBits}`] : ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
      ...["-CA", join(this.#folder, "ca.pem"), "-CAkey", join(this.#folder, "ca.key")],
      ...["-addext", "basicConstraints=critical,CA:FALSE"],
      ...(names.length > 0 ? ["-addext", `subjectAltName=${names.join(",")}`] : []),
      ...(usage ? ["-addext", `extendedKeyUsage=${usage}`] : []),
    ]);
    return { chain: this.#read(`${file}.pem`), key: this.#read(`${file}.key`) };
  }

  /** For a client, until then: to the second. */
  issueUntil(name: string, end: Date): Identity {
    const file = `issued-${this.#issued++}`;
    const at = (suffix: string): string => join(this.#folder, `${file}.${suffix}`);
    // `openssl x509` knows days only.
    const rules = ["[ca]", "default_ca=d", "[d]", `database=${at("index")}`, `new_certs_dir=${this.#folder}`];
    const more = ["rand_serial=yes", "default_md=sha256", "policy=p", "[p]", "commonName=supplied", ""];
    writeFileSync(at("cnf"), [...rules, ...more].join("\n"));
    writeFileSync(at("index"), "");
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", at("key")];
    openssl("req", "-new", "-subj", `/CN=${name}`, ...key, "-out", at("csr"));
    const by = ["-cert", join(this.#folder, "ca.pem"), "-keyfile", join(this.#folder, "ca.key"), "-notext"];
    const enddate = end.toISOString().replaceAll(/\.\d+|[-:T]/g, "");
    openssl(
      ...["ca", "-batch", "-config", at("cnf"), ...by],
      ...["-enddate", enddate, "-in", at("csr"), "-out", at("pem")],
    );
    return { chain: this.#read(`${file}.pem`), key: this.#read(`${file}.key`) };
  }

  #request(file: string, name: string, args: readonly string[]): void {
    const out = ["-keyout", join(this.#folder, `${file}.key`), "-out", join(this.#folder, `${file}.pem`)];
    openssl("req", "-x509", "-noenc", "-subj", `/CN=${name}`, "-days", "2", ...out, ...args);
  }

  #read(file: string): string {
    return readFileSync(join(this.#folder, file), "latin1");
  }
}

function openssl(...args: readonly string[]): void {
  execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
}
