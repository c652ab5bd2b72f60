import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { REJECT_REASONS } from "#src/base/reasons.js";
import { ON_LIMIT } from "#src/base/settings.js";
import {
  COUNTER,
  DATAGRAM_MOST,
  DATAGRAMS_WAITING,
  END,
  END_BYTES,
  HEADER,
  INPUT,
  OUTPUT,
  PEEKED,
  RULE,
  SOURCE,
  SOURCE_ENTRIES,
  SOURCE_SILENT_MS,
  SOURCE_VERIFIED,
  TOTAL_CLOCK,
  TOTALS,
} from "#src/engine/layout.js";
import { packageRoot } from "#src/os/addon.js";
import { ADDRESSES, ADMISSION_COLUMNS, ADMISSION_HEADER, ADMISSION_ROWS } from "#src/os/admission-table.js";
import { DATAGRAM_FIELDS, ROWS, SEATS, SLOTS_MAX, WORKER_FIELDS, WORKER_REJECTED } from "#src/os/scoreboard.js";
import { SOCKET_OPTION_NAMES } from "#src/os/socket.js";

/** Every enumerator and every plain number that a header defines. */
function constantsOf(header: string): Map<string, number> {
  const text = readFileSync(join(packageRoot(), "native", header), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const constants = new Map<string, number>();
  for (const [, name = "", value] of text.matchAll(/^#define (\w+) (\d+)$/gm)) constants.set(name, Number(value));
  for (const [, body = ""] of text.matchAll(/\benum\s*\w*\s*\{([^}]*)\}/g)) {
    let next = 0;
    for (const item of body.split(",")) {
      const match = /^\s*(\w+)(?:\s*=\s*(\d+)(?:\s*<<\s*(\d+))?)?\s*$/.exec(item);
      if (!match) continue;
      const [, name = "", value, shift] = match;
      if (value !== undefined) next = Number(value) << Number(shift ?? 0);
      constants.set(name, next++);
    }
  }
  return constants;
}

/** `keepAlive` is `KEEP_ALIVE`. */
function upperSnake(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toUpperCase();
}

const engineHeader = constantsOf("engine.h");

for (const [prefix, layout] of Object.entries({ HEADER, INPUT, OUTPUT, COUNTER, RULE, PEEKED })) {
  test(`${prefix}_… in engine.h and layout.ts are the same names and numbers`, () => {
    const native = [...engineHeader].filter(([name]) => name.startsWith(`${prefix}_`));
    const ours = Object.entries(layout).map(([name, value]) => [`${prefix}_${upperSnake(name)}`, value]);
    assert.deepEqual(Object.fromEntries(ours), Object.fromEntries(native));
  });
}

test("the totals stand in the order of WORKER_FIELDS", () => {
  assert.equal(TOTALS, engineHeader.get("TOTAL_COUNT"));
  assert.equal(TOTAL_CLOCK, engineHeader.get("TOTAL_CLOCK"));
  for (const [index, name] of WORKER_FIELDS.slice(0, TOTALS).entries()) {
    assert.equal(engineHeader.get(`TOTAL_${upperSnake(name)}`), index, name);
  }
});

test("the admission table has the layout of admission.h", () => {
  const native = constantsOf("admission.h");
  const { words, ...header } = ADMISSION_HEADER;
  for (const [name, index] of Object.entries(header))
    assert.equal(native.get(`ADMISSION_${upperSnake(name)}`), index, name);
  assert.equal(native.get("ADMISSION_HEADER_WORDS"), words);
  assert.equal(native.get("ADMISSION_SEATS"), SEATS);
  assert.equal(native.get("ADMISSION_COLUMNS"), ADMISSION_COLUMNS);
  assert.equal(native.get("ADMISSION_ROWS"), ADMISSION_ROWS);
  const addresses = constantsOf("address.h");
  for (const [name, value] of Object.entries(ADDRESSES)) {
    assert.equal(addresses.get(`ADDRESS_${upperSnake(name)}`), value, name);
  }
  assert.equal(engineHeader.get("LISTENERS_MAX"), ROWS);
  assert.equal(engineHeader.get("WATCHES_MAX"), SLOTS_MAX * ROWS);
});

test("the verdicts of admission.h are the reasons, and the scoreboard's counters, in this order", () => {
  const native = constantsOf("admission.h");
  // The last is not the engine's.
  const reasons = REJECT_REASONS.filter((reason) => reason !== "handshakes-full");
  assert.equal(REJECT_REASONS.indexOf("handshakes-full"), reasons.length);
  assert.equal(WORKER_FIELDS.indexOf("rejectedHandshakes"), WORKER_REJECTED + reasons.length);
  assert.equal(native.get("ADMISSION_VERDICTS"), 1 + reasons.length);
  const verdicts = [...native].filter(([name]) => name.startsWith("REJECT_"));
  for (const [index, [name, value]] of verdicts.entries()) {
    assert.equal(value, index + 1, name);
    assert.equal(engineHeader.get(`TOTAL_REJECTED_${name.slice("REJECT_".length)}`), WORKER_REJECTED + index);
  }
  assert.equal(verdicts.length, reasons.length);
  for (const [index, name] of ON_LIMIT.entries()) assert.equal(native.get(`ON_LIMIT_${name.toUpperCase()}`), index);
});

test("the socket options stand in the order of socket.h", () => {
  const native = constantsOf("socket.h");
  assert.equal(native.get("OPTION_COUNT"), SOCKET_OPTION_NAMES.length);
  for (const [index, name] of SOCKET_OPTION_NAMES.entries()) {
    assert.equal(native.get(`OPTION_${upperSnake(name)}`), index, name);
  }
});

test("datagrams: bounds, counters and sources as in datagram.h and source.h", () => {
  const datagrams = constantsOf("datagram.h");
  assert.equal(datagrams.get("DATAGRAM_MOST"), DATAGRAM_MOST);
  assert.equal(datagrams.get("DATAGRAMS_WAITING"), DATAGRAMS_WAITING);
  const native = datagrams.get("DATAGRAM_COUNTERS") ?? 0;
  for (const [index, name] of DATAGRAM_FIELDS.slice(0, native).entries()) {
    assert.equal(datagrams.get(`DATAGRAM_${upperSnake(name)}`), index, name);
  }
  const sources = constantsOf("source.h");
  assert.equal(sources.get("SOURCE_ENTRIES"), SOURCE_ENTRIES);
  assert.equal(sources.get("SOURCE_VERIFIED"), SOURCE_VERIFIED);
  assert.equal(sources.get("SOURCE_SILENT_MS"), SOURCE_SILENT_MS);
  for (const [name, value] of Object.entries(SOURCE)) assert.equal(sources.get(`SOURCE_${upperSnake(name)}`), value);
  // A static assertion has the struct's size and where the key of a source ends.
  assert.deepEqual([END_BYTES, sources.get("SOURCE_KEY_BYTES")], [64, END.source * 4]);
});
