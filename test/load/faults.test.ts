import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { descriptorLimit } from "#src/engine/engine.js";
import { faultOf } from "#src/load/result.js";
import { addon } from "#src/os/addon.js";
import { boundPort, closeDescriptor } from "#src/os/descriptors.js";
import { packSocketOptions } from "#src/os/socket.js";
import { type Answer, echo, load, loadAgainst, startPeer } from "./peer.js";

/** Echoes, but does `other` with message 3 of the second connection. */
function once(other: Answer): Answer {
  return (socket, message, index, connection) =>
    (index === 3 && connection === 1 ? other : echo)(socket, message, index, connection);
}

describe("a server that fails is seen", { concurrency: 2 }, () => {
  test("a corrupted byte", async () => {
    const result = await loadAgainst(
      once((socket, message) => {
        const wrong = Buffer.from(message);
        wrong[20] = 0;
        socket.write(wrong);
      }),
    );
    assert.equal(result.messages.mismatched, 1);
    assert.equal(result.messages.outstanding, 0);
    const { message, offset, expected, got } = result.firstMismatch ?? assert.fail("no mismatch");
    assert.deepEqual([message, offset], [3, 20]);
    assert.equal(got.slice(0, 4), "\\x00");
    assert.equal(got.slice(4), expected.slice(1));
    assert.match(faultOf(result) ?? "", /1 wrong replies, the first on connection \d+, message 3, offset 20: expected/);
  });

  test("a reply that is dropped: the connection waits for it in vain", async () => {
    const result = await loadAgainst(once(() => {}));
    assert.equal(result.messages.outstanding, 1);
    assert.equal(result.messages.mismatched, 0);
    assert.match(faultOf(result) ?? "", /1 messages got no reply/);
  });

  test("a reply that is dropped in a pipeline: the next one is not it", async () => {
    const result = await loadAgainst(
      once(() => {}),
      { pipeline: 4 },
    );
    assert.equal(result.messages.mismatched, 1);
    assert.equal(result.firstMismatch?.message, 3);
  });

  test("a reply that is repeated", async () => {
    const result = await loadAgainst(once((socket, message) => socket.write(Buffer.concat([message, message]))));
    assert.equal(result.messages.mismatched, 1);
  });

  test("a reply too many, when nothing is due", async () => {
    const twice: Answer = (socket, message) => socket.write(Buffer.concat([message, message]));
    const result = await loadAgainst(twice, { mode: "hold", connections: 3 });
    assert.equal(result.messages.mismatched, 3);
    assert.equal(result.messages.verified, 3);
    assert.match(faultOf(result) ?? "", /nothing was due, got/);
  });

  test("another connection's reply", async () => {
    const peer = await startPeer(64, (_socket, message, index) => {
      const others = [...peer.sockets];
      others[index === 5 ? 0 : others.indexOf(_socket)]?.write(message);
    });
    const result = await load(peer.port, { connections: 2 });
    await peer.close();
    assert.equal(result.messages.mismatched, 1);
  });

  test("a reset", async () => {
    const result = await loadAgainst(once((socket) => socket.resetAndDestroy()));
    assert.deepEqual(result.connections.resets, { ECONNRESET: 1 });
    assert.equal(result.messages.outstanding, 1);
    assert.match(faultOf(result) ?? "", /connections were reset \(1 ECONNRESET\)/);
  });

  test("a close before the reply", async () => {
    const result = await loadAgainst(once((socket) => socket.end()));
    assert.equal(result.connections.closedByPeer, 1);
    assert.equal(result.messages.outstanding, 1);
    assert.deepEqual(result.connections.resets, {});
  });

  test("a refusal: no window, no events", async () => {
    const peer = await startPeer(64);
    await peer.close();
    const events: string[] = [];
    const result = await load(peer.port, { connections: 3 }, { onEvent: (event) => events.push(event) });
    assert.deepEqual(result.connections.failed, { ECONNREFUSED: 3 });
    assert.equal(result.connections.opened, 0);
    assert.deepEqual(events, []);
    assert.match(faultOf(result) ?? "", /3 of 3 connections failed \(3 ECONNREFUSED\)/);
  });

  test("a refusal of a churn does not spin", async () => {
    const peer = await startPeer(64);
    await peer.close();
    const result = await load(peer.port, { mode: "churn", connections: 2 });
    const failed = result.connections.failed.ECONNREFUSED ?? 0;
    assert(failed >= 2 && failed < 50, `${failed} attempts in 300 ms`);
    assert.equal(result.connections.requested, failed);
  });

  test("silence: the run ends, and says how many replies never came", async () => {
    const startedAt = performance.now();
    const result = await loadAgainst(() => {}, { connections: 3 });
    assert.equal(result.messages.outstanding, 3);
    assert.equal(result.messages.received, 0);
    assert.equal(result.latencyMs, null);
    assert(performance.now() - startedAt < 10_000);
  });

  test("silence in a churn: each connection is given up in time, and followed by another", async () => {
    const options = { mode: "churn", connections: 3, timeoutMs: 100, durationMs: 800 } as const;
    const result = await loadAgainst(() => {}, options);
    assert(result.messages.outstanding >= 6 && result.messages.outstanding <= 24, `${result.messages.outstanding}`);
    assert.equal(result.messages.outstanding, result.connections.opened);
    assert.deepEqual(result.connections.failed, {});
  });

  test("a listener whose queue is full: connects time out", async () => {
    const options = packSocketOptions({ ...DEFAULT_SOCKET, backlog: 0 });
    const fd = addon().socketListen("127.0.0.1", 0, true, options);
    const result = await load(boundPort(fd), { connections: 6, timeoutMs: 300 });
    closeDescriptor(fd);
    // A backlog of n holds n + 1 connections (tcp(7)).
    assert.deepEqual(result.connections.failed, { ETIMEDOUT: 5 });
    assert.equal(result.connections.opened, 1);
  });

  test("when nobody is let in, the connects not yet begun are given up too", async () => {
    const options = packSocketOptions({ ...DEFAULT_SOCKET, backlog: 0 });
    const fd = addon().socketListen("127.0.0.1", 0, true, options);
    const startedAt = performance.now();
    const result = await load(boundPort(fd), { connections: 2_000, timeoutMs: 500 });
    closeDescriptor(fd);
    assert.deepEqual(result.connections.failed, { ETIMEDOUT: 1_999 });
    assert.equal(result.connections.requested, 2_000);
    assert(performance.now() - startedAt < 10_000);
  });

  test("fewer descriptors than connections are a usage error, before anything is opened", async () => {
    const connections = descriptorLimit() + 1;
    await assert.rejects(load(1, { connections }), (error) => {
      assert(error instanceof HeadraceError);
      assert.equal(error.code, "usage");
      assert.match(error.message, /the limit is \d+; use --processes 2/);
      return true;
    });
  });
});
