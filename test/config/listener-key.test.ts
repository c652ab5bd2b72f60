import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "#src/base/address.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { listenerKey } from "#src/config/listener-key.js";

function key(text: string, name = "a", ipv6Only = false): string {
  const address = parseAddress(text);
  assert.ok(typeof address === "object", text);
  return listenerKey({ name, address, socket: { ...DEFAULT_SOCKET, ipv6Only } });
}

test("a key is made of protocol, host, port and family", () => {
  assert.equal(key("0.0.0.0:9000"), "tcp|0.0.0.0|9000|false");
  assert.equal(key("[::]:9000", "a", true), "tcp|::|9000|true");
  assert.equal(key("[fe80::1]:9000"), "tcp|fe80::1|9000|false");
});

test("a name is part of it only where the kernel chooses the port", () => {
  assert.equal(key("127.0.0.1:9000", "a"), key("127.0.0.1:9000", "b"));
  assert.equal(key("127.0.0.1:0", "a"), "tcp|127.0.0.1|0|false|a");
  assert.notEqual(key("127.0.0.1:0", "a"), key("127.0.0.1:0", "b"));
});

test("one address has one key, however it is spelled", () => {
  assert.equal(key("[::1]:1"), key("[0:0:0:0:0:0:0:1]:1"));
  assert.equal(key("localhost:1"), key("127.0.0.1:1"));
  assert.notEqual(key("127.0.0.1:1"), key("127.0.0.2:1"));
  assert.notEqual(key("127.0.0.1:1"), key("127.0.0.1:2"));
});

test("ipv6Only is no part of an IPv4 listener's key", () => {
  assert.equal(key("0.0.0.0:1", "a", true), key("0.0.0.0:1", "a", false));
});
