import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { alternativeNames } from "#src/base/alternative-names.js";
import { openssl } from "../support/authority.js";
import { makeFolder } from "../support/folder.js";

test("kinds and values, in their order", () => {
  assert.deepEqual(alternativeNames("DNS:a.example, IP Address:10.0.0.1, URI:spiffe://x/y, email:a@b.example"), [
    { type: "DNS", value: "a.example" },
    { type: "IP Address", value: "10.0.0.1" },
    { type: "URI", value: "spiffe://x/y" },
    { type: "email", value: "a@b.example" },
  ]);
  assert.deepEqual([alternativeNames(undefined), alternativeNames("")], [[], []]);
});

/** Sections are the only way to write a comma into a name. */
const CONFIG = `[req]
distinguished_name = dn
x509_extensions = ext
prompt = no
[dn]
CN = x
[ext]
subjectAltName = @names
[names]
URI = "http://x/?a=1, DNS:evil.example"
DNS = good.example
`;

test("a value that contains what separates values is one value", (t) => {
  const folder = makeFolder(t);
  const [config, certificate] = [join(folder, "config"), join(folder, "c.pem")];
  writeFileSync(config, CONFIG);
  openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-noenc",
    "-keyout",
    "/dev/null",
    "-config",
    config,
    "-out",
    certificate,
  );
  const { subjectAltName } = new X509Certificate(readFileSync(certificate));
  assert.deepEqual(alternativeNames(subjectAltName), [
    { type: "URI", value: "http://x/?a=1, DNS:evil.example" },
    { type: "DNS", value: "good.example" },
  ]);
});
