import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Queued, TaskQueue } from "#src/tasks/queue.js";

class Item implements Queued<Item> {
  readonly id: number;
  readonly rank: number;
  readonly costMs: number;
  queued = false;
  before: Item | undefined;
  behind: Item | undefined;

  constructor(id: number, rank: number) {
    this.id = id;
    this.rank = rank;
    this.costMs = id % 5;
  }
}

/** Three plain lists, as slow and as plain as they can be. */
class Model {
  readonly lines: Item[][] = [[], [], []];
  get all(): Item[] {
    return this.lines.flat();
  }
  drop(item: Item): void {
    for (const line of this.lines) if (line.includes(item)) line.splice(line.indexOf(item), 1);
  }
}

test("whatever comes and goes, it is three lists in the order of their priority", () => {
  const step = fc.record({
    act: fc.constantFrom("push", "unshift", "take", "remove"),
    rank: fc.nat(2),
    at: fc.nat(99),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new TaskQueue<Item>();
      const model = new Model();
      for (const [id, { act, rank, at }] of steps.entries()) {
        const line = model.lines[rank] as Item[];
        if (act === "push" || act === "unshift") {
          const item = new Item(id, rank);
          queue[act](item);
          line[act](item);
        } else {
          const item = act === "take" ? queue.first() : model.all[at % Math.max(1, model.all.length)];
          if (act === "take") assert.equal(item, model.all[0]);
          if (item) {
            queue.remove(item);
            queue.remove(item);
            model.drop(item);
          }
        }
        assert.equal(queue.size, model.all.length);
        assert.deepEqual(
          queue.heads(),
          model.lines.flatMap(([first]) => first ?? []),
        );
        for (const each of [0, 1, 2]) {
          const below = model.lines.slice(each + 1).findLast((some) => some.length > 0);
          assert.equal(queue.lastBelow(each), below?.at(-1));
          const cost = model.lines
            .slice(0, each + 1)
            .flat()
            .reduce((sum, { costMs }) => sum + costMs, 0);
          assert.equal(queue.costBefore(each), cost);
        }
      }
    }),
  );
});
