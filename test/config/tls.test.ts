import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { DEFAULT_TLS } from "#src/base/settings.js";
import { planChange } from "#src/config/change.js";
import type { Config, TlsConfig } from "#src/config/config.js";
import { load, makeFolder, refusal } from "./folder.js";

const yaml = (tls: string): string =>
  `listeners:\n  - { name: secure, address: "127.0.0.1:9443", service: echo-line, tls: { ${tls} } }\n`;

const FILES = "certificate: c.pem, key: /etc/k.pem";

function tlsIn(t: TestContext, tls: string, folder = makeFolder(t)): TlsConfig {
  return load(t, { yaml: yaml(tls) }, folder).listeners[0]?.tls ?? assert.fail("no tls");
}

test("paths start at the file's folder; everything else has a default", (t) => {
  const folder = makeFolder(t);
  const { certificates, ...options } = tlsIn(t, FILES, folder);
  assert.deepEqual(options, DEFAULT_TLS);
  assert.deepEqual(
    certificates.map(({ certificate, key }) => [certificate.path, key.path]),
    [[join(folder, "c.pem"), "/etc/k.pem"]],
  );
  assert.equal(certificates[0]?.key.place.label, "headrace.yaml:2: listeners[0].tls.key");
});

test("a listener without it is plaintext", (t) => {
  assert.equal(load(t, {}).listeners[0]?.tls, undefined);
});

test("several certificates, client certificates, protocols and a key log", (t) => {
  const folder = makeFolder(t);
  const more = 'certificates: [{ certificate: d.pem, key: d.key, names: [d.example, "*.d.example"] }], ca: ca.pem';
  const tls = tlsIn(
    t,
    `${FILES}, ${more}, clientCertificate: required, alpn: [b/2, b/1], minVersion: TLSv1.3, keyLog: keys.log`,
    folder,
  );
  assert.deepEqual(tls.certificates[1]?.names, ["d.example", "*.d.example"]);
  assert.equal(
    tls.certificates[1]?.certificate.place.label,
    "headrace.yaml:2: listeners[0].tls.certificates[0].certificate",
  );
  assert.deepEqual(
    [tls.ca?.path, tls.clientCertificate, tls.alpn, tls.minVersion, tls.keyLog],
    [join(folder, "ca.pem"), "required", ["b/2", "b/1"], "TLSv1.3", join(folder, "keys.log")],
  );
});

test("ciphers of a version that is not named stay the default ones", (t) => {
  const older = tlsIn(t, `${FILES}, ciphers: [ECDHE-RSA-AES256-GCM-SHA384]`).ciphers;
  assert.deepEqual(
    older.filter((name) => !name.startsWith("TLS_")),
    ["ECDHE-RSA-AES256-GCM-SHA384"],
  );
  assert.deepEqual(
    older.filter((name) => name.startsWith("TLS_")),
    DEFAULT_TLS.ciphers.filter((name) => name.startsWith("TLS_")),
  );
});

for (const [tls, message] of [
  ["certificate: c.pem", /listeners\[0\]\.tls\.key: is missing/],
  [`${FILES}, certificat: d`, /tls\.certificat: unknown option; did you mean certificate/],
  [`${FILES}, clientCertificate: required`, /tls\.clientCertificate: "required" needs `ca`/],
  [`${FILES}, ca: ca.pem`, /tls\.ca: nobody is asked for a certificate/],
  [
    `${FILES}, clientCertificate: maybe`,
    /tls\.clientCertificate: "maybe" is not known; allowed: none, optional, required/,
  ],
  [`${FILES}, minVersion: TLSv1.1`, /tls\.minVersion: "TLSv1.1" is not known; allowed: TLSv1.2, TLSv1.3/],
  [`${FILES}, alpn: [""]`, /tls\.alpn: "" has 0 bytes/],
  [`${FILES}, alpn: [a, a]`, /tls\.alpn: "a" is given twice/],
  [`${FILES}, ciphers: [ECDHE-RSA-AES128-GCM-SHA265]`, /is not a cipher; did you mean ECDHE-RSA-AES128-GCM-SHA256/],
  [`${FILES}, ciphers: [HIGH]`, /tls\.ciphers: "HIGH" is not a cipher/],
  [`${FILES}, certificates: [{ certificate: d }]`, /tls\.certificates\[0\]\.key: is missing/],
  [`${FILES}, certificates: [{ certificate: d, key: k, names: ["a b"] }]`, /names: "a b" is not a host name/],
] as const) {
  test(`refused, with line and option: ${tls}`, (t) => {
    const { message: said } = refusal(t, { yaml: yaml(tls) });
    assert.match(said, /^headrace\.yaml:2: /);
    assert.match(said, message);
  });
}

for (const name of ["ECDHE-RSA-NULL-SHA", "AECDH-AES128-SHA", "PSK-AES128-GCM-SHA256", "ADH-AES128-GCM-SHA256"]) {
  test(`a cipher without secrecy or authentication is refused: ${name}`, (t) => {
    assert.match(refusal(t, { yaml: yaml(`${FILES}, ciphers: [${name}]`) }).message, /is not (safe|a cipher)/);
  });
}

const CHANGES: readonly (readonly [string, readonly string[]])[] = [
  ["certificate: d.pem, key: /etc/k.pem", ["certificate"]],
  ["certificate: c.pem, key: d.key", ["key"]],
  [`${FILES}, certificates: [{ certificate: d, key: k }]`, ["certificates[].certificate", "certificates[].names"]],
  [`${FILES}, alpn: [x]`, ["alpn"]],
  [`${FILES}, minVersion: TLSv1.3`, ["minVersion"]],
  [`${FILES}, ciphers: [TLS_AES_128_GCM_SHA256]`, ["ciphers"]],
  [`${FILES}, keyLog: k.log`, ["keyLog"]],
  [`${FILES}, ca: ca.pem, clientCertificate: optional`, ["ca", "clientCertificate"]],
];

for (const [after, options] of CHANGES) {
  test(`a reload finds a change of ${options.join(" and ")}, and applies it at once`, (t) => {
    const folder = makeFolder(t);
    const plan = (tls: string): Config => load(t, { yaml: yaml(tls) }, folder);
    const { live, workers, restart } = planChange(plan(FILES), plan(after));
    assert.deepEqual(
      live,
      options.map((option) => `listeners[].tls.${option} (secure)`),
    );
    assert.deepEqual([workers, restart], [[], []]);
  });
}

test("TLS itself can be turned on and off by a reload", (t) => {
  const folder = makeFolder(t);
  const before = load(t, { yaml: yaml(FILES).replace(/, tls: .*/, " }") }, folder);
  const after = load(t, { yaml: yaml(FILES) }, folder);
  assert.ok(planChange(before, after).live.includes("listeners[].tls.certificate (secure)"));
  assert.ok(planChange(after, before).live.includes("listeners[].tls.certificate (secure)"));
  assert.deepEqual(planChange(after, before).workers, []);
});
