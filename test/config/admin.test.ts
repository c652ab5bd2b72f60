/** `admin`: where it may listen, and that its token is told to nobody. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { load, refusal } from "./folder.js";

const TOKEN = "0123456789abcdef";

test("beyond loopback it needs a token of one's own, from the file or the environment", (t) => {
  for (const address of ["0.0.0.0:9900", "[::]:9900", "10.0.0.1:9900", "[::ffff:10.0.0.1]:9900"]) {
    const yaml = `admin: { address: "${address}" }`;
    const { message, fields } = refusal(t, { yaml });
    assert.match(message, /admin\.address.*admin\.token or HEADRACE_ADMIN_TOKEN/);
    assert.equal(fields.option, "admin.address");
    assert.equal(load(t, { yaml, env: { HEADRACE_ADMIN_TOKEN: TOKEN } }).admin?.token, TOKEN);
    assert.equal(load(t, { yaml: `admin: { address: "${address}", token: ${TOKEN} }` }).admin?.token, TOKEN);
  }
  for (const address of ["127.0.0.1:9900", "127.1.2.3:9900", "[::1]:9900", "localhost:9900", "127.0.0.1:0"]) {
    assert.equal(load(t, { yaml: `admin: { address: "${address}" }` }).admin?.addressText, address);
  }
});

test("a token that is none is refused, and shown nowhere", (t) => {
  for (const token of [
    "short-secret",
    `"${TOKEN} secret"`,
    `[${TOKEN}-secret]`,
    `{ a: ${TOKEN}-secret }`,
    "12345678901234567",
    `"${"x".repeat(257)}secret"`,
  ]) {
    const error = refusal(t, { yaml: `admin: { address: "127.0.0.1:9900", token: ${token} }` });
    assert.match(error.message, /^headrace\.yaml:1: admin\.token: .*; allowed: 16 to 256 visible ASCII characters$/);
    assert.ok(!/secret|123456|xxx/.test(JSON.stringify([error.message, error.fields])), error.message);
  }
});

test("its address is no listener's, nor one for datagrams", (t) => {
  const listeners = 'listeners: [{ name: lines, address: "127.0.0.1:9000", service: echo-line }]\n';
  assert.match(
    refusal(t, { yaml: `${listeners}admin: { address: "127.0.0.1:9000" }` }).message,
    /is that of listener lines/,
  );
  assert.match(refusal(t, { yaml: 'admin: { address: "udp://127.0.0.1:9900" }' }).message, /admin\.address/);
});

test("off, or without an address, there is none", (t) => {
  assert.equal(load(t, { yaml: "admin: { address: off }" }).admin, undefined);
  assert.equal(load(t, { yaml: `admin: { token: ${TOKEN} }` }).admin, undefined);
  assert.equal(load(t, { env: { HEADRACE_ADMIN_ADDRESS: "off" } }).admin, undefined);
});
