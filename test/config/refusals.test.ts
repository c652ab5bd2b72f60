/** The words of every refusal: file, line, option, what was given, what is allowed. */
import assert from "node:assert/strict";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { HeadraceError } from "#src/base/errors.js";
import { load, makeFolder, refusal } from "./folder.js";

const one = (rest: string) => `listeners:\n  - { address: "127.0.0.1:7000", service: echo-line${rest} }\n`;
const durations = "500ms, 10s, 2m, 1h";

const table: readonly (readonly [yaml: string, message: string])[] = [
  // Durations
  [
    "timeouts:\n  idle: 10 parsecs\n",
    `headrace.yaml:2: timeouts.idle: "10 parsecs" is not a duration; allowed: ${durations} or off`,
  ],
  [
    "timeouts: { idle: 10 }",
    `headrace.yaml:1: timeouts.idle: 10 has no unit (10s? 10ms?); allowed: ${durations} or off`,
  ],
  [
    "timeouts: { idle: 0 }",
    "headrace.yaml:1: timeouts.idle: 0 is not allowed: write off to disable it; allowed: 1ms to 576h or off",
  ],
  [
    "timeouts: { idle: 0s }",
    'headrace.yaml:1: timeouts.idle: "0s" is not allowed: write off to disable it; allowed: 1ms to 576h or off',
  ],
  ["timeouts: { drain: off }", `headrace.yaml:1: timeouts.drain: "off" is not a duration; allowed: ${durations}`],
  [
    "timeouts: { idle: false }",
    `headrace.yaml:1: timeouts.idle: false is not a duration; allowed: ${durations} or off`,
  ],
  ["timeouts:\n  idle:\n", `headrace.yaml:2: timeouts.idle: nothing is not a duration; allowed: ${durations} or off`],
  [
    "socket: { keepAlive: 32768s }",
    'headrace.yaml:1: socket.keepAlive: "32768s" is out of range; allowed: 1s to 32767s or off',
  ],
  ["timeouts: { hang: 999ms }", 'headrace.yaml:1: timeouts.hang: "999ms" is out of range; allowed: 1s to 576h or off'],
  ["timeouts: { prove: off }", `headrace.yaml:1: timeouts.prove: "off" is not a duration; allowed: ${durations}`],
  // Sizes and counts
  [
    "limits: { frame: 1MB }",
    'headrace.yaml:1: limits.frame: "1MB" is not a size; allowed: 4096 (bytes), 64KiB, 1MiB, 1GiB',
  ],
  ["limits: { frame: 2GiB }", 'headrace.yaml:1: limits.frame: "2GiB" is out of range; allowed: 1 to 1GiB'],
  ["workers: 257", "headrace.yaml:1: workers: 257 is out of range; allowed: 1 to 256 or auto"],
  ["workers: 1.5", "headrace.yaml:1: workers: 1.5 is not a whole number; allowed: 1 to 256 or auto"],
  ["workers: [1]", "headrace.yaml:1: workers: a list is not a whole number; allowed: 1 to 256 or auto"],
  ["socket: { keepAliveCount: 128 }", "headrace.yaml:1: socket.keepAliveCount: 128 is out of range; allowed: 1 to 127"],
  // Words
  ["socket: { noDelay: yes }", 'headrace.yaml:1: socket.noDelay: "yes" is not a switch; allowed: true or false'],
  ["log: { level: loud }", 'headrace.yaml:1: log.level: "loud" is not known; allowed: trace, debug, info, warn, error'],
  ["control: ''", 'headrace.yaml:1: control: "" is not a path; allowed: a path (/run/headrace/control.sock)'],
  [
    "pidFile: 5",
    "headrace.yaml:1: pidFile: 5 is not a path unless it is in quotes; allowed: a path (/run/headrace/control.sock)",
  ],
  ["migration: off", 'headrace.yaml:1: migration: "off" is not a group of options; allowed: enabled, rebalance'],
  [
    "migration: { rebalance: never }",
    'headrace.yaml:1: migration.rebalance: "never" is not a switch; allowed: true or false',
  ],
  // Names of options
  ["timeouts: { wrietStall: 1s }", "headrace.yaml:1: timeouts.wrietStall: unknown option; did you mean writeStall?"],
  [
    "colour: red",
    "headrace.yaml:1: colour: unknown option; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile",
  ],
  [
    "tls: {}",
    "headrace.yaml:1: tls: unknown option; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile",
  ],
  [
    "__proto__: { x: 1 }",
    "headrace.yaml:1: __proto__: unknown option; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile",
  ],
  ["log: { constructor: 1 }", "headrace.yaml:1: log.constructor: unknown option; allowed: level"],
  [
    '"\\e[31m": 1',
    'headrace.yaml:1: "\\u001b[31m": unknown option; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile',
  ],
  [
    one(", timeouts: { drain: 1s }"),
    "headrace.yaml:2: listeners[0].timeouts.drain: is not a listener's option: it stands at the top, for all of them",
  ],
  [
    one(", timeouts: { hang: 1s }"),
    "headrace.yaml:2: listeners[0].timeouts.hang: is not a listener's option: it stands at the top, for all of them",
  ],
  // Shapes
  [
    "limits: 5",
    "headrace.yaml:1: limits: 5 is not a group of options; allowed: connections, onLimit, connectionsPerAddress, connectRate, connectBurst, ipv6Prefix, frame, inFlight, inFlightPerWorker, highWater, lowWater, buffered, minRate, proxyHeader, datagram, datagramRate, datagramBurst, amplification, bufferMemory, handshakes",
  ],
  [
    "- 1",
    "headrace.yaml:1: a list is not a group of options; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile",
  ],
  ["listeners: []", "headrace.yaml:1: listeners: the list is empty; allowed: 1 to 64 listeners"],
  ["listeners:\n", "headrace.yaml:1: listeners: nothing is not a list; allowed: 1 to 64 listeners"],
  [
    "listeners:\n  -\n",
    "headrace.yaml:2: listeners[0]: nothing is not a group of options; allowed: name, address, service, limits, timeouts, socket, admission, proxyProtocol, tls",
  ],
  // Listeners
  [
    "listeners:\n  - service: echo-line\n",
    "headrace.yaml:2: listeners[0].address: is missing; allowed: IP address and port: 127.0.0.1:9000, [::]:9000, localhost:9000, udp://127.0.0.1:9000; port 0: any free one",
  ],
  [
    "listeners: [{ address: 9000, service: echo-line }]",
    'headrace.yaml:1: listeners[0].address: 9000 is not an address; allowed: "127.0.0.1:9000", "[::]:9000", "localhost:9000", "udp://127.0.0.1:9000"',
  ],
  [
    "listeners: [{ address: 'udp://0.0.0.0:1', service: echo-line }]",
    "headrace.yaml:1: listeners[0].address: udp://0.0.0.0:1 is for datagrams, and echo-line serves connections; allowed: echo-udp, or a module made by defineUdpService",
  ],
  [
    "listeners: [{ address: '127.0.0.1:1', service: ecko-line }]",
    'headrace.yaml:1: listeners[0].service: "ecko-line" is not a service; did you mean echo-line?; allowed: echo-line, echo-frame, echo-raw, echo-rpc, hash-line, hash-frame, echo-udp, or a module\'s path (./service.js)',
  ],
  [
    one(", name: 9"),
    'headrace.yaml:2: listeners[0].name: 9 is not a name unless it is in quotes; allowed: up to 63 letters, digits, ".", "_" and "-"',
  ],
  [
    `${one(", name: a")}  - { address: "127.0.0.1:1", service: echo-raw, name: a }\n`,
    'headrace.yaml:3: listeners[1].name: "a" is the name of another listener too',
  ],
  [
    `${one(", name: a")}  - { address: "localhost:7000", service: echo-raw }\n`,
    "headrace.yaml:3: listeners[1].address: localhost:7000 is taken by listener a (127.0.0.1:7000)",
  ],
  [
    `${one(", name: a")}  - { address: "0.0.0.0:7000", service: echo-raw }\n`,
    "headrace.yaml:3: listeners[1].address: 0.0.0.0:7000 is taken by listener a (127.0.0.1:7000)",
  ],
  [
    `${one(", name: a")}  - { address: "[0::0]:7000", service: echo-raw }\n`,
    "headrace.yaml:3: listeners[1].address: [0::0]:7000 is taken by listener a (127.0.0.1:7000)",
  ],
  [
    "listeners:\n  - address: udp://127.0.0.1:1\n    service: echo-udp\n    proxyProtocol: { trust: [10.0.0.0/8] }\n",
    "headrace.yaml:4: listeners[0].proxyProtocol: is for connections, and udp://127.0.0.1:1 is for datagrams; allowed: on TCP listeners",
  ],
  [
    "listeners:\n  - address: udp://127.0.0.1:1\n    service: ./game.js\n    tls: { certificate: c.pem, key: k.pem }\n",
    "headrace.yaml:4: listeners[0].tls: is for connections, and udp://127.0.0.1:1 is for datagrams; allowed: on TCP listeners",
  ],
  // Options that are wrong together
  [
    "limits:\n  lowWater: 64KiB\n  highWater: 64KiB\n",
    "headrace.yaml:2: limits.lowWater: 64KiB must be below limits.highWater (64KiB)",
  ],
  [
    `limits: { buffered: 64KiB }\n${one(", limits: { highWater: 1MiB }")}`,
    "headrace.yaml:3: listeners[0].limits.highWater: 1MiB must not be above limits.buffered (64KiB)",
  ],
  [
    "limits: { bufferMemory: 4MiB, frame: 2MiB }",
    "headrace.yaml:1: limits.frame: 2MiB must not be above a third of limits.bufferMemory (4MiB)",
  ],
  [
    `limits: { bufferMemory: 4MiB }\n${one(", limits: { frame: 3MiB }")}`,
    "headrace.yaml:3: listeners[0].limits.frame: 3MiB must not be above a third of limits.bufferMemory (4MiB)",
  ],
  [
    one(", limits: { connections: 10001 }"),
    "headrace.yaml:2: listeners[0].limits.connections: 10001 is more than the server's limits.connections (10000)",
  ],
  [
    `limits: { lowWater: 1KiB, highWater: 16KiB }\n${one(", limits: { lowWater: 64KiB }")}`,
    "headrace.yaml:3: listeners[0].limits.lowWater: 64KiB must be below limits.highWater (16KiB)",
  ],
  // Text that is no configuration
  ["timeouts:\n  idle: 1s\n  idle: 2s\n", "headrace.yaml:3: timeouts.idle: given twice, first on line 2"],
  [
    "a: [1\n",
    "headrace.yaml:2: not valid YAML: Flow sequence in block collection must be sufficiently indented and end with a ]",
  ],
];

for (const [yaml, message] of table) {
  test(message, (t) => {
    const error = refusal(t, { yaml });
    assert.equal(error.message, message);
    assert.equal(error.code, "config-invalid");
    assert.equal(error.fields.file, "headrace.yaml");
    assert.ok(message.startsWith(`headrace.yaml:${error.fields.line}: `));
  });
}

test("the error's fields name what its message does", (t) => {
  assert.deepEqual(refusal(t, { yaml: "timeouts:\n  idle: 10 parsecs\n" }).fields, {
    file: "headrace.yaml",
    line: 2,
    option: "timeouts.idle",
    given: '"10 parsecs"',
    allowed: "500ms, 10s, 2m, 1h or off",
  });
});

test("all findings are listed, in the order of their lines, with those of variables and flags", (t) => {
  const yaml = "workers: x\nsocket: { noDelay: 1 }\nlimits: { frame: x }\n";
  const given = { yaml, env: { HEADRACE_LOG_LEVEL: "loud" }, flags: { workers: "none" } };
  const labels = refusal(t, given)
    .message.split("\n")
    .map((line) => line.split(": ").slice(0, 2).join(": "));
  assert.deepEqual(labels, [
    "headrace.yaml:1: workers",
    "headrace.yaml:2: socket.noDelay",
    "headrace.yaml:3: limits.frame",
    'HEADRACE_LOG_LEVEL: "loud" is not known; allowed',
    '--workers: "none" is not a whole number; allowed',
  ]);
});

test("at most 20 findings are listed, and the rest counted", (t) => {
  const yaml = Array.from({ length: 27 }, (_, index) => `option${index}: 1`).join("\n");
  const lines = refusal(t, { yaml }).message.split("\n");
  assert.equal(lines.length, 21);
  assert.equal(lines.at(-1), "and 7 more");
});

test("65 listeners are too many", (t) => {
  const items = Array.from({ length: 65 }, (_, i) => `  - { address: "127.0.0.1:${i + 1}", service: echo-line }\n`);
  assert.match(
    refusal(t, { yaml: `listeners:\n${items.join("")}` }).message,
    /^headrace.yaml:1: listeners: the list is too long/,
  );
  assert.equal(load(t, { yaml: `listeners:\n${items.slice(1).join("")}` }).listeners.length, 64);
});

test("variables: an unknown one names the nearest, a wrong one is blamed by its own name", (t) => {
  const messageFor = (env: NodeJS.ProcessEnv) => refusal(t, { env }).message;
  assert.equal(
    messageFor({ HEADRACE_TIMEOUT_IDLE: "1s" }),
    "HEADRACE_TIMEOUT_IDLE: unknown variable; the nearest is HEADRACE_TIMEOUTS_IDLE",
  );
  assert.equal(messageFor({ HEADRACE_CONFG: "x" }), "HEADRACE_CONFG: unknown variable; the nearest is HEADRACE_CONFIG");
  assert.match(messageFor({ "HEADRACE_\u001b[31m": "" }), /^"HEADRACE_\\u001b\[31m": unknown variable/);
  assert.match(messageFor({ HEADRACE_QQQQQQ: "" }), /unknown variable; the nearest is HEADRACE_/);
  assert.equal(
    messageFor({ HEADRACE_WORKERS: "0" }),
    'HEADRACE_WORKERS: "0" is out of range; allowed: 1 to 256 or auto',
  );
  assert.equal(
    messageFor({ HEADRACE_TIMEOUTS_IDLE: "10" }),
    'HEADRACE_TIMEOUTS_IDLE: "10" has no unit (10s? 10ms?); allowed: 500ms, 10s, 2m, 1h or off',
  );
  assert.equal(
    messageFor({ HEADRACE_LIMITS_LOW_WATER: "1MiB", HEADRACE_LIMITS_HIGH_WATER: "1MiB" }),
    "HEADRACE_LIMITS_LOW_WATER: 1MiB must be below limits.highWater (1MiB)",
  );
  assert.match(
    messageFor({ HEADRACE_CONTROL: `/${"x".repeat(107)}` }),
    /^HEADRACE_CONTROL: the path is 108 bytes long once absolute; allowed: 107 bytes$/,
  );
});

test("flags: wrong usage, blamed by the flag's name", (t) => {
  const errorFor = (flags: object) => refusal(t, { flags });
  assert.equal(errorFor({ workers: "0" }).code, "usage");
  assert.equal(errorFor({ workers: "0" }).message, '--workers: "0" is out of range; allowed: 1 to 256 or auto');
  assert.match(errorFor({ logLevel: "loud" }).message, /^--log-level: "loud" is not known/);
  assert.match(errorFor({ listen: ["9000"] }).message, /^--listen: "9000" is not an address/);
  assert.match(
    errorFor({ service: "ecko-line" }).message,
    /^service: "ecko-line" is not a service; did you mean echo-line\?/,
  );
  assert.match(errorFor({ control: "" }).message, /^--control: "" is not a path/);
  assert.match(errorFor({ listen: ["127.0.0.1:1", "127.0.0.1:1"] }).message, /^--listen: 127\.0\.0\.1:1 is taken/);
  assert.equal(refusal(t, { file: "" }).message, "--config: a file's name is missing");
});

test("a file that cannot be read is named, with the reason", (t) => {
  const messageFor = (file: string) => refusal(t, { file }).message;
  assert.equal(messageFor("nowhere.yaml"), "nowhere.yaml: cannot be read: no such file");
  assert.equal(messageFor("/"), "/: cannot be read: it is a folder");
  assert.equal(messageFor("/dev/zero"), "/dev/zero: cannot be read: it is larger than 1MiB");
  assert.equal(refusal(t, { env: { HEADRACE_CONFIG: "n.yaml" } }).message, "n.yaml: cannot be read: no such file");
  assert.equal(
    refusal(t, { yaml: "#".repeat(2 ** 20 + 1) }).message,
    "headrace.yaml: cannot be read: it is larger than 1MiB",
  );
  assert.equal(
    refusal(t, { yaml: Uint8Array.of(0x23, 0xff) }).message,
    "headrace.yaml: cannot be read: it is not UTF-8 text",
  );
  assert.equal(load(t, { yaml: "#".repeat(2 ** 20) }).source, "headrace.yaml");
});

const NOBODY = 65_534;

test("a headrace.yaml that may not be read is an error, not a reason to run the defaults", (t) => {
  const folder = makeFolder(t);
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, "headrace.yaml"), "");
  chmodSync(join(folder, "headrace.yaml"), 0);
  const root = process.geteuid?.() === 0;
  // Root reads everything, so be somebody else for a moment.
  if (root) process.seteuid?.(NOBODY);
  try {
    assert.throws(() => load(t, {}, folder), { message: "headrace.yaml: cannot be read: permission denied" });
  } finally {
    if (root) process.seteuid?.(0);
  }
});

test("random options never end in anything but a HeadraceError, one finding a line", (t) => {
  const folder = makeFolder(t);
  const name = fc.constantFrom(
    "workers",
    "limits",
    "timeouts",
    "listeners",
    "frame",
    "idle",
    "name",
    "address",
    "service",
    "socket",
    "x\ny",
  );
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 3 },
      fc.string(),
      fc.double(),
      fc.boolean(),
      fc.constant(null),
      fc.constantFrom("10s", "off", 5),
      tie("list"),
      tie("group"),
    ),
    list: fc.array(tie("any"), { maxLength: 3 }),
    group: fc.dictionary(name, tie("any"), { maxKeys: 6 }),
  }));
  fc.assert(
    fc.property(value.group, (group) => {
      try {
        load(t, { yaml: JSON.stringify(group) }, folder);
      } catch (error) {
        assert.ok(error instanceof HeadraceError, String(error));
        for (const line of error.message.split("\n")) assert.match(line, /^headrace\.yaml:1: |^and \d+ more$/);
      }
    }),
    { numRuns: 300 },
  );
});
