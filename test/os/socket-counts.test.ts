import assert from "node:assert/strict";
import { test } from "node:test";
import { parseListenLosses, parseSocketCounts, readListenLosses, readSocketCounts } from "#src/os/socket-counts.js";

const NETSTAT = `TcpExt: SyncookiesSent SyncookiesRecv ListenOverflows ListenDrops TCPHPHits
TcpExt: 0 0 12 34 5
IpExt: InNoRoutes ListenOverflows
IpExt: 1 99
`;
const SOCKSTAT = `sockets: used 16
TCP: inuse 7 orphan 2 tw 27912 alloc 9 mem 320
UDP: inuse 4 mem 3
`;

test("overflows and drops stand by their names, wherever a kernel puts them", () => {
  assert.deepEqual(parseListenLosses(NETSTAT), { overflows: 12, drops: 34 });
  const moved = NETSTAT.replace("SyncookiesSent ", "New SyncookiesSent ").replace("TcpExt: 0", "TcpExt: 8 0");
  assert.deepEqual(parseListenLosses(moved), { overflows: 12, drops: 34 });
});

test("sockets of both families are in use; TIME_WAIT and orphans stand in the first file alone", () => {
  assert.deepEqual(parseSocketCounts(SOCKSTAT, "TCP6: inuse 5\nUDP6: inuse 9\n"), {
    timeWait: 27912,
    inUse: 12,
    orphaned: 2,
  });
  assert.deepEqual(parseSocketCounts(SOCKSTAT, ""), { timeWait: 27912, inUse: 7, orphaned: 2 });
});

test("what is not there is undefined, and not zero", () => {
  for (const text of [
    "",
    "TcpExt:\n",
    "TcpExt: ListenOverflows\nTcpExt: 1\n",
    "TcpExt: ListenOverflows ListenDrops\n",
  ]) {
    assert.equal(parseListenLosses(text), undefined, text);
  }
  for (const text of ["", "TCP: inuse 1", "TCP: inuse x orphan 0 tw 1", "TCP: inuse 1 orphan 0 tw"]) {
    assert.equal(parseSocketCounts(text, ""), undefined, text);
  }
});

test("this kernel tells them", async () => {
  const losses = await readListenLosses();
  const counts = await readSocketCounts();
  for (const count of [...Object.values(losses ?? {}), ...Object.values(counts ?? {})]) assert.ok(count >= 0);
  assert.deepEqual([Object.keys(losses ?? {}).length, Object.keys(counts ?? {}).length], [2, 3]);
});
