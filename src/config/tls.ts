/**
 * A listener's `tls` as configured: defaults filled in, paths made absolute, options that need each other checked. The
 * files themselves are read by certificate.ts, when the server is about to use them.
 */
import { DEFAULT_TLS, type TlsDefaults } from "../base/settings.ts";
import type { CertificateFiles, GivenFile, TlsConfig } from "./config.ts";
import type { Finding } from "./finding.ts";
import { absolutePath } from "./path.ts";
import type { CertificateInput, TlsInput } from "./schema.ts";
import type { Path } from "./shown.ts";
import type { Source } from "./source.ts";

/** Those of the version that the list names none of are the default ones. */
function completed(ciphers: readonly string[]): readonly string[] {
  const isNew = (name: string): boolean => name.startsWith("TLS_");
  const [modern, older] = [ciphers.filter(isNew), ciphers.filter((name) => !isNew(name))];
  return [
    ...(modern.length > 0 ? modern : DEFAULT_TLS.ciphers.filter(isNew)),
    ...(older.length > 0 ? older : DEFAULT_TLS.ciphers.filter((name) => !isNew(name))),
  ];
}

/** `path`: where the group stands in `source`. */
export function readTls(input: TlsInput, source: Source, path: Path, findings: Finding[]): TlsConfig {
  const file = (given: string, at: Path): GivenFile => ({
    path: absolutePath(source.folder, given),
    place: source.place(at),
  });
  const pair = ({ certificate, key, names }: CertificateInput, at: Path): CertificateFiles => ({
    certificate: file(certificate, [...at, "certificate"]),
    key: file(key, [...at, "key"]),
    ...(names && names.length > 0 ? { names } : {}),
  });
  const { certificate, key, certificates = [], ca, keyLog, ...given } = input;
  const options: TlsDefaults = { ...DEFAULT_TLS, ...given };
  const { clientCertificate } = options;
  if (clientCertificate !== "none" && ca === undefined) {
    const problem = `"${clientCertificate}" needs \`ca\`: the file that says who signs the certificates of clients`;
    findings.push({ place: source.place([...path, "clientCertificate"]), problem, given: clientCertificate });
  }
  if (clientCertificate === "none" && ca !== undefined) {
    const problem = "nobody is asked for a certificate that it could have signed";
    findings.push({
      place: source.place([...path, "ca"]),
      problem,
      allowed: "with clientCertificate: optional or required",
    });
  }
  return {
    ...options,
    ciphers: completed(options.ciphers),
    certificates: [
      pair({ certificate, key }, path),
      ...certificates.map((each, index) => pair(each, [...path, "certificates", index])),
    ],
    ...(ca === undefined ? {} : { ca: file(ca, [...path, "ca"]) }),
    ...(keyLog === undefined ? {} : { keyLog: absolutePath(source.folder, keyLog) }),
  };
}
