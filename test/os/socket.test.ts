/** Socket options as the kernel reports them, on listeners, on accepted and on outbound connections. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { type TestContext, test } from "node:test";
import { DEFAULT_SOCKET, type SocketOptions } from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { check, errnoName } from "#src/os/errno.js";
import { packSocketOptions, SOCKET_OPTION_NAMES } from "#src/os/socket.js";
import { accept, openListener, openLoopback, Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

/** Asked of the kernel by another program, by the numbers of the kernel's headers. */
const ASK = `
import json, socket
s = socket.socket(fileno=3)
tcp, sol = socket.IPPROTO_TCP, socket.SOL_SOCKET
def get(level, name):
    try: return s.getsockopt(level, name)
    except OSError as error: return error.errno
options = dict(
  noDelay=get(tcp, socket.TCP_NODELAY), keepAliveOn=get(sol, socket.SO_KEEPALIVE), keepAlive=get(tcp, socket.TCP_KEEPIDLE),
  keepAliveInterval=get(tcp, socket.TCP_KEEPINTVL), keepAliveCount=get(tcp, socket.TCP_KEEPCNT),
  userTimeout=get(tcp, 18), deferAccept=get(tcp, socket.TCP_DEFER_ACCEPT), fastOpen=get(tcp, 23),
  notSentLowWater=get(tcp, 25), receiveBuffer=get(sol, socket.SO_RCVBUF), sendBuffer=get(sol, socket.SO_SNDBUF),
  bufferLocks=get(sol, 72),
  lingerOn=int.from_bytes(s.getsockopt(sol, socket.SO_LINGER, 8)[:4], "little"),
  reusePort=get(sol, socket.SO_REUSEPORT), ipv6Only=get(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
  backlog=int.from_bytes(s.getsockopt(tcp, socket.TCP_INFO, 104)[28:32], "little"))
s.detach()
print(json.dumps(options))
`;

type Told = Record<string, number>;

function told(fd: number): Told {
  const asked = spawnSync("python3", ["-c", ASK], { stdio: ["ignore", "pipe", "inherit", fd], encoding: "utf8" });
  assert.equal(asked.status, 0);
  return JSON.parse(asked.stdout) as Told;
}

const CHOSEN: SocketOptions = {
  ...DEFAULT_SOCKET,
  noDelay: true,
  keepAlive: 41_000,
  keepAliveInterval: 7_000,
  keepAliveCount: 5,
  userTimeout: 12_345,
  deferAccept: "off",
  fastOpen: 77,
  notSentLowWater: 33_333,
  receiveBuffer: 50_000,
  sendBuffer: 60_000,
  backlog: 99,
};

/** What a connection has of them. The kernel doubles the buffers (socket(7)). */
const ON_CONNECTION: Told = {
  noDelay: 1,
  keepAliveOn: 1,
  keepAlive: 41,
  keepAliveInterval: 7,
  keepAliveCount: 5,
  userTimeout: 12_345,
  notSentLowWater: 33_333,
  receiveBuffer: 100_000,
  sendBuffer: 120_000,
  lingerOn: 0,
};

function pick(options: Told, names: readonly string[]): Told {
  return Object.fromEntries(names.map((name) => [name, options[name] as number]));
}

const NAMES = Object.keys(ON_CONNECTION);

test("a listener has every option, the backlog and TCP Fast Open included", (t) => {
  const options = told(openListener(t, CHOSEN));
  assert.deepEqual(pick(options, [...NAMES, "fastOpen", "backlog"]), { ...ON_CONNECTION, fastOpen: 77, backlog: 99 });
});

test("accepted connections inherit what src/os/socket.ts says, from the accept on", async (t) => {
  const loopback = openLoopback(t, { socket: CHOSEN });
  await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const { fd } = loopback.engine.release(served.slot, served.generation);
  t.after(() => addon().fdClose(fd));
  assert.deepEqual(pick(told(fd), NAMES), ON_CONNECTION);
});

test("outbound connections have them before they connect", async (t) => {
  const loopback = openLoopback(t);
  const client = new Recorder(loopback.engine);
  const slot = loopback.engine.connect("127.0.0.1", loopback.port, "", packSocketOptions(CHOSEN), client);
  await loopback.nth(0);
  const { fd } = loopback.engine.release(slot, loopback.engine.generation(slot));
  t.after(() => addon().fdClose(fd));
  assert.deepEqual(pick(told(fd), NAMES), ON_CONNECTION);
});

test("off leaves each option to the kernel", (t) => {
  const off: Partial<SocketOptions> = { noDelay: false, keepAlive: "off", backlog: 5 };
  const options = told(openListener(t, off));
  assert.deepEqual(pick(options, ["noDelay", "keepAliveOn", "userTimeout", "deferAccept", "fastOpen", "lingerOn"]), {
    noDelay: 0,
    keepAliveOn: 0,
    userTimeout: 0,
    deferAccept: 0,
    fastOpen: 0,
    lingerOn: 0,
  });
});

/** Every option as a listener that was opened with these has it. */
function fresh(t: TestContext, options: Partial<SocketOptions>): Told {
  return told(openListener(t, options));
}

test("applied to a socket that listens: as if it had been opened so, and its queue stays", async (t) => {
  const changed: Partial<SocketOptions> = { ...CHOSEN, deferAccept: 3_000 };
  const loopback = openLoopback(t, { accepting: false, socket: { backlog: 5, ipv6Only: false } });
  const { engine, fd } = loopback;
  await openPeer(t, loopback.port);
  await until("a connection in the queue", () => addon().socketQueue(fd) === 1);
  assert.equal(addon().socketApply(fd, packSocketOptions({ ...DEFAULT_SOCKET, ...changed })), 0);
  assert.equal(addon().socketQueue(fd), 1);
  assert.deepEqual(told(fd), fresh(t, changed));
  accept(loopback);
  const early = await loopback.nth(0);
  const peer = await openPeer(t, loopback.port);
  peer.write("now");
  const late = await loopback.nth(1);
  const ofConnection = (served: Recorder): Told => {
    const released = engine.release(served.slot, served.generation);
    t.after(() => addon().fdClose(released.fd));
    return pick(told(released.fd), NAMES);
  };
  assert.deepEqual(ofConnection(late), ON_CONNECTION);
  assert.notEqual(ofConnection(early).userTimeout, ON_CONNECTION.userTimeout, "what is there already keeps its own");
});

test("applied as off: the kernel's again, but a buffer keeps its size and is tuned from there", (t) => {
  const fd = openListener(t, { ...CHOSEN, deferAccept: 3_000 });
  const before = told(fd);
  const off: Partial<SocketOptions> = { keepAlive: "off", noDelay: false, backlog: 44 };
  assert.equal(addon().socketApply(fd, packSocketOptions({ ...DEFAULT_SOCKET, ...off })), 0);
  const { receiveBuffer, sendBuffer, keepAlive } = before;
  // The idle time means nothing without SO_KEEPALIVE.
  assert.deepEqual(told(fd), { ...fresh(t, off), receiveBuffer, sendBuffer, keepAlive });
  assert.equal(before.bufferLocks, 3);
});

test("applied to what does not listen, or with something the kernel refuses: an errno", (t) => {
  const fd = openListener(t);
  const [a, b] = check(addon().fdPair(), "socketpair");
  const options = packSocketOptions(DEFAULT_SOCKET);
  assert.equal(errnoName(addon().socketApply(a, options)), "EINVAL");
  assert.equal(errnoName(addon().socketApply(-1, options)), "EBADF");
  for (const each of [a, b]) addon().fdClose(each);
  const wrong = packSocketOptions({ ...DEFAULT_SOCKET, keepAliveCount: 1_000 });
  assert.equal(errnoName(addon().socketApply(fd, wrong)), "EINVAL");
});

test("deferAccept: accepted once the peer has sent something", async (t) => {
  const loopback = openLoopback(t, { socket: { deferAccept: 5_000 } });
  assert.ok((told(loopback.fd).deferAccept ?? 0) >= 5);
  const peer = await openPeer(t, loopback.port);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(loopback.accepted.length, 0);
  peer.write("now");
  await loopback.nth(0);
});

test("ipv6Only: with it, IPv4 clients are refused; without, they come in", async (t) => {
  for (const ipv6Only of [true, false]) {
    const fd = openListener(t, { ipv6Only }, "::");
    assert.equal(told(fd).ipv6Only, ipv6Only ? 1 : 0);
  }
});

test("socketOption reads back what was set, by the index of its name", (t) => {
  const fd = openListener(t, CHOSEN);
  const read = (name: keyof SocketOptions): number => addon().socketOption(fd, SOCKET_OPTION_NAMES.indexOf(name));
  assert.equal(read("noDelay"), 1);
  assert.equal(read("keepAlive"), 41);
  assert.equal(read("userTimeout"), 12_345);
  assert.equal(read("fastOpen"), 77);
  assert.equal(read("notSentLowWater"), 33_333);
  assert.ok(addon().socketOption(fd, 999) < 0);
  assert.ok(addon().socketOption(-1, 0) < 0);
});

test("part of a second is rounded up, never down to off", () => {
  const packed = packSocketOptions({ ...DEFAULT_SOCKET, keepAlive: 1, deferAccept: 500 });
  assert.equal(packed[SOCKET_OPTION_NAMES.indexOf("keepAlive")], 1);
  assert.equal(packed[SOCKET_OPTION_NAMES.indexOf("deferAccept")], 1);
});

test("addresses that are none, and descriptors that are none, are errnos", () => {
  const options = packSocketOptions(DEFAULT_SOCKET);
  for (const host of ["", "localhost", "1.2.3", "::g", "1.2.3.4.5", "x".repeat(200)]) {
    assert.ok(addon().socketListen(host, 0, true, options) < 0, host);
  }
  assert.ok((addon().socketName(-1, false) as number) < 0);
  assert.throws(() => addon().socketListen("127.0.0.1", 0, true, new Int32Array(3)), TypeError);
});
