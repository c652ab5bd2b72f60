/** Messages between workers: whole, in order, never waited for; whoever is too slow knows that something is missing. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { addon } from "#src/os/addon.js";
import { closeDescriptor } from "#src/os/descriptors.js";
import {
  createTopicMemory,
  isTopicMemory,
  TOPIC_MESSAGE_MAX,
  type TopicReader,
  TopicRings,
  type TurnLimit,
} from "#src/os/topic-rings.js";
import { until } from "../support/until.js";

function openMemory(t: TestContext): number {
  const fd = createTopicMemory();
  t.after(() => closeDescriptor(fd));
  return fd;
}

type Heard = [topic: string, text: string][];

const EVERYTHING: TurnLimit = { messages: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY };

/** Wants every topic. */
const hearing = (hear: TopicReader["hear"]): TopicReader => ({ wants: () => true, hear });

function readAll(rings: TopicRings, limit: Partial<TurnLimit> = {}): Heard {
  const heard: Heard = [];
  const reader = hearing((topic, payload) => heard.push([topic, payload.toString()]));
  rings.read(reader, { ...EVERYTHING, ...limit });
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
  assert.deepEqual(readAll(a, { messages: 0 }), []);
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
          const reading = hearing((topic, payload) => {
            const number = payload.readUInt32LE();
            if (reader.lost === lost) assert.equal(number, heard, "nothing is missing");
            else losses += 1;
            lost = reader.lost;
            assert.ok(number >= heard && topic === `topic ${number}`);
            assert.ok(payload.subarray(4).every((byte) => byte === (number & 0xff)));
            heard = number + 1;
          });
          while (reader.read(reading, { ...EVERYTHING, messages: 1_000 })) {}
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
    reader.read(
      hearing((topic, payload) => {
        const number = payload.readDoubleLE();
        assert.ok(topic === "t" && number > last, `${number} after ${last}`);
        assert.equal(payload.length, 8 + (number % 7_000));
        assert.ok(
          payload.subarray(8).every((byte) => byte === (number & 0xff)),
          `message ${number} is torn`,
        );
        last = number;
        heard += 1;
      }),
      EVERYTHING,
    );
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

test("one that writes more than a turn takes holds up nobody else; what nobody wants is not copied", (t) => {
  const fd = openMemory(t);
  const [loud, quiet, reader] = [0, 1, 2].map((column) => new TopicRings(fd, column)) as [
    TopicRings,
    TopicRings,
    TopicRings,
  ];
  const heard: string[] = [];
  const reading: TopicReader = { wants: (topic) => topic !== "unwanted", hear: (topic) => heard.push(topic) };
  for (let turn = 0; turn < 3; turn++) {
    for (let count = 0; count < 300; count++) write(loud, "loud", "m");
    write(quiet, "quiet", "m");
    write(quiet, "unwanted", "m");
    assert.equal(reader.read(reading, { ...EVERYTHING, messages: 256 }), true);
  }
  assert.ok(heard.filter((topic) => topic === "quiet").length >= 1, `${heard.length} heard`);
  while (reader.read(reading, EVERYTHING)) {}
  assert.deepEqual([heard.length, heard.filter((topic) => topic === "quiet").length, reader.lost], [903, 3, 0]);
  for (let count = 0; count < 100; count++) write(loud, "loud", "m");
  const slow = hearing(() => {
    for (const until = performance.now() + 2; performance.now() < until; );
  });
  const began = performance.now();
  assert.equal(reader.read(slow, { ...EVERYTHING, ms: 10 }), true, "a turn is bounded in time too");
  assert.ok(performance.now() - began < 150);
});

/** Where the header has `written` and `reserved` of column 1. */
const [WRITTEN, RESERVED] = [10, 11] as const;

test("a writer that dies while it writes costs its readers nothing; who has its column next makes it good", (t) => {
  const fd = openMemory(t);
  const header = new Int32Array(addon().memoryMap(fd, 65_536, 0));
  const reader = new TopicRings(fd, 0);
  const writer = new TopicRings(fd, 1);
  const large = "x".repeat(200_000);
  // A ring holds five; the sixth would overwrite the first, and its writer dies over it.
  for (let count = 0; count < 5; count++) write(writer, "t", large);
  Atomics.add(header, RESERVED, 25_002 + (1 << 17) - (Atomics.load(header, WRITTEN) % (1 << 17)));
  for (let turn = 0; turn < 100; turn++) {
    assert.equal(
      reader.read(
        hearing(() => assert.fail("what is being overwritten")),
        EVERYTHING,
      ),
      false,
      "another turn would bring nothing",
    );
  }
  assert.equal(reader.lost, 0, "none is gone for good");
  const next = new TopicRings(fd, 1);
  write(next, "t", "small");
  assert.deepEqual(readAll(reader), [["t", "small"]].slice(1), "first it is noticed");
  assert.deepEqual(readAll(reader), [["t", "small"]]);
  assert.equal(reader.lost, 1);
});

/** Writes large messages until it is killed. */
const ENDLESS = `
import { TopicRings } from ${JSON.stringify(import.meta.resolve("#src/os/topic-rings.js"))};
const rings = new TopicRings(3, 1);
const payload = Buffer.alloc(250_000, process.argv[1]);
process.stdout.write("writes");
for (;;) rings.write(Buffer.from("t"), payload);
`;

test("writers that are killed while they write, one after the other in the same column: nothing torn, never a spin", async (t) => {
  const fd = openMemory(t);
  const header = new Int32Array(addon().memoryMap(fd, 65_536, 0));
  const readers = Array.from({ length: 4 }, (_, at) => new TopicRings(fd, 10 + at));
  let halfWritten = 0;
  for (let round = 0; round < 12; round++) {
    const writer = spawn(process.execPath, ["--input-type=module", "-e", ENDLESS, String(round % 10)], {
      stdio: ["ignore", "pipe", "inherit", fd],
    });
    await once(writer.stdout as Readable, "data");
    const whole = hearing((_topic, payload) => {
      assert.ok(payload.every((byte) => byte === payload[0]));
    });
    // Some keep up for a while, one never does.
    for (const [at, reader] of readers.entries()) for (let turn = 0; turn < at; turn++) reader.read(whole, EVERYTHING);
    writer.kill("SIGKILL");
    await once(writer, "close");
    if (Atomics.load(header, WRITTEN) !== Atomics.load(header, RESERVED)) halfWritten += 1;
    for (const reader of readers) {
      let turns = 0;
      while (turns < 10 && reader.read(whole, EVERYTHING)) turns += 1;
      assert.ok(turns < 10, `${turns} turns for a ring that nobody writes`);
    }
    write(new TopicRings(fd, 1), "t", String(round));
    for (const reader of readers) {
      const heard: Heard = [];
      const last = hearing((topic, payload) => heard.push([topic, payload.subarray(-2).toString()]));
      for (let turn = 0; turn < 10 && reader.read(last, EVERYTHING); turn++) {}
      assert.deepEqual(heard.at(-1), ["t", String(round)]);
    }
  }
  t.diagnostic(`${halfWritten} of 12 died while they wrote`);
  assert.ok(halfWritten > 0);
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
