/** The write-stall deadline counts from the first byte that the kernel refused, never from the message before. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import type { CloseReason } from "#src/base/reasons.js";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import { line } from "#src/codec/line.js";
import { BufferMemory } from "#src/connection/buffer-memory.js";
import { ServedConnection } from "#src/connection/connection.js";
import { Endpoint } from "#src/connection/endpoint.js";
import { Gate } from "#src/connection/gate.js";
import { Timing } from "#src/connection/timing.js";
import { Topics } from "#src/connection/topics.js";
import { Wheel } from "#src/connection/wheel.js";
import { boundPort } from "#src/os/descriptors.js";
import { HEAD_CELLS, ROW_CELLS } from "#src/os/scoreboard.js";
import { defineService } from "#src/service/define.js";
import { openEngine, openListener } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

test("a message sent after a silence by a timer of the same turn in which the deadlines are looked at", async (t) => {
  const engine = openEngine(t);
  const fd = openListener(t);
  const log = pino({ level: "silent" });
  let reason: CloseReason | undefined;
  const service = defineService({
    codec: line(),
    onMessage: () => {},
    onClose(_connection, why) {
      reason = why;
    },
  });
  let connection: ServedConnection<unknown, unknown> | undefined;
  let looked = 0;
  const wheel = new Wheel(engine.now, (_slot, now) => {
    looked += 1;
    return connection?.onDue(now) ?? Number.POSITIVE_INFINITY;
  });
  const writeStall = 200;
  const endpoint = new Endpoint({
    listener: "test",
    key: "test",
    index: 0,
    service,
    env: undefined,
    transport: engine,
    wheel,
    alarm: wheel,
    timing: new Timing(engine.laps),
    topics: new Topics({ flush() {}, hold() {}, head: new Float64Array(HEAD_CELLS), log }),
    memory: new BufferMemory({
      transport: engine,
      budget: 1 << 20,
      head: new Float64Array(HEAD_CELLS),
      log,
      holders: () => [],
    }),
    limits: DEFAULT_LIMITS,
    timeouts: { ...DEFAULT_TIMEOUTS, firstByte: "off", frame: "off", idle: 100, writeStall },
    drainMs: 1_000,
    coalesce: true,
    row: new Float64Array(ROW_CELLS),
    log,
    idPrefix: "test",
    gate: new Gate(),
    poison: false,
  });
  // What a user's timer does in the turn of the tick, before it: the bytes leave when the turn ends.
  let sent = 0;
  let last = engine.now;
  engine.onTick(() => {
    if (engine.now - last <= writeStall + 50) return;
    last = engine.now;
    sent += 1;
    connection?.send("news");
  });
  engine.onTick(() => wheel.advance(engine.now));
  engine.listen(0, 0, fd, {
    onAccept(slot, generation) {
      connection = new ServedConnection(endpoint, slot, generation);
      return connection;
    },
    onAcceptError() {},
  });
  const peer = await openPeer(t, boundPort(fd));
  const noise = setInterval(() => peer.write("keeps the idle deadline away\n"), 15);
  t.after(() => clearInterval(noise));
  await until("some news", () => sent >= 12 || reason);
  assert.equal(reason, undefined);
  assert.ok(looked > 5);
});
