/** Connections between two workers: nothing lost, repeated or reordered, and everything about them goes along. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { line } from "#src/codec/line.js";
import { defineService } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";
import { move } from "./moving.js";

test("a connection goes on in the other worker with its state, and back", async (t) => {
  const service = defineService({
    codec: line(),
    state: () => ({ lines: 0 }),
    onMessage: (text, { connection }) => `${++connection.state.lines} ${text}`,
  });
  const a = await openServing(t, service);
  const b = await openServing(t, service, { beside: a });
  const peer = await openPeer(t, a.port);
  peer.write("one\nhal");
  await peer.receives(6);
  assert.deepEqual(await move(a, b), { moved: 1, kept: 0, cut: false, arrived: 1 });
  peer.write("f\n");
  await peer.receives(13);
  assert.deepEqual(await move(b, a), { moved: 1, kept: 0, cut: false, arrived: 1 });
  peer.write("three\n");
  await peer.receives(21);
  assert.equal(peer.text, "1 one\n2 half\n3 three\n");
  peer.end();
  await until("the end", () => peer.closed);
  assert.deepEqual(a.closes(), { "peer-closed": 1 });
  assert.deepEqual(b.closes(), {});
});
