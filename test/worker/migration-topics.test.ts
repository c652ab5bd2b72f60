/** What waits for slow subscribers moves with them, once for all of them, and to nobody's cost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { line } from "#src/codec/line.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { defineService } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing, type Serving } from "../support/serving.js";
import { until } from "../support/until.js";
import { breakOff, move } from "./moving.js";

const HELD_IN = WORKER_FIELDS.indexOf("bytesHeldIn");
const MESSAGES = 200;
const QUEUED = 64;
const PAD = "x".repeat(30_000);

const service = defineService({
  codec: line(),
  name: "feed",
  timeouts: { firstByte: "off", idle: "off", writeStall: "60s" },
  topics: { queued: QUEUED },
  onMessage: (text, { connection }) => {
    if (text === "+") connection.subscribe("feed");
    else for (let number = 0; number < MESSAGES; number++) connection.publish("feed", `${number} ${PAD}`);
    return "done";
  },
});

const held = ({ server }: Serving): number => server.block.head[HELD_IN] as number;
const shared = QUEUED * (PAD.length + 5);

for (const there of [true, false]) {
  test(`40 slow subscribers move${there ? "" : ", to a worker that dies"}: what they share stays shared, nobody is closed`, async (t) => {
    const options = { socket: { sendBuffer: 16_384 }, bufferMemory: 16 << 20 };
    const from = await openServing(t, service, options);
    const to = await openServing(t, service, { ...options, beside: from });
    const slow = await Promise.all(Array.from({ length: 40 }, () => openPeer(t, from.port)));
    for (const peer of slow) peer.write("+\n");
    for (const peer of slow) await peer.receives("done\n".length);
    for (const { socket } of slow) socket.pause();
    const speaker = await openPeer(t, from.port);
    speaker.write("go\n");
    await speaker.receives("done\n".length);
    await until("all wait", () => held(from) >= shared * 0.9);
    assert.ok(held(from) <= shared * 1.1, `${held(from)} bytes`);
    if (there) {
      const { moved } = await move(from, to);
      assert.equal(moved, 41);
      assert.ok(held(to) >= shared * 0.9 && held(to) <= shared * 1.1, `${held(to)} bytes there`);
      assert.equal(held(from), 0);
    } else {
      const { kept } = await breakOff(from, { after: 2, withinMs: 500 });
      assert.equal(kept, 41);
      assert.ok(held(from) >= shared * 0.9 && held(from) <= shared * 1.1, `${held(from)} bytes`);
    }
    for (const { socket } of slow) socket.resume();
    for (const peer of slow) {
      await until("the last message", () => peer.text.endsWith(`${MESSAGES - 1} ${PAD}\n`));
      const numbers = peer.text
        .trimEnd()
        .split("\n")
        .slice(1)
        .map((text) => {
          assert.equal(text.length, PAD.length + 1 + text.indexOf(" "));
          return Number.parseInt(text, 10);
        });
      assert.deepEqual(
        numbers.slice(-QUEUED),
        Array.from({ length: QUEUED }, (_, at) => MESSAGES - QUEUED + at),
      );
      assert.ok(
        numbers.every((number, at) => at === 0 || number > (numbers[at - 1] ?? 0)),
        `${numbers}`,
      );
    }
    assert.deepEqual([held(from), held(to)], [0, 0]);
    assert.deepEqual([from.closes(), to.closes()], [{}, {}]);
  });
}
