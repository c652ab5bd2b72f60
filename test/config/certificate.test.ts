import assert from "node:assert/strict";
import { appendFileSync, chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { DEFAULT_TLS } from "#src/base/settings.js";
import { type Examined, examine, readTlsFiles } from "#src/config/certificate.js";
import type { GivenFile, TlsConfig } from "#src/config/config.js";
import type { Finding } from "#src/config/finding.js";
import { Authority, type Issued, openssl, type Wanted } from "../support/authority.js";
import { makeFolder } from "./folder.js";

const DAY_MS = 24 * 3_600_000;

const given = (path: string): GivenFile => ({ path, place: { label: `tls: ${path}`, code: "config-invalid" } });

function tlsOf({ certificate, key }: Issued, more: Partial<TlsConfig> = {}): TlsConfig {
  return { ...DEFAULT_TLS, certificates: [{ certificate: given(certificate), key: given(key) }], ...more };
}

function look(tls: TlsConfig, now: number = Date.now()): { examined: Examined | undefined; problems: string[] } {
  const findings: Finding[] = [];
  const files = readTlsFiles(tls, findings);
  const examined = findings.length === 0 ? examine(files, now, findings) : undefined;
  return { examined, problems: findings.map(({ problem }) => problem) };
}

function issue(t: TestContext, wanted: Wanted): { issued: Issued; authority: Authority; folder: string } {
  const folder = makeFolder(t);
  const authority = new Authority(folder);
  return { issued: authority.issue(wanted), authority, folder };
}

function refused(tls: TlsConfig, reason: RegExp, now?: number): void {
  const { examined, problems } = look(tls, now);
  assert.equal(examined, undefined);
  assert.equal(problems.length, 1, problems.join("\n"));
  assert.match(problems[0] ?? "", reason);
  assert.ok((problems[0] ?? "").includes("/"), "the file is named");
}

test("what is right is taken: chain, key, and the names that the certificate is for", (t) => {
  const { issued, authority } = issue(t, {
    name: "a.example",
    names: ["DNS:a.example", "DNS:*.b.example", "IP:10.0.0.1"],
  });
  const authorityText = openssl("x509", "-in", authority.certificate);
  appendFileSync(issued.certificate, authorityText);
  const { examined, problems } = look(tlsOf(issued));
  assert.deepEqual(problems, []);
  const [certificate] = examined?.material.certificates ?? [];
  assert.deepEqual(certificate?.names, ["a.example", "*.b.example"]);
  assert.ok(certificate?.chain.includes(authorityText.trim()), "the whole chain");
  assert.deepEqual(examined?.warnings, []);
  const [facts] = examined?.facts ?? [];
  assert.equal(facts?.file, issued.certificate);
  const days = (Date.parse(facts?.notAfter ?? "") - Date.now()) / DAY_MS;
  assert.ok(days > 29 && days <= 30, `${days} days`);
});

test("without alternative names it is for its common name", (t) => {
  const { issued } = issue(t, { name: "old.example", names: [] });
  assert.deepEqual(look(tlsOf(issued)).examined?.material.certificates[0]?.names, ["old.example"]);
});

test("names that are given go before those in the certificate; one that it is not for is a warning", (t) => {
  const { issued } = issue(t, { name: "a.example", names: ["DNS:*.a.example"] });
  const names = ["x.a.example", "b.example"];
  const [files] = tlsOf(issued).certificates;
  assert.ok(files);
  const { examined } = look(tlsOf(issued, { certificates: [{ ...files, names }] }));
  assert.deepEqual(examined?.material.certificates[0]?.names, names);
  const told = examined?.warnings.map(({ message }) => message) ?? [];
  assert.equal(told.length, 1);
  assert.match(told[0] ?? "", /is not for b\.example/);
});

test("expired, and not yet valid", (t) => {
  const { issued, authority } = issue(t, { name: "a.example" });
  refused(tlsOf(authority.issue({ name: "a.example", days: -1 })), /the certificate in .* has expired on \d{4}-/);
  refused(tlsOf(issued), /has expired on/, Date.now() + 31 * DAY_MS);
  refused(tlsOf(issued), /is not valid before \d{4}-/, Date.now() - DAY_MS);
});

test("one that expires within a week is a warning, with the day", (t) => {
  const { issued } = issue(t, { name: "a.example", days: 3 });
  const { examined } = look(tlsOf(issued));
  assert.match(examined?.warnings[0]?.message ?? "", /expires on \d{4}-\d\d-\d\dT/);
});

test("a key that is not the certificate's, encrypted, or none", (t) => {
  const { issued, authority, folder } = issue(t, { name: "a.example" });
  const other = authority.issue({ name: "a.example" });
  refused(tlsOf({ ...issued, key: other.key }), /is not the key of the certificate in/);
  const encrypted = join(folder, "encrypted.key");
  openssl("pkey", "-in", issued.key, "-aes256", "-passout", "pass:secret", "-out", encrypted);
  refused(tlsOf({ ...issued, key: encrypted }), /is encrypted/);
  refused(tlsOf({ ...issued, key: issued.certificate }), /holds no private key in PEM form/);
  refused(tlsOf({ ...issued, certificate: issued.key }), /holds no certificate in PEM form/);
});

test("what OpenSSL itself would refuse is told before a client finds out", (t) => {
  const { authority } = issue(t, { name: "a.example" });
  const weak = authority.issue({ name: "weak.example", newKey: ["-newkey", "rsa:512"] });
  refused(tlsOf(weak), /is refused: .*key too small/);
});

test("files that are not there, not files, damaged, or endless", (t) => {
  const { issued, folder } = issue(t, { name: "a.example" });
  refused(tlsOf({ ...issued, certificate: join(folder, "none.pem") }), /none\.pem does not exist/);
  const place = join(folder, "place");
  mkdirSync(place);
  refused(tlsOf({ ...issued, key: place }), /is not a file/);
  const circle = join(folder, "circle");
  symlinkSync(circle, circle);
  refused(tlsOf({ ...issued, key: circle }), /links lead in a circle/);
  refused(tlsOf({ ...issued, key: "/dev/zero" }), /is not a file/);
  const damaged = join(folder, "damaged.pem");
  writeFileSync(damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  refused(tlsOf({ ...issued, certificate: damaged }), /holds a certificate that cannot be read/);
  const huge = join(folder, "huge.pem");
  writeFileSync(huge, Buffer.alloc(5 * 1024 ** 2, "x"));
  refused(tlsOf({ ...issued, certificate: huge }), /which is too much/);
});

test("a file that is cut off, as one is that is being copied", (t) => {
  const { issued, authority, folder } = issue(t, { name: "a.example" });
  const [whole, second] = [readFileSync(issued.certificate, "latin1"), authority.text];
  const short = join(folder, "short.pem");
  const asking = (path: string): TlsConfig => tlsOf(issued, { clientCertificate: "required", ca: given(path) });
  for (const text of [second.slice(0, -8), second.slice(0, 300), second.slice(0, 30)]) {
    for (const cut of [text, `${whole}${text}`, `${text}\n${whole}`]) {
      writeFileSync(short, cut);
      refused(asking(short), /holds a certificate that is cut off/);
      refused(tlsOf({ ...issued, certificate: short }), /holds a certificate that is cut off/);
    }
  }
});

test("a key that others can read is a warning, with what repairs it", (t) => {
  const { issued } = issue(t, { name: "a.example" });
  chmodSync(issued.key, 0o600);
  assert.deepEqual(look(tlsOf(issued)).examined?.warnings, []);
  chmodSync(issued.key, 0o644);
  const [warning] = look(tlsOf(issued)).examined?.warnings ?? [];
  assert.match(warning?.message ?? "", /can be read by every user/);
  assert.equal(warning?.repair, `chmod o-rwx ${issued.key}`);
});

test("a chain in the wrong order is a warning", (t) => {
  const { issued, authority } = issue(t, { name: "a.example" });
  appendFileSync(issued.certificate, openssl("x509", "-in", authority.issue({ name: "other" }).certificate));
  assert.match(look(tlsOf(issued)).examined?.warnings[0]?.message ?? "", /is not the issuer of the first/);
});

test("the authorities of clients: none, and expired", (t) => {
  const { issued, authority } = issue(t, { name: "a.example" });
  const asking = (path: string): TlsConfig => tlsOf(issued, { clientCertificate: "required", ca: given(path) });
  assert.ok(look(asking(authority.certificate)).examined?.material.ca?.includes("BEGIN CERTIFICATE"));
  refused(asking(issued.key), /holds no certificate in PEM form/);
  refused(asking(authority.issue({ name: "late", days: -1 }).certificate), /has expired/);
});

test("everything that is wrong is told at once, each at its place, and nothing of a file's contents", (t) => {
  const { issued, folder } = issue(t, { name: "a.example" });
  const secret = join(folder, "secret.key");
  writeFileSync(secret, "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n-----END PRIVATE KEY-----\n");
  const expired = new Authority(folder, "Second").issue({ name: "b.example", days: -1 });
  const [right] = tlsOf(issued).certificates;
  assert.ok(right);
  const tls = tlsOf(issued, {
    certificates: [
      { ...right, key: given(secret) },
      { certificate: given(expired.certificate), key: given(expired.key) },
    ],
  });
  const findings: Finding[] = [];
  examine(readTlsFiles(tls, findings), Date.now(), findings);
  assert.deepEqual(
    findings.map(({ place }) => place.label),
    [`tls: ${secret}`, `tls: ${expired.certificate}`],
  );
  assert.ok(!JSON.stringify(findings).includes("TOPSECRET"));
});

test("the digest is that of the contents", (t) => {
  const { issued, folder } = issue(t, { name: "a.example" });
  const copy = { certificate: join(folder, "copy.pem"), key: join(folder, "copy.key") };
  copyFileSync(issued.certificate, copy.certificate);
  copyFileSync(issued.key, copy.key);
  const digest = readTlsFiles(tlsOf(issued), []).digest;
  assert.equal(readTlsFiles(tlsOf(copy), []).digest, digest);
  appendFileSync(copy.key, "\n");
  assert.notEqual(readTlsFiles(tlsOf(copy), []).digest, digest);
});
