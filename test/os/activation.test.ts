/** Sockets from the service manager: what fits is taken, everything else is left alone and said. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { moduleUrl } from "../support/script.js";
import { within } from "../support/until.js";

interface Taken {
  readonly sockets: { name: string; fd: number }[];
  readonly problems: string[];
  /** LISTEN_… that are left. */
  readonly left: string[];
  /** Flags of each socket taken, as /proc/self/fdinfo has them (octal). */
  readonly flags: number[];
  /** How many sockets a child of it has, beyond its standard ones. */
  readonly inherited: string;
}

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/** Prints what `inheritedSockets` makes of the variables. LISTEN_PID=SELF stands for its own pid. */
const PROGRAM = `
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { inheritedSockets } from ${moduleUrl("#src/os/activation.js")};
const problems = [];
if (process.env.LISTEN_PID === "SELF") process.env.LISTEN_PID = String(process.pid);
const sockets = inheritedSockets(process.env, process.pid, (problem) => problems.push(problem));
const flags = sockets.map(({ fd }) => parseInt(/flags:\\s*(\\d+)/.exec(readFileSync("/proc/self/fdinfo/" + fd, "utf8"))[1], 8));
const left = Object.keys(process.env).filter((name) => name.startsWith("LISTEN_"));
const inherited = execFileSync("/bin/sh", ["-c", "ls -l /proc/self/fd | grep -E ' ([3-9]|[0-9]{2,}) -> socket:' | wc -l"], { encoding: "utf8" }).trim();
console.log(JSON.stringify({ sockets, problems, left, flags, inherited }));
`;

/** Descriptors 3 and up of the process: made by Python, which then becomes it. */
const LAUNCHER = `
import os, socket, sys
kinds, node, program = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
made = []
for kind in filter(None, kinds):
    if kind == "file": made.append(os.open("/dev/null", os.O_RDONLY)); continue
    family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
    udp = kind.startswith("udp")
    one = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    one.bind(("::1" if kind.endswith("6") else "127.0.0.1", 0))
    if kind.startswith("tcp"): one.listen()
    made.append(one.detach())
high = [os.dup2(fd, 100 + index) for index, fd in enumerate(made)]
for fd in made: os.close(fd)
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index, inheritable=True)
    os.close(fd)
os.execv(node, [node, "--input-type=module", "--eval", program])
`;

async function start(t: TestContext, kinds: string, env: Record<string, string>): Promise<Taken> {
  const args = ["-c", LAUNCHER, kinds, process.execPath, PROGRAM];
  const child = spawn("python3", args, {
    stdio: ["ignore", "pipe", "inherit"],
    env: { PATH: process.env.PATH, ...env },
  });
  t.after(() => child.kill("SIGKILL"));
  return JSON.parse(await within("the process has printed what it took", text(child.stdout)));
}

test("sockets of a socket unit are taken, and made close-on-exec and non-blocking", async (t) => {
  const env = {
    LISTEN_PID: "SELF",
    LISTEN_FDS: "3",
    LISTEN_FDNAMES: "headrace.socket:slot-0|tcp|%3A%3A1|9000|false:feed",
  };
  const { sockets, problems, left, flags, inherited } = await start(t, "tcp,tcp6,udp", env);
  assert.deepEqual(sockets, [
    { name: "headrace.socket", fd: 3 },
    { name: "slot-0|tcp|%3A%3A1|9000|false", fd: 4 },
    { name: "feed", fd: 5 },
  ]);
  assert.deepEqual([problems, left, inherited], [[], [], "0"]);
  for (const flag of flags) assert.equal(flag & (O_NONBLOCK | O_CLOEXEC), O_NONBLOCK | O_CLOEXEC);
});

test("without the variables nothing is taken", async (t) => {
  const { sockets, problems } = await start(t, "tcp", {});
  assert.deepEqual([sockets, problems], [[], []]);
});

for (const pid of ["1", "", "SELF ", "0x1", "-1", "garbage"]) {
  test(`LISTEN_PID=${JSON.stringify(pid)} is not for this process: ignored without a word`, async (t) => {
    const { sockets, problems, left } = await start(t, "tcp", {
      LISTEN_PID: pid,
      LISTEN_FDS: "1",
      LISTEN_FDNAMES: "a",
    });
    assert.deepEqual([sockets, problems, left], [[], [], []]);
  });
}

test("no LISTEN_PID: ignored", async (t) => {
  const { sockets, problems, left } = await start(t, "tcp", { LISTEN_FDS: "1" });
  assert.deepEqual([sockets, problems, left], [[], [], []]);
});

for (const count of ["", "garbage", "-1", "1.5", " 1", "0x1", "1e3", "99999999999999999999"]) {
  test(`LISTEN_FDS=${JSON.stringify(count)} is reported, nothing is taken`, async (t) => {
    const { sockets, problems, left } = await start(t, "tcp", { LISTEN_PID: "SELF", LISTEN_FDS: count });
    assert.deepEqual([sockets, left], [[], []]);
    assert.match(problems.join(), /^LISTEN_FDS=".*" is not a number of descriptors: ignored$/);
  });
}

test("LISTEN_FDS=0 is nothing to speak of", async (t) => {
  const { sockets, problems } = await start(t, "", { LISTEN_PID: "SELF", LISTEN_FDS: "0" });
  assert.deepEqual([sockets, problems], [[], []]);
});

test("missing names are unknown; a wrong number of them names nothing", async (t) => {
  const without = await start(t, "tcp,tcp", { LISTEN_PID: "SELF", LISTEN_FDS: "2" });
  assert.deepEqual(
    without.sockets.map(({ name }) => name),
    ["unknown", "unknown"],
  );
  assert.deepEqual(without.problems, []);
  const short = await start(t, "tcp,tcp", { LISTEN_PID: "SELF", LISTEN_FDS: "2", LISTEN_FDNAMES: "only" });
  assert.deepEqual(
    short.sockets.map(({ name }) => name),
    ["unknown", "unknown"],
  );
  assert.match(short.problems.join(), /LISTEN_FDNAMES has 1 names for 2 descriptors/);
});

test("a count that is too large takes what is there, and nothing of Node's own", async (t) => {
  for (const count of ["5", "40", "999999"]) {
    const { sockets, problems } = await start(t, "tcp", { LISTEN_PID: "SELF", LISTEN_FDS: count });
    assert.deepEqual(sockets, [{ name: "unknown", fd: 3 }]);
    assert.ok(problems.length > 0 && problems.length < 40);
  }
});

test("what does not listen is reported and left alone", async (t) => {
  const env = { LISTEN_PID: "SELF", LISTEN_FDS: "3", LISTEN_FDNAMES: "a:b:c" };
  const { sockets, problems } = await start(t, "file,stream,tcp", env);
  assert.deepEqual(sockets, [{ name: "c", fd: 5 }]);
  assert.match(problems[0] ?? "", /^descriptor 3 \(a\) .* is not a listening socket: ENOTSOCK$/);
  assert.match(problems[1] ?? "", /^descriptor 4 \(b\) .* is not a listening socket: it does not listen$/);
});

test("sockets of an ordinary start are nobody's business", async (t) => {
  const server = createServer();
  t.after(() => server.close());
  const { sockets } = await start(t, "tcp", { LISTEN_FDS: "1", LISTEN_PID: String(process.pid) });
  assert.deepEqual(sockets, []);
});
