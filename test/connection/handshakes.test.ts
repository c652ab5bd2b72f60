import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { type Handshake, Handshakes } from "#src/connection/handshakes.js";
import { WORKER_FIELDS, type WorkerBlock } from "#src/os/scoreboard.js";

const TIMEOUT_MS = 5_000;
const SPARED_MS = 1_000;

interface Begun {
  readonly handshakes: Handshakes;
  /** Who was ended to make room, in order. */
  readonly ended: string[];
  begin(name: string, now: number, timeoutMs?: number): boolean;
  rejected(): (number | undefined)[];
}

function limitedTo(limit: number): Begun {
  const head = new Float64Array(WORKER_FIELDS.length);
  const handshakes = new Handshakes(limit, { head } as WorkerBlock, pino({ level: "silent" }));
  const ended: string[] = [];
  return {
    handshakes,
    ended,
    begin(name, now, timeoutMs = TIMEOUT_MS) {
      const handshake: Handshake = {
        end(reason) {
          ended.push(`${name} ${reason}`);
          handshakes.end(handshake);
        },
      };
      return handshakes.begin(handshake, now, timeoutMs);
    },
    rejected: () => (["rejected", "rejectedHandshakes"] as const).map((field) => head[WORKER_FIELDS.indexOf(field)]),
  };
}

test("past the limit newcomers are rejected while all are young", () => {
  const { begin, handshakes, ended, rejected } = limitedTo(2);
  assert.ok(begin("a", 0));
  assert.ok(begin("b", 500));
  assert.equal(begin("c", SPARED_MS - 1), false);
  assert.deepEqual([handshakes.inProgress, ended, rejected()], [2, [], [1, 1]]);
});

test("the oldest makes room once it has had a fifth of its time, and no other with it", () => {
  const { begin, handshakes, ended, rejected } = limitedTo(2);
  begin("a", 0);
  begin("b", 500);
  assert.ok(begin("c", SPARED_MS));
  assert.equal(begin("d", SPARED_MS), false);
  assert.ok(begin("e", 1_500));
  assert.deepEqual(ended, ["a handshake-timeout", "b handshake-timeout"]);
  assert.deepEqual([handshakes.inProgress, rejected()], [2, [1, 1]]);
});

test("without a deadline nobody makes room; below a limit that was lowered nobody gets in", () => {
  const { begin, handshakes } = limitedTo(2);
  begin("a", 0);
  begin("b", 0);
  assert.equal(begin("c", 1e9, Number.POSITIVE_INFINITY), false);
  handshakes.limit = 1;
  assert.equal(begin("d", 1e9), false);
  handshakes.limit = 3;
  assert.ok(begin("e", 1e9));
});
