import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { TlsDetails } from "#src/connection/tls-details.js";
import { defineService } from "#src/service/define.js";
import { Authority } from "../support/authority.js";
import { makeFolder } from "../support/folder.js";

const INFO = { protocol: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", resumed: false };

test("what is not known is undefined", () => {
  const { protocol, serverName, alpn, resumed, client } = new TlsDetails(INFO);
  assert.deepEqual([protocol, serverName, alpn, resumed, client], ["TLSv1.3", undefined, undefined, false, undefined]);
});

test("the client's certificate, looked at as often as one likes", (t) => {
  const issued = new Authority(makeFolder(t)).issue({ name: "device", organization: "A\\, B", names: [] });
  const { raw, fingerprint256 } = new X509Certificate(readFileSync(issued.certificate));
  const details = new TlsDetails({ ...INFO, peerCertificate: raw });
  const { client } = details;
  assert.deepEqual({ ...client?.subject }, { CN: "device", O: "A, B" });
  assert.deepEqual([client?.subjectAltNames, client?.fingerprint256], [[], fingerprint256]);
  assert.deepEqual([client?.verified, client?.problem], [true, undefined]);
  assert.equal(details.client, client);
  const doubted = new TlsDetails({ ...INFO, peerCertificate: raw, verifyError: "certificate has expired" }).client;
  assert.deepEqual([doubted?.verified, doubted?.problem], [false, "certificate has expired"]);
});

test("a service sees it from the first moment, and such a connection does not move", () => {
  const seen: unknown[] = [];
  const service = defineService({
    codec: line(),
    state: ({ tls }) => seen.push(tls?.serverName),
    onMessage: (_, { connection }) => connection.tls?.cipher ?? "plaintext",
  });
  const tls = new TlsDetails({ ...INFO, serverName: "a.example" });
  const harness = testConnection(service, { tls });
  assert.deepEqual(seen, ["a.example"]);
  harness.push("x\n");
  assert.equal(harness.sent().toString(), "TLS_AES_128_GCM_SHA256\n");
  assert.throws(() => harness.moved());
  const plain = testConnection(service);
  plain.push("x\n");
  assert.equal(plain.sent().toString(), "plaintext\n");
});
