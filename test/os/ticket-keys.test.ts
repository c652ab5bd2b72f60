import assert from "node:assert/strict";
import { ftruncateSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { addon } from "#src/os/addon.js";
import { TICKET_KEY_MS, TICKET_KEYS_KEPT, TicketKeys } from "#src/os/ticket-keys.js";

const START = Date.UTC(2030, 0, 1);
const KEYS_AT = 16;
const KEY_BYTES = 88;

function create(t: TestContext): { keys: TicketKeys; memory: Uint8Array } {
  const keys = TicketKeys.create(START);
  t.after(() => addon().fdClose(keys.fd));
  return { keys, memory: new Uint8Array(addon().memoryMap(keys.fd, 4_096, 0)) };
}

const keyAt = (memory: Uint8Array, index: number): string =>
  Buffer.from(memory.slice(KEYS_AT + index * KEY_BYTES, KEYS_AT + (index + 1) * KEY_BYTES - 8)).toString("hex");

test("begins with one key, in the layout that the readers know", (t) => {
  const { keys, memory } = create(t);
  const view = new DataView(memory.buffer);
  assert.equal(Buffer.from(memory.slice(0, 4)).toString(), "HRTK");
  assert.deepEqual([view.getUint32(4, true), view.getUint32(12, true)], [1, 1]);
  assert.equal(view.getUint32(8, true) % 2, 0, "nobody writes");
  assert.equal(view.getFloat64(KEYS_AT + KEY_BYTES - 8, true), START);
  assert.ok(memory.slice(KEYS_AT, KEYS_AT + 80).some((byte) => byte !== 0));
  assert.deepEqual(keys.ages, [START]);
});

test("a new key every 12 hours comes first, and three are kept", (t) => {
  const { keys, memory } = create(t);
  const first = keyAt(memory, 0);
  assert.equal(keys.rotate(START + TICKET_KEY_MS - 1), false);
  assert.equal(keyAt(memory, 0), first);
  for (let round = 1; round <= 4; round++) {
    const newest = keyAt(memory, 0);
    assert.equal(keys.rotate(START + round * TICKET_KEY_MS), true);
    assert.notEqual(keyAt(memory, 0), newest);
    assert.equal(keyAt(memory, 1), newest, "the one before still decrypts");
    assert.equal(keys.ages.length, Math.min(round + 1, TICKET_KEYS_KEPT));
  }
  assert.ok(!Buffer.from(memory).toString("hex").includes(first), "what is too old is nowhere");
});

test("keys that are too old go, however long nobody looked", (t) => {
  const { keys } = create(t);
  keys.rotate(START + TICKET_KEY_MS);
  const late = START + 10 * TICKET_KEY_MS;
  assert.equal(keys.rotate(late), true);
  assert.deepEqual(keys.ages, [late]);
});

test("a clock that is set back does not keep a key alive", (t) => {
  const { keys } = create(t);
  assert.equal(keys.rotate(START - 1), true);
  assert.equal(keys.rotate(START), false);
});

test("another process finds the same keys; memory of another kind it does not take", (t) => {
  const { keys, memory } = create(t);
  const seen = TicketKeys.attach(keys.fd);
  assert.deepEqual(seen?.ages, [START]);
  seen?.rotate(START + TICKET_KEY_MS);
  assert.equal(keys.ages.length, 2);
  const other = addon().memoryCreate("other", 4_096);
  t.after(() => addon().fdClose(other));
  assert.equal(TicketKeys.attach(other), undefined);
  assert.equal(TicketKeys.attach(-1), undefined);
  new DataView(memory.buffer).setUint32(8, 7, true);
  assert.equal(TicketKeys.attach(keys.fd), undefined, "its writer died while it wrote");
});

test("nobody can make the memory shorter or longer", (t) => {
  const { keys } = create(t);
  assert.throws(() => ftruncateSync(keys.fd, 0), { code: "EPERM" });
  assert.throws(() => ftruncateSync(keys.fd, 8_192), { code: "EPERM" });
});
