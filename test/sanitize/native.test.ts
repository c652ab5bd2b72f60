/** The C modules under AddressSanitizer and UndefinedBehaviorSanitizer, without Node. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "../support/folder.js";

const MODULES = [
  "engine.c",
  "conn.c",
  "layer.c",
  "datagram.c",
  "listener.c",
  "socket.c",
  "fds.c",
  "unix.c",
  "admission.c",
  "address.c",
  "cidr.c",
  "siphash.c",
  "source.c",
  "udp.c",
];
const FLAGS = "-std=c11 -g -O1 -Wall -Wextra -Werror -D_GNU_SOURCE -pthread -fno-omit-frame-pointer";
const SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all";
const STEPS = 30_000;

const root = packageRoot();

function compile(t: TestContext, program: string, sanitizers = SANITIZERS): string {
  const binary = join(makeFolder(t), program);
  const sources = [join(root, "test", "native", `${program}.c`), ...MODULES.map((name) => join(root, "native", name))];
  const built = spawnSync("cc", [...`${FLAGS} ${sanitizers}`.split(" "), ...sources, "-o", binary], {
    encoding: "utf8",
  });
  assert.equal(built.status, 0, built.stderr);
  return binary;
}

function run(binary: string, ...args: string[]): string {
  const ran = spawnSync(binary, args, { encoding: "utf8", timeout: 120_000 });
  assert.equal(ran.status, 0, `${args.join(" ")}: ${ran.signal ?? ran.status}\n${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

test("each module at its bounds", (t) => {
  assert.match(run(compile(t, "modules")), /done/);
});

test("stream layers: what they answer, how they fail, what they leave behind", (t) => {
  assert.match(run(compile(t, "layer")), /done/);
});

test("random operations, seeds that never change and one of today", (t) => {
  const binary = compile(t, "random");
  for (const seed of ["1", "2", "3", "4", "5", String(Date.now())]) {
    t.diagnostic(run(binary, seed, String(STEPS)).trim().replaceAll("\n", ", "));
  }
});

test("addresses: full sets, evictions, moves, and deaths at any moment, against a model", (t) => {
  const binary = compile(t, "addresses");
  for (const seed of ["1", "2", String(Date.now())]) {
    t.diagnostic(run(binary, seed, "3000").trim().replaceAll("\n", ", "));
  }
});

test("datagrams: random traffic, a kernel without room, sources against a model", (t) => {
  // Loopback never runs short: the one call that would notice is answered by the program.
  const binary = compile(t, "datagrams", `${SANITIZERS} -Wl,--wrap=sendmmsg`);
  for (const seed of ["1", "2", String(Date.now())]) {
    assert.match(run(binary, seed, "10000"), /done/);
  }
});

test("admission counts without a data race", (t) => {
  assert.match(run(compile(t, "modules", "-fsanitize=thread")), /done/);
});
