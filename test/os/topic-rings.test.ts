/** Messages between workers: whole, in order, never waited for; whoever is too slow knows that something is missing. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { closeDescriptor } from "#src/os/descriptors.js";
import {
  createTopicMemory,
  isTopicMemory,
  TOPIC_MESSAGE_MAX,
  type TopicReader,
  TopicRings,
} from "#src/os/topic-rings.js";
import { until } from "../support/until.js";

function openMemory(t: TestContext): number {
  const fd = createTopicMemory();
  t.after(() => closeDescriptor(fd));
  return fd;
}

type Heard = [topic: string, text: string][];

function readAll(rings: TopicRings, most = Number.POSITIVE_INFINITY): Heard {
  const heard: Heard = [];
  rings.read((topic, payload) => heard.push([topic, payload.toString()]), most);
  return heard;
}

const write = (rings: TopicRings, topic: string, text: string): void =>
  rings.write(Buffer.from(topic), Buffer.from(text));

test("what several write all others read, in each one's order, and nobody what is their own", (t) => {
  const fd = openMemory(t);
  assert.ok(isTopicMemory(fd));
  const [a, b, c] = [0, 5, 639].map((column) => new TopicRings(fd, column)) as [TopicRings, TopicRings, TopicRings];
  write(a, "x", "1");
  write(c, "ß", "ä");
  write(a, "x", "");
  assert.deepEqual(readAll(b), [
    ["x", "1"],
    ["x", ""],
    ["ß", "ä"],
  ]);
  assert.deepEqual(readAll(b), []);
  assert.deepEqual(readAll(a), [["ß", "ä"]]);
  assert.equal(readAll(c).length, 2);
  const late = new TopicRings(fd, 7);
  write(b, "y", "2");
  assert.deepEqual(readAll(late), [["y", "2"]], "what was before it is not heard");
  assert.deepEqual(readAll(a, 0), []);
  assert.deepEqual(readAll(a), [["y", "2"]]);
});

test("messages of any size, read at any time: in order, whole, and a loss is noticed", (t) => {
  const fd = openMemory(t);
  let column = 0;
  const size = fc.oneof(
    { weight: 6, arbitrary: fc.nat(300) },
    { weight: 2, arbitrary: fc.nat(100_000) },
    { weight: 3, arbitrary: fc.integer({ min: TOPIC_MESSAGE_MAX - 2_000, max: TOPIC_MESSAGE_MAX - 10 }) },
  );
  let losses = 0;
  fc.assert(
    fc.property(
      fc.array(fc.record({ size, read: fc.nat(12).map((lot) => lot === 0) }), {
        minLength: 10,
        maxLength: 80,
        size: "max",
      }),
      (steps) => {
        const writer = new TopicRings(fd, column++ % 600);
        const reader = new TopicRings(fd, 601);
        let [written, heard] = [0, 0];
        const listen = (): void => {
          let lost = reader.lost;
          const hear: TopicReader = (topic, payload) => {
            const number = payload.readUInt32LE();
            if (reader.lost === lost) assert.equal(number, heard, "nothing is missing");
            else losses += 1;
            lost = reader.lost;
            assert.ok(number >= heard && topic === `topic ${number}`);
            assert.ok(payload.subarray(4).every((byte) => byte === (number & 0xff)));
            heard = number + 1;
          };
          while (reader.read(hear, 1_000)) {}
          assert.equal(heard, written, "the last one is heard");
        };
        for (const { size: bytes, read } of steps) {
          const payload = Buffer.alloc(4 + Math.max(0, bytes - 20), written & 0xff);
          payload.writeUInt32LE(written);
          writer.write(Buffer.from(`topic ${written}`), payload);
          written += 1;
          if (read) listen();
        }
        listen();
      },
    ),
    { numRuns: 100 },
  );
  assert.ok(losses > 10, `${losses} losses`);
});

/** Writes as fast as it can, for a while, ringing for every tenth. */
const WRITER = `
import { TopicRings } from ${JSON.stringify(import.meta.resolve("#src/os/topic-rings.js"))};
const rings = new TopicRings(3, 1);
const until = Date.now() + 1500;
let number = 0;
while (Date.now() < until) {
  for (let i = 0; i < 10; i++) {
    const payload = Buffer.alloc(8 + (number % 7_000), number & 0xff);
    payload.writeDoubleLE(number++);
    rings.write(Buffer.from("t"), payload);
  }
  rings.ring();
}
process.stdout.write(String(number));
`;

test("a writer in another process that is faster than the reader: no message is torn, the last one is heard", async (t) => {
  const fd = openMemory(t);
  const reader = new TopicRings(fd, 0);
  let last = -1;
  let heard = 0;
  let rung = 0;
  const read = (): boolean =>
    reader.read((topic, payload) => {
      const number = payload.readDoubleLE();
      assert.ok(topic === "t" && number > last, `${number} after ${last}`);
      assert.equal(payload.length, 8 + (number % 7_000));
      assert.ok(
        payload.subarray(8).every((byte) => byte === (number & 0xff)),
        `message ${number} is torn`,
      );
      last = number;
      heard += 1;
    }, Number.POSITIVE_INFINITY);
  const reading = (): void => {
    if (read()) setImmediate(reading);
  };
  reader.listen(() => {
    rung += 1;
    reading();
  });
  const writer = spawn(process.execPath, ["--input-type=module", "-e", WRITER], {
    stdio: ["ignore", "pipe", "inherit", fd],
  });
  let out = "";
  writer.stdout?.on("data", (text) => {
    out += text;
  });
  await once(writer, "close");
  const written = Number(out);
  await until("the last one", () => last === written - 1);
  t.diagnostic(`${written} written, ${heard} heard, ${rung} rings`);
  assert.ok(heard > 100 && rung > 10);
});

test("a bell wakes within milliseconds, again and again", async (t) => {
  const fd = openMemory(t);
  const [reader, writer] = [new TopicRings(fd, 0), new TopicRings(fd, 1)];
  let heard: Heard = [];
  reader.listen(() => {
    heard = heard.concat(readAll(reader));
  });
  const waits: number[] = [];
  for (let count = 1; count <= 50; count++) {
    const began = performance.now();
    write(writer, "t", String(count));
    writer.ring();
    while (heard.length < count) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      assert.ok(performance.now() - began < 2_000, `message ${count} was not heard`);
    }
    waits.push(performance.now() - began);
  }
  const median = waits.sort((a, b) => a - b)[25] as number;
  t.diagnostic(`median ${median.toFixed(2)} ms`);
  assert.ok(median < 20, `${median} ms`);
});
