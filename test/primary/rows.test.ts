import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { ListenerConfig } from "#src/config/config.js";
import { Rows } from "#src/primary/rows.js";

function listener(port: number): ListenerConfig {
  return {
    name: `port-${port}`,
    address: { protocol: "tcp", host: "127.0.0.1", port },
    addressText: `127.0.0.1:${port}`,
    service: { kind: "builtin", name: "echo-line" },
    limits: {},
    timeouts: {},
    socket: DEFAULT_SOCKET,
    admission: { allow: [], deny: [] },
  };
}

test("a listener keeps its row whatever its place in the configuration", () => {
  const rows = new Rows();
  assert.deepEqual(rows.assign([listener(1), listener(2)]), [0, 1]);
  assert.deepEqual(rows.assign([listener(3), listener(2)]), [2, 1]);
});

test("a row is another's only once it was freed", () => {
  const rows = new Rows();
  rows.assign([listener(1), listener(2)]);
  assert.deepEqual(rows.keepOnly([listener(2)]), [0]);
  assert.deepEqual(rows.assign([listener(2), listener(3)]), [1, 0]);
});

test("rows go over to the next generation by key", () => {
  const before = new Rows();
  before.assign([listener(1), listener(2)]);
  assert.deepEqual(new Rows(before.entries).assign([listener(2), listener(9)]), [1, 2]);
});

test("there are 64", () => {
  const rows = new Rows();
  rows.assign(Array.from({ length: 64 }, (_, port) => listener(port + 1)));
  assert.throws(() => rows.assign([listener(100)]), /more than 64 listeners/);
});
