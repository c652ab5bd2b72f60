import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DEFAULT_ADMISSION, DEFAULT_SOCKET } from "#src/base/settings.js";
import { load, makeFolder } from "./folder.js";

const listener = "  - { address: 127.0.0.1:7000, service: echo-line";

test("without a file, variables and flags there are two echo listeners and the defaults", (t) => {
  const config = load(t, {});
  const socket = DEFAULT_SOCKET;
  const common = { limits: {}, timeouts: {}, socket, admission: DEFAULT_ADMISSION };
  assert.deepEqual(config, {
    workers: availableParallelism(),
    listeners: [
      {
        name: "lines",
        address: { protocol: "tcp", host: "127.0.0.1", port: 9000 },
        addressText: "127.0.0.1:9000",
        service: { kind: "builtin", name: "echo-line" },
        ...common,
      },
      {
        name: "frames",
        address: { protocol: "tcp", host: "127.0.0.1", port: 9001 },
        addressText: "127.0.0.1:9001",
        service: { kind: "builtin", name: "echo-frame" },
        ...common,
      },
    ],
    drainMs: 30_000,
    hangMs: 10_000,
    proveMs: 5_000,
    bufferMemory: 256 * 1024 ** 2,
    handshakes: 1_000,
    tlsDrainMs: 30_000,
    migration: { enabled: true, rebalance: true },
    tasks: {},
    shed: { queueDelay: 10, loopDelay: 500, memory: "off" },
    connections: 10_000,
    clients: { connectionsPerAddress: "off", connectRate: "off", connectBurst: 100, ipv6Prefix: 64 },
    admission: DEFAULT_ADMISSION,
    logLevel: "info",
    admin: {
      address: { protocol: "tcp", host: "127.0.0.1", port: 9900 },
      addressText: "127.0.0.1:9900",
      hosts: [],
      profiles: true,
    },
    source: "built-in defaults",
  });
  const { admin: _, ...rest } = config;
  assert.deepEqual({ ...load(t, { yaml: "# nothing\n" }), source: config.source }, rest, "a file: no admin server");
  assert.equal(load(t, { flags: { service: "echo-line" } }).admin, undefined, "a service: none either");
});

test("a whole file is read, as YAML and as JSON", (t) => {
  const yaml = `
workers: 3
listeners:
  - { name: a, address: "[::1]:7000", service: hash-line, limits: { frame: 2MiB, connections: 50 } }
  - { name: b, address: "localhost:7001", service: ./game.js, socket: { noDelay: false }, timeouts: { idle: off } }
limits: { connections: 100, frame: 4096, highWater: 128KiB }
timeouts: { idle: 90s, drain: 2m, hang: off, prove: 20s }
migration: { rebalance: false }
socket: { keepAlive: off, backlog: 10 }
log: { level: debug }
control: run/c.sock
pidFile: run/pid
`;
  const folder = makeFolder(t);
  const config = load(t, { yaml }, folder);
  assert.equal(config.workers, 3);
  assert.equal(config.connections, 100);
  assert.equal(config.drainMs, 120_000);
  assert.equal(config.hangMs, "off");
  assert.equal(config.proveMs, 20_000);
  assert.deepEqual(config.migration, { enabled: true, rebalance: false });
  assert.equal(config.logLevel, "debug");
  assert.equal(config.control, join(folder, "run/c.sock"));
  assert.equal(config.pidFile, join(folder, "run/pid"));
  assert.equal(config.source, "headrace.yaml");
  const [a, b] = config.listeners;
  assert.deepEqual(a?.address, { protocol: "tcp", host: "::1", port: 7000 });
  assert.deepEqual(a?.limits, { connections: 50, frame: 2 * 1024 * 1024, highWater: 131_072 });
  assert.deepEqual(a?.timeouts, { idle: 90_000 }, "drain, hang and prove are the server's");
  assert.deepEqual(b?.service, { kind: "module", path: join(folder, "game.js"), given: "./game.js" });
  assert.deepEqual(b?.limits, { connections: 100, frame: 4096, highWater: 131_072 });
  assert.deepEqual(b?.timeouts, { idle: "off" });
  assert.deepEqual(b?.socket, { ...DEFAULT_SOCKET, keepAlive: "off", backlog: 10, noDelay: false });
  assert.deepEqual(JSON.parse(JSON.stringify(config)), config, "survives the way to a worker");
});

test("precedence: top level, listener, environment, flags", (t) => {
  const yaml = `
workers: 2
log: { level: warn }
timeouts: { idle: 1s, frame: 1s, firstByte: 1s }
listeners:
${listener}, timeouts: { frame: 2s, firstByte: 2s } }
`;
  const env = { HEADRACE_WORKERS: "4", HEADRACE_LOG_LEVEL: "error", HEADRACE_TIMEOUTS_FIRST_BYTE: "3s" };
  const config = load(t, { yaml, env, flags: { workers: "8" } });
  assert.equal(config.workers, 8);
  assert.equal(config.logLevel, "error");
  assert.deepEqual(config.listeners[0]?.timeouts, { idle: 1_000, frame: 2_000, firstByte: 3_000 });
});

test("HEADRACE_LIMITS_CONNECTIONS is the server's total and leaves a listener's own cap alone", (t) => {
  const yaml = `limits: { connections: 50 }\nlisteners:\n${listener}, limits: { connections: 20 } }\n${listener.replace("7000", "7001")} }\n`;
  const config = load(t, { yaml, env: { HEADRACE_LIMITS_CONNECTIONS: "70" } });
  assert.equal(config.connections, 70);
  assert.deepEqual(
    config.listeners.map(({ limits }) => limits.connections),
    [20, 70],
  );
});

test("an empty variable counts as not set; others than HEADRACE_ are not looked at", (t) => {
  const config = load(t, { env: { HEADRACE_LOG_LEVEL: "", HEADRACE_CONFIG: "", HEADRACES: "x", PATH: "/bin" } });
  assert.equal(config.logLevel, "info");
});

test("--listen replaces the file's listeners, and keeps the file's other options", (t) => {
  const yaml = `timeouts: { idle: 5s }\nlisteners:\n${listener}, timeouts: { frame: 1s } }\n`;
  const { listeners } = load(t, { yaml, flags: { listen: ["0.0.0.0:1", "[::1]:0"] } });
  assert.deepEqual(
    listeners.map(({ name, addressText }) => `${name} ${addressText}`),
    ["echo-line 0.0.0.0:1", "echo-line-2 [::1]:0"],
  );
  assert.deepEqual(listeners[0]?.timeouts, { idle: 5_000 });
});

test("a service on the command line replaces the file's listeners, on 127.0.0.1:9000 unless --listen says where", (t) => {
  const yaml = `listeners:\n${listener} }\n`;
  const folder = makeFolder(t);
  const alone = load(t, { yaml, flags: { service: "hash-line" } }).listeners;
  assert.deepEqual(
    alone.map(({ addressText, service }) => [addressText, service]),
    [["127.0.0.1:9000", { kind: "builtin", name: "hash-line" }]],
  );
  const both = load(t, { flags: { service: "game.mjs", listen: ["127.0.0.1:5"] } }, folder).listeners;
  assert.deepEqual(
    both.map(({ addressText, service }) => [addressText, service]),
    [["127.0.0.1:5", { kind: "module", path: join(folder, "game.mjs"), given: "game.mjs" }]],
  );
});

test("paths in a file start at its folder, those of variables and flags at the working directory", (t) => {
  const folder = makeFolder(t);
  mkdirSync(join(folder, "etc"));
  writeFileSync(
    join(folder, "etc/a.yaml"),
    "control: c.sock\nlisteners: [{ address: ':0', service: ./x.js }]".replace(":0", "127.0.0.1:0"),
  );
  const fromFile = load(t, { file: "etc/a.yaml" }, folder);
  assert.equal(fromFile.control, join(folder, "etc/c.sock"));
  assert.equal(fromFile.source, "etc/a.yaml");
  const [first] = fromFile.listeners;
  assert.ok(first?.service.kind === "module");
  assert.equal(first.service.path, join(folder, "etc/x.js"));
  const env = { HEADRACE_CONFIG: "etc/a.yaml", HEADRACE_CONTROL: "v.sock" };
  assert.equal(load(t, { env }, folder).control, join(folder, "v.sock"));
  assert.equal(load(t, { env, flags: { control: "/run/f.sock" } }, folder).control, "/run/f.sock");
});

test("--config goes before HEADRACE_CONFIG, and that before headrace.yaml", (t) => {
  const folder = makeFolder(t);
  for (const name of ["flag", "variable"]) writeFileSync(join(folder, name), "workers: 1");
  const env = { HEADRACE_CONFIG: "variable" };
  assert.equal(load(t, { yaml: "workers: 2", env, file: "flag" }, folder).source, "flag");
  assert.equal(load(t, { env }, folder).source, "variable");
  assert.equal(load(t, {}, folder).source, "headrace.yaml");
});

test("names: given ones stay, the others come from the service and avoid them", (t) => {
  const services = ["./dist/game.js", "./other/game.ts", "echo-raw", "./_x y.js", "./…"];
  const lines = services.map((service, i) => `  - { address: "127.0.0.1:${7000 + i}", service: "${service}" }`);
  const yaml = `listeners:\n${lines.join("\n")}\n${listener.replace("7000", "8000")}, name: game-2 }\n`;
  const names = load(t, { yaml }).listeners.map(({ name }) => name);
  assert.deepEqual(names, ["game", "game-3", "echo-raw", "x-y", "listener", "game-2"]);
});

test("addresses may share a port when they do not overlap, and port 0 with anyone", (t) => {
  const addresses = ["127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:2"];
  const lines = addresses.map((address) => `  - { address: "${address}", service: echo-line }`);
  const yaml = `listeners:\n${lines.join("\n")}\n  - { address: "[::]:2", service: echo-line, socket: { ipv6Only: true } }\n`;
  assert.equal(load(t, { yaml }).listeners.length, 8);
});

test("the values at the edges of their ranges are taken", (t) => {
  const yaml = `
workers: 256
limits: { connections: 1000000, frame: 1GiB, lowWater: 1, highWater: 2, buffered: 2, inFlight: 1 }
timeouts: { firstByte: 1ms, idle: 576h, drain: 1ms }
socket: { keepAlive: 32767s, keepAliveCount: 127, linger: 1s, fastOpen: 65535 }
`;
  const config = load(t, { yaml });
  assert.equal(config.workers, 256);
  assert.equal(config.listeners[0]?.limits.frame, 1024 ** 3);
  assert.equal(config.listeners[0]?.socket.keepAlive, 32_767_000);
});
