import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_LIMITS, DEFAULT_SOCKET, DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import type { ListenerConfig } from "#src/config/config.js";
import { resolveSettings, type ServiceDefaults } from "#src/config/resolve.js";

function listener(given: Partial<ListenerConfig> = {}): ListenerConfig {
  return {
    name: "game",
    address: { protocol: "tcp", host: "127.0.0.1", port: 0 },
    addressText: "127.0.0.1:0",
    service: { kind: "module", path: "/srv/game.js", given: "./game.js" },
    limits: {},
    timeouts: {},
    socket: { ...DEFAULT_SOCKET },
    admission: { allow: [], deny: [] },
    ...given,
  };
}

test("defaults, then the service's own, then the configuration", () => {
  assert.deepEqual(resolveSettings(listener(), {}), { limits: DEFAULT_LIMITS, timeouts: DEFAULT_TIMEOUTS });
  const service: ServiceDefaults = { limits: { frame: 4096, inFlight: 7 }, timeouts: { firstByte: "off", idle: 5 } };
  const resolved = resolveSettings(listener({ limits: { frame: 512 }, timeouts: { idle: "off" } }), service);
  assert.deepEqual(resolved.limits, { ...DEFAULT_LIMITS, frame: 512, inFlight: 7 });
  assert.deepEqual(resolved.timeouts, { ...DEFAULT_TIMEOUTS, firstByte: "off", idle: "off" });
});

test("a service's own values are checked, and the service named", () => {
  const refused = (service: object, message: string) =>
    assert.throws(() => resolveSettings(listener(), service), { code: "service-invalid", message });
  refused({ limits: { frame: 0 } }, "service ./game.js: limits.frame: 0 is out of range; allowed: 1 to 1GiB");
  refused(
    { limits: { frame: "1MiB" } },
    'service ./game.js: limits.frame: "1MiB" is not a whole number; allowed: 1 to 1GiB',
  );
  refused(
    { timeouts: { idle: 0 } },
    "service ./game.js: timeouts.idle: 0 is not allowed: write off to disable it; allowed: 1ms to 576h or off",
  );
  refused(
    { timeouts: { idle: undefined } },
    "service ./game.js: timeouts.idle: nothing is not a whole number; allowed: 1ms to 576h or off",
  );
  refused(
    { timeouts: { idel: 5 } },
    "service ./game.js: timeouts.idel: unknown option; allowed: firstByte, frame, idle, writeStall, age, ageJitter, heartbeat, request, proxyHeader, handshake",
  );
  refused(
    { timeouts: { toString: 5 } },
    "service ./game.js: timeouts.toString: unknown option; allowed: firstByte, frame, idle, writeStall, age, ageJitter, heartbeat, request, proxyHeader, handshake",
  );
});

test("limits that do not fit together name both, and where each is from", () => {
  const refused = (config: ListenerConfig, service: ServiceDefaults, code: string, message: string) =>
    assert.throws(() => resolveSettings(config, service), { code, message });
  refused(
    listener({ limits: { highWater: 16_384 } }),
    {},
    "config-invalid",
    "listener game, service ./game.js: limits.lowWater: 32KiB (default) must be below limits.highWater, 16KiB (configured)",
  );
  refused(
    listener(),
    { limits: { highWater: 16 * 1024 * 1024 } },
    "service-invalid",
    "listener game, service ./game.js: limits.highWater: 16MiB (the service's own) must not be above limits.buffered, 8MiB (default)",
  );
});

test("a frame that the worker's memory could not hold is refused, whoever allows it", () => {
  const refused = (
    config: ListenerConfig,
    service: ServiceDefaults,
    bufferMemory: number,
    code: string,
    message: string,
  ) => assert.throws(() => resolveSettings(config, service, { bufferMemory }), { code, message });
  const MiB = 1024 ** 2;
  refused(
    listener(),
    {},
    2 * MiB,
    "config-invalid",
    "listener game, service ./game.js: limits.frame: 1MiB (default) must not be above a third of limits.bufferMemory, 2MiB",
  );
  refused(
    listener(),
    { limits: { frame: 100 * MiB } },
    256 * MiB,
    "service-invalid",
    "listener game, service ./game.js: limits.frame: 100MiB (the service's own) must not be above a third of limits.bufferMemory, 256MiB",
  );
  assert.equal(resolveSettings(listener(), {}, { bufferMemory: 3 * MiB }).limits.frame, MiB);
});

test("nothing that is passed in is changed", () => {
  const service = Object.freeze({ limits: Object.freeze({ frame: 5 }) });
  resolveSettings(Object.freeze(listener()), service).limits.frame = 1;
  assert.equal(DEFAULT_LIMITS.frame, 1024 * 1024);
});
