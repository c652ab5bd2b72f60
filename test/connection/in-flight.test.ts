import assert from "node:assert/strict";
import { test } from "node:test";
import { array, boolean, assert as holds, integer, property, record } from "fast-check";
import { InFlight, NO_TICKET } from "#src/connection/in-flight.js";

const OWNERS = 3;

test("whatever the order in which requests end: the oldest is known, and each owner's chain has what is its own", () => {
  const step = record({ take: boolean(), owner: integer({ min: 0, max: OWNERS - 1 }), which: integer({ min: 0 }) });
  holds(
    property(array(step, { maxLength: 400, size: "max" }), (steps) => {
      const table = new InFlight();
      const chains = new Array<number>(OWNERS).fill(NO_TICKET);
      const waiting: { ticket: number; owner: number; began: number }[] = [];
      for (const [now, { take, owner, which }] of steps.entries()) {
        if (take) {
          const ticket = table.take(now, chains[owner] as number);
          chains[owner] = ticket;
          waiting.push({ ticket, owner, began: now });
        } else if (waiting.length > 0) {
          const [ended] = waiting.splice(which % waiting.length, 1);
          assert.ok(ended);
          assert.equal(table.began(ended.ticket), ended.began);
          chains[ended.owner] = table.give(ended.ticket, chains[ended.owner] as number);
        }
        assert.equal(table.count, waiting.length);
        assert.equal(table.oldest, waiting[0]?.began);
      }
      // By its chain alone each owner gives back all that it has.
      for (let owner = 0; owner < OWNERS; owner++) {
        const own = waiting.filter((each) => each.owner === owner).map(({ began }) => began);
        const given: number[] = [];
        for (let first = chains[owner] as number; first !== NO_TICKET; first = table.give(first, first)) {
          given.push(table.began(first));
        }
        assert.deepEqual(given, own.reverse());
      }
      assert.equal(table.count, 0);
      assert.equal(table.oldest, undefined);
    }),
  );
});
