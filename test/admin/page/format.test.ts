/** Figures as people read them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, count, duration, milliseconds, percent, short } from "#src/admin/page/format.js";
import { takeMessages } from "#src/admin/page/stream.js";

test("counts and rates", () => {
  assert.deepEqual([0, 12_345].map(count), ["0", "12,345"]);
  assert.deepEqual([0, 0.25, 3, 3.5, 950.4, 9999, 12_345, 999_499, 1_234_567].map(short), [
    ...["0", "0.3", "3", "3.5", "950", "9,999", "12.3k", "999k", "1.23M"],
  ]);
});

test("bytes, times, shares", () => {
  assert.deepEqual([0, 1023, 1024, 1536, 1 << 20, 123 << 20, 2 ** 40].map(bytes), [
    ...["0 B", "1,023 B", "1.00 KiB", "1.50 KiB", "1.00 MiB", "123 MiB", "1.00 TiB"],
  ]);
  assert.deepEqual([0, 0.05, 0.9996, 1.234, 12.34, 999.6, 2500].map(milliseconds), [
    ...["0 ms", "50 µs", "1.00 ms", "1.23 ms", "12.3 ms", "1.00 s", "2.50 s"],
  ]);
  assert.deepEqual([-5, 59_999, 120_000, 11_100_000, 4 * 86_400_000].map(duration), [
    ...["0 s", "59 s", "2 min", "3 h 5 min", "4 d 0 h"],
  ]);
  assert.deepEqual([0, 9.94, 187.4].map(percent), ["0.0 %", "9.9 %", "187 %"]);
});

test("what is not known is a dash, not a zero", () => {
  for (const format of [count, short, bytes, milliseconds, duration, percent]) {
    assert.equal(format(null), "–");
    assert.equal(format(undefined), "–");
  }
});

test("messages of the stream, whatever the pieces in which they come", () => {
  const whole = 'data: {"a":1}\n\n: nothing to tell\n\ndata: {"b":2}\n\nevent: end\ndata: "stopping"\n\n';
  for (let cut = 0; cut <= whole.length; cut++) {
    const first = takeMessages(whole.slice(0, cut));
    const second = takeMessages(first.rest + whole.slice(cut));
    assert.deepEqual([...first.data, ...second.data], ['{"a":1}', '{"b":2}'], `cut at ${cut}`);
    assert.equal(second.rest, "");
  }
});
