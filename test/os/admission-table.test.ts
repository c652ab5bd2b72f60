/** The memory of the admission counts: shared, kept apart by generations, and recognised. */
import assert from "node:assert/strict";
import { truncateSync } from "node:fs";
import { test } from "node:test";
import { addon } from "#src/os/addon.js";
import { ADMISSION_HEADER, AdmissionTable, admissionColumn, halfOf } from "#src/os/admission-table.js";
import { closeDescriptor } from "#src/os/descriptors.js";
import { SEATS } from "#src/os/scoreboard.js";

/** As an engine counts a connection of listener row 2. */
function count(table: AdmissionTable, column: number): void {
  for (const row of [0, 3]) table.words[ADMISSION_HEADER.words + row * 2 * SEATS + column] = 1;
}

test("what one process counts, another sees, for as long as either has it", () => {
  const mine = AdmissionTable.create();
  const theirs = AdmissionTable.attach(mine.fd, mine.wakeFd);
  closeDescriptor(mine.fd);
  mine.setHighWater(1, 2);
  count(mine, admissionColumn(1, 1));
  assert.deepEqual([theirs?.count(0), theirs?.count(1), theirs?.count(3)], [1, 0, 1]);
});

test("generations count in different halves, those two apart in the same", () => {
  assert.deepEqual([1, 2, 3, 4].map(halfOf), [1, 0, 1, 0]);
  const columns = [1, 2].flatMap((generation) => [0, SEATS - 1].map((seat) => admissionColumn(generation, seat)));
  assert.deepEqual(columns, [SEATS, 2 * SEATS - 1, 0, SEATS - 1]);
  assert.equal(admissionColumn(3, 7), admissionColumn(1, 7));
});

test("only seats below the mark are summed; clearing is of one column, or of one half", () => {
  const table = AdmissionTable.create();
  for (const generation of [1, 2]) for (const seat of [0, 1, 2]) count(table, admissionColumn(generation, seat));
  const counts = (): number[] => [table.countHalf(0, 3), table.countHalf(1, 3), table.count(3)];
  assert.deepEqual(counts(), [0, 0, 0]);
  table.setHighWater(0, 2);
  table.setHighWater(1, SEATS);
  assert.deepEqual(counts(), [2, 3, 5]);
  const moves = table.words[ADMISSION_HEADER.moves] as number;
  table.clearColumn(admissionColumn(1, 0));
  assert.deepEqual(counts(), [2, 2, 4]);
  // Whoever is summing meanwhile begins again.
  assert.equal(table.words[ADMISSION_HEADER.moves], moves + 1);
  table.clearHalf(1);
  assert.deepEqual(counts(), [2, 0, 2]);
  count(table, admissionColumn(3, 0));
  table.claimHalf(3);
  table.setHighWater(1, 1);
  assert.deepEqual(counts(), [2, 0, 2]);
  closeDescriptor(table.fd);
});

test("a table of another version, or of another size, is not taken for one", () => {
  const table = AdmissionTable.create();
  const version = table.words[ADMISSION_HEADER.version] as number;
  table.words[ADMISSION_HEADER.version] = version - 1;
  assert.equal(AdmissionTable.attach(table.fd, table.wakeFd), undefined);
  table.words[ADMISSION_HEADER.version] = version;
  assert.ok(AdmissionTable.attach(table.fd, table.wakeFd));
  truncateSync(`/proc/self/fd/${table.fd}`, 4_096);
  assert.equal(AdmissionTable.attach(table.fd, table.wakeFd), undefined);
  closeDescriptor(table.fd);
  const other = addon().memoryCreate("other", 1 << 20);
  assert.equal(AdmissionTable.attach(other, table.wakeFd), undefined);
  closeDescriptor(other);
});

test("columns and marks that cannot be are bugs", () => {
  const table = AdmissionTable.create();
  for (const column of [-1, 2 * SEATS, Number.NaN]) assert.throws(() => table.clearColumn(column), RangeError);
  for (const seats of [-1, SEATS + 1]) assert.throws(() => table.setHighWater(0, seats), RangeError);
  closeDescriptor(table.fd);
});
