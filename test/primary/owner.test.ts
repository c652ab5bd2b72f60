import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { findOwner, parseListening } from "#src/primary/owner.js";

const HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

test("the kernel's table is read: address, port and inode of listening sockets", () => {
  const v4 = `${HEADER}   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5001 1 0\n
   1: 0100007F:2328 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 5002 1 0\n`;
  assert.deepEqual(parseListening(v4), [{ host: "127.0.0.1", port: 9000, inode: "5001" }]);
  const v6 = `${HEADER}   0: 00000000000000000000000001000000:2329 0:0000 0A 0:0 0:0 0 0 0 5003 1 0
   1: 00000000000000000000000000000000:0050 0:0000 0A 0:0 0:0 0 0 0 5004 1 0
   2: 0000000000000000FFFF00000100007F:0051 0:0000 0A 0:0 0:0 0 0 0 5005 1 0\n`;
  assert.deepEqual(parseListening(v6), [
    { host: "::1", port: 9001, inode: "5003" },
    { host: "::", port: 80, inode: "5004" },
    { host: "127.0.0.1", port: 81, inode: "5005" },
  ]);
});

async function listen(t: TestContext, host: string): Promise<number> {
  const server = createServer().listen(0, host);
  t.after(() => server.close());
  await once(server, "listening");
  const address = server.address();
  return typeof address === "object" && address ? address.port : 0;
}

for (const [theirs, ours] of [
  ["127.0.0.1", "127.0.0.1"],
  ["127.0.0.1", "0.0.0.0"],
  ["127.0.0.1", "::"],
  ["0.0.0.0", "127.0.0.1"],
  ["::1", "0:0:0:0:0:0:0:1"],
  ["::", "127.0.0.1"],
] as const) {
  test(`a socket on ${theirs} stands in the way of ${ours}`, async (t) => {
    const owner = findOwner(ours, await listen(t, theirs));
    assert.equal(owner?.pid, process.pid);
    assert.match(owner?.command ?? "", /node/);
  });
}

test("another address or another port is nobody's", async (t) => {
  const port = await listen(t, "127.0.0.1");
  assert.equal(findOwner("127.0.0.2", port), undefined);
  assert.equal(findOwner("::1", port), undefined);
});
