import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { describe, test } from "node:test";
import { decodeFromCompressedBase64 } from "hdr-histogram-js";
import { LOAD_CODECS, type LoadCodec } from "#src/load/options.js";
import { faultOf } from "#src/load/result.js";
import { type Answer, echo, load, loadAgainst, startPeer } from "./peer.js";

const HEADERS: Readonly<Partial<Record<LoadCodec, number>>> = { frame: 4, rpc: 16 };

/** Of a request, a reply of status ok. */
const replying: Answer = (socket, message, ...rest) => {
  const reply = Buffer.from(message);
  reply[4] = 2;
  echo(socket, reply, ...rest);
};

describe("an echo is verified", { concurrency: 4 }, () => {
  for (const codec of LOAD_CODECS) {
    for (const sizeBytes of [5, 64, 100_000]) {
      test(`${codec}, ${sizeBytes} bytes`, async () => {
        const peer = await startPeer(sizeBytes + (HEADERS[codec] ?? 0), codec === "rpc" ? replying : echo);
        const result = await load(peer.port, { codec, sizeBytes, pipeline: 3 });
        await peer.close();
        assert.equal(faultOf(result), undefined);
        assert.deepEqual(result.connections, { requested: 4, opened: 4, failed: {}, resets: {}, closedByPeer: 0 });
        assert(result.messages.received > 0);
        assert.equal(result.messages.verified, result.messages.received);
        assert.equal(result.messages.outstanding, 0);
      });
    }
  }

  test("replies that come byte by byte", async () => {
    const dribble = async (socket: Socket, message: Buffer): Promise<void> => {
      for (const byte of message) {
        socket.write(Buffer.of(byte));
        await new Promise(setImmediate);
      }
    };
    const result = await loadAgainst((socket, message) => void dribble(socket, Buffer.from(message)), {
      sizeBytes: 16,
      connections: 2,
    });
    assert.equal(faultOf(result), undefined);
    assert(result.messages.verified > 0);
  });

  test("in several processes, as one result", async () => {
    const peer = await startPeer(64);
    const result = await load(peer.port, { connections: 5, processes: 2 });
    await peer.close();
    assert.equal(faultOf(result), undefined);
    assert.equal(peer.accepted, 5);
    assert.equal(result.connections.opened, 5);
    const histogram = decodeFromCompressedBase64(result.histogram ?? "", 64);
    assert.equal(histogram.totalCount, result.messages.received);
    assert(result.latencyMs && result.latencyMs.p50 <= result.latencyMs.max);
  });

  test("a flood", async () => {
    const result = await loadAgainst((socket, message) => void socket.write(message), {
      mode: "flood",
      sizeBytes: 1_000,
      connections: 2,
    });
    assert.equal(faultOf(result), undefined);
    assert(result.messages.verified > 100);
    assert.equal(result.latencyMs, null);
  });

  test("a hold sends one message on each connection", async () => {
    const result = await loadAgainst((socket, message) => void socket.write(message), {
      mode: "hold",
      connections: 20,
    });
    assert.equal(faultOf(result), undefined);
    assert.deepEqual(result.messages, {
      sent: 20,
      received: 20,
      verified: 20,
      mismatched: 0,
      outstanding: 0,
      unsent: 0,
    });
  });

  test("a churn opens a connection for each message, and ends it as asked", async () => {
    for (const close of ["finish", "reset"] as const) {
      const peer = await startPeer(64);
      let resets = 0;
      peer.server.on("connection", (socket: Socket) => socket.on("error", () => resets++));
      const result = await load(peer.port, { mode: "churn", connections: 3, durationMs: 200, close });
      await peer.close();
      assert.equal(faultOf(result), undefined);
      assert(result.messages.verified > 3);
      assert.equal(peer.accepted, result.connections.opened);
      assert.equal(result.connections.requested, result.connections.opened);
      assert.equal(resets > 0, close === "reset");
    }
  });

  test("connections are opened at the rate asked for, from the addresses given", async () => {
    const peer = await startPeer(64);
    const from = new Map<string, number>();
    const arrivals: number[] = [];
    peer.server.on("connection", ({ remoteAddress = "" }: Socket) => {
      from.set(remoteAddress, (from.get(remoteAddress) ?? 0) + 1);
      arrivals.push(performance.now());
    });
    const sources = ["127.0.0.2", "127.0.0.3"];
    const result = await load(peer.port, { mode: "hold", connections: 50, connectsPerSecond: 100, sources });
    await peer.close();
    assert.equal(faultOf(result), undefined);
    assert.deepEqual([...from].sort(), [
      ["127.0.0.2", 25],
      ["127.0.0.3", 25],
    ]);
    const ms = (arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0);
    assert(ms > 400 && ms < 2_000, `${ms} ms for 49 connections at 100/s`);
  });
});
