import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fifo } from "#src/connection/fifo.js";

test("whatever goes in comes out in its order, and none twice", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -60, max: 80 }), { maxLength: 30 }), (steps) => {
      const fifo = new Fifo<number>();
      const model: number[] = [];
      let next = 0;
      for (const step of steps) {
        for (let each = 0; each < step; each++) {
          fifo.push(next);
          model.push(next++);
        }
        for (let each = 0; each < -step; each++) assert.equal(fifo.shift(), model.shift());
        assert.equal(fifo.length, model.length);
        assert.deepEqual(fifo.list(), model);
      }
    }),
  );
});

test("a long one costs no more than a short one", () => {
  const fifo = new Fifo<number>();
  const took = (): number => {
    const began = performance.now();
    for (let each = 0; each < 100_000; each++) {
      fifo.push(each);
      fifo.shift();
    }
    return performance.now() - began;
  };
  took();
  const short = took();
  for (let each = 0; each < 65_536; each++) fifo.push(each);
  const long = took();
  assert.ok(long < 20 * short + 50, `${long} ms instead of ${short}`);
});
