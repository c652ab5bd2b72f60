import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { ListenerConfig } from "#src/config/config.js";
import { bindError, probeAddresses } from "#src/primary/addresses.js";

function listener(host: string, port: number): ListenerConfig {
  const addressText = `${host}:${port}`;
  const service = { kind: "builtin", name: "echo-line" } as const;
  const address = { protocol: "tcp", host, port } as const;
  return {
    name: "lines",
    address,
    addressText,
    service,
    limits: {},
    timeouts: {},
    socket: DEFAULT_SOCKET,
    admission: { allow: [], deny: [] },
  };
}

test("free addresses pass, and port 0 always", () => {
  probeAddresses([listener("127.0.0.1", 0), listener("0.0.0.0", 0), listener("::1", 0)]);
});

test("a port that is in use is refused with its owner", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  assert.throws(
    () => probeAddresses([listener("127.0.0.1", 0), listener("0.0.0.0", port)]),
    (error: unknown) =>
      error instanceof HeadraceError &&
      error.code === "address-in-use" &&
      error.fields.errno === "EADDRINUSE" &&
      error.message.includes(`process ${process.pid} (`),
  );
});

for (const [errno, code, says] of [
  ["EACCES", "permission-denied", /ports below \d+ are for root and CAP_NET_BIND_SERVICE/],
  ["EADDRNOTAVAIL", "address-unavailable", /not an address of this machine; .*0\.0\.0\.0/],
  ["EAFNOSUPPORT", "address-unavailable", /no IPv6/],
  ["EADDRINUSE", "address-in-use", /in use by a process that only root can see/],
  ["ENOBUFS", "system", /cannot be bound: ENOBUFS/],
] as const) {
  test(`${errno} says what to do`, () => {
    const error = bindError(errno, listener("192.0.2.1", 80));
    assert.equal(error.code, code);
    assert.match(error.message, says);
    assert.ok(error.message.startsWith('listener "lines": 192.0.2.1:80'));
  });
}
