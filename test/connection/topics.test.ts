/** Topics on one connection, without a socket: who hears what, and what becomes of a subscriber that reads slowly. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { Topics } from "#src/connection/topics.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { defineService, type TopicOptions } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

/** "+topic", "-topic", or "topic message" to publish. */
function room(topics: TopicOptions = {}) {
  const service = defineService({
    codec: line(),
    topics,
    timeouts: { firstByte: "off", idle: "off", writeStall: "off" },
    limits: { highWater: 100, lowWater: 50, buffered: 10_000 },
    onMessage(text, { connection }) {
      if (text.startsWith("+")) connection.subscribe(text.slice(1));
      else if (text.startsWith("-")) connection.unsubscribe(text.slice(1));
      else connection.publish(text.split(" ", 1)[0] ?? "", text);
    },
  });
  return testConnection(service);
}

test("a subscriber gets what is published to its topics, by itself or others, until it unsubscribes", () => {
  const harness = room();
  harness.publish("a", "too early");
  harness.push("+a\n+a\n+b\na one\nc other\n");
  harness.publish("b", "two");
  harness.push("-a\na three\nb four\n-c\n");
  assert.equal(harness.sent().toString(), "a one\ntwo\nb four\n");
  harness.connection.close();
  harness.publish("b", "late");
  assert.equal(harness.sent().length, 0);
});

const LONG = "x".repeat(120);
const LARGE = "x".repeat(30_000);

test("a slow one keeps its place: the oldest that wait are dropped, what it gets is whole and in order", () => {
  const harness = room({ queued: 3 });
  harness.push("+a\n");
  harness.stallWrites();
  harness.publish("a", LONG);
  for (const text of ["1", "2", "3", "4", "5"]) harness.publish("a", text);
  assert.equal(harness.readsPaused, false, "it may speak until something of it is there");
  harness.resumeWrites();
  assert.equal(harness.sent().toString(), `${LONG}\n3\n4\n5\n`);
  harness.publish("a", "6");
  assert.equal(harness.sent().toString(), "6\n");
});

test("close: one that as many wait for is reset", () => {
  const harness = room({ queued: 3, whenFull: "close" });
  harness.push("+a\n");
  harness.stallWrites();
  harness.publish("a", LONG);
  for (const text of ["1", "2", "3"]) harness.publish("a", text);
  assert.equal(harness.closed, undefined);
  harness.publish("a", "4");
  assert.equal(harness.closed, "slow-consumer");
  harness.publish("a", "5");
});

test("subscriptions move with the connection, and so does what waits", () => {
  const before = room({ queued: 10 });
  before.push("+a\n+b\n-b\n");
  before.stallWrites();
  before.publish("a", LONG);
  before.publish("a", "waits");
  const after = before.moved();
  after.publish("a", "there");
  after.publish("b", "no");
  after.resumeWrites();
  assert.equal(after.sent().toString(), `${LONG}\nwaits\nthere\n`);
});

test("a name that is none, one topic too many, and a message that is too large are refused", () => {
  const { connection } = room();
  for (const name of ["", "ä".repeat(128), 5 as never]) {
    assert.throws(() => connection.subscribe(name), /not a topic's name/);
    assert.throws(() => connection.publish(name, "x"), /not a topic's name/);
  }
  for (let i = 0; i < 1_000; i++) connection.subscribe(`topic ${i}`);
  connection.subscribe("topic 1");
  assert.throws(() => connection.subscribe("another"), /no more than 1000 topics/);
  assert.throws(() => connection.publish("a", "x".repeat(600_000)), /cannot be published/);
  assert.throws(() => connection.publish("a", "two\nlines"), /holds/);
  const define = (topics: unknown) => defineService({ codec: line(), onMessage: () => {}, topics: topics as never });
  assert.throws(() => define({ queued: 0 }), /topics\.queued.*1 to 65536/);
  assert.throws(() => define({ whenFull: "wait" }), /topics\.whenFull.*drop-oldest, close/);
  assert.throws(() => define({ queue: 1 }), /topics\.queue: unknown/);
});

test("what a handler publishes while a message is delivered comes after it, for everybody", async (t) => {
  const service = defineService({
    codec: line(),
    name: "nested",
    timeouts: { firstByte: "off" },
    topics: { queued: 1, whenFull: "close" },
    onOpen: (connection) => connection.subscribe("room"),
    onMessage: (text, { connection }) => connection.publish("room", text + LARGE),
    // The slow one's: while those behind it have not heard what it was too slow for.
    onClose: (connection) => connection.publish("room", "left"),
  });
  const serving = await openServing(t, service, { socket: { sendBuffer: 4_096 } });
  const slow = await openPeer(t, serving.port, { paused: true });
  await until("the slow one is first", () => serving.server.engine.open === 1);
  const listener = await openPeer(t, serving.port);
  await until("then the listener", () => serving.server.engine.open === 2);
  const speaker = await openPeer(t, serving.port);
  for (let number = 0; number < 500 && !listener.text.includes("left"); number++) {
    speaker.write(`m${number}\n`);
    await until("it is heard", () => listener.text.includes(`m${number}x`));
  }
  await until("it has left", () => listener.text.endsWith("left\n"));
  for (const { text } of [listener, speaker]) {
    const heard = text
      .trimEnd()
      .split("\n")
      .map((each) => each.replace(/x+$/, ""));
    assert.deepEqual(
      heard,
      heard.map((_, at) => (at < heard.length - 1 ? `m${at}` : "left")),
    );
  }
  assert.deepEqual(serving.closes(), { "slow-consumer": 1 });
  slow.socket.destroy();
});

test("a message that waits takes no more memory than is counted for it", () => {
  const service = defineService({ codec: line(), onMessage: () => {} });
  const head = new Float64Array(WORKER_FIELDS.length);
  const topics = new Topics({ flush() {}, hold() {}, head, log: pino({ level: "silent" }) });
  let got: Buffer | undefined;
  topics.subscribe(Topics.keyOf(service, "a"), {
    deliver(message) {
      got = message;
    },
  });
  topics.publish(service, "a", LARGE, 1 << 20);
  assert.equal(got?.length, LARGE.length + 1);
  assert.equal(got?.buffer.byteLength, got?.length, "not what the codec might have needed");
});
