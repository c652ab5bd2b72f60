/** The memory of the last closes: what is noted is read, the newest first, and no more than there is room for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonIndex } from "#src/base/reasons.js";
import { addon } from "#src/os/addon.js";
import { CloseRing, CloseRings, RING_ENTRIES } from "#src/os/close-rings.js";

const NO_ADDRESS = (into: Uint8Array): void => void into.fill(0);

function address(bytes: readonly number[], port: number, family: number): (into: Uint8Array) => void {
  return (into) => {
    into.fill(0);
    into.set(bytes);
    into[16] = port >> 8;
    into[17] = port & 255;
    into[18] = family;
  };
}

const closing = (label: number, serial: number | string) =>
  ({ label, serial, reason: reasonIndex("idle-timeout"), durationMs: 12, received: 3, sent: 4 }) as const;

test("what two workers noted is read by any process that has the memory, also when they have gone", () => {
  const rings = CloseRings.create();
  const [one, two] = [new CloseRing(rings.fd, 0), new CloseRing(rings.fd, 1_000)];
  const label = one.label(0, "lines", "1.0-abc-0");
  one.note(closing(label, 35), address([10, 0, 0, 1], 4711, 4));
  two.note(closing(two.label(7, "frames", "1.7-xyz-1"), "1.2-moved-0-z"), address([0x20, 1, 0xd, 0xb8], 80, 6));
  const mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3];
  one.note(closing(label, 36), address(mapped, 1, 6));
  const found = CloseRings.attach(rings.fd)?.read(10) ?? [];
  const told = found.map(({ id, worker, listener, host, port }) => [id, worker, listener, host, port].join(" ")).sort();
  assert.deepEqual(told, [
    "1.0-abc-0-10 0 lines 10.1.2.3 1",
    "1.0-abc-0-z 0 lines 10.0.0.1 4711",
    "1.2-moved-0-z 7 frames 2001:db8:: 80",
  ]);
  const { reason, durationMs, received, sent, at } = found[0] ?? assert.fail();
  assert.deepEqual([reason, durationMs, received, sent], ["idle-timeout", 12, 3, 4]);
  assert.ok(Math.abs(Date.now() - at) < 60_000);
  addon().fdClose(rings.fd);
});

test("a ring keeps the newest, in order, and the limit holds", () => {
  const rings = CloseRings.create();
  const ring = new CloseRing(rings.fd, 3);
  const label = ring.label(0, "lines", "p");
  for (let serial = 0; serial < RING_ENTRIES + 500; serial++) ring.note(closing(label, serial), NO_ADDRESS);
  const found = rings.read(RING_ENTRIES);
  // The oldest is the one that would be written over next.
  assert.equal(found.length, RING_ENTRIES - 1);
  assert.equal(found[0]?.id, `p-${(RING_ENTRIES + 499).toString(36)}`);
  assert.equal(found.at(-1)?.id, `p-${(501).toString(36)}`);
  assert.deepEqual(
    rings.read(2).map(({ id }) => id),
    found.slice(0, 2).map(({ id }) => id),
  );
  addon().fdClose(rings.fd);
});

test("labels that were written over are not known, and nobody else's name is shown", () => {
  const rings = CloseRings.create();
  const ring = new CloseRing(rings.fd, 3);
  ring.note(closing(ring.label(0, "first", "p"), 1), NO_ADDRESS);
  for (let at = 0; at < 256; at++) ring.label(0, "other", "q");
  assert.equal(rings.read(1)[0]?.listener, "");
  addon().fdClose(rings.fd);
});

test("memory of another size is another version's", () => {
  const fd = addon().memoryCreate("other", 4096);
  assert.equal(CloseRings.attach(fd), undefined);
  assert.equal(CloseRings.attach(-1), undefined);
  addon().fdClose(fd);
});
