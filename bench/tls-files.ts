/** What the TLS servers are given: one P-256 certificate, made once by openssl, and headrace's configuration with it. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FOLDER: string = join(import.meta.dirname, "tls");
const DAYS = "30";

/** Certificate and key, PEM. A run must not begin with one that has expired since the last. */
export function identityFiles(): [certificate: string, key: string] {
  const [certificate, key] = [join(FOLDER, "certificate.pem"), join(FOLDER, "key.pem")];
  if (!existsSync(certificate) || !isValid(certificate)) {
    mkdirSync(FOLDER, { recursive: true });
    const request = ["req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", DAYS];
    const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    execFileSync("openssl", [...request, ...names, "-keyout", key, "-out", certificate], { stdio: "ignore" });
  }
  return [certificate, key];
}

function isValid(certificate: string): boolean {
  try {
    execFileSync("openssl", ["x509", "-in", certificate, "-noout", "-checkend", "86400"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

export function writeTlsConfig(): string {
  const [certificate, key] = identityFiles();
  const path = join(FOLDER, "headrace.json");
  const listener = { name: "echo", address: "127.0.0.1:0", service: "echo-line", tls: { certificate, key } };
  writeFileSync(path, JSON.stringify({ listeners: [listener] }));
  return path;
}
