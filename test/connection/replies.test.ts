/** Replies: in the order that the service asks for, within the bound in flight, none lost, sync ones at once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { type Concurrency, defineService } from "#src/service/define.js";
import { cutPlaces, splitAt } from "../support/splits.js";

type Plan = "sync" | "nothing" | "throw" | "later" | "later-nothing" | "reject";

const plans = fc.array(fc.constantFrom<Plan>("sync", "nothing", "throw", "later", "later-nothing", "reject"), {
  maxLength: 25,
});

function expectedReply(plan: Plan, index: number): string | undefined {
  if (plan === "nothing" || plan === "later-nothing") return undefined;
  return plan === "throw" || plan === "reject" ? `failed ${index}` : `reply ${index}`;
}

interface Run {
  readonly replies: string[];
  /** Order in which the deferred handlers were let go on. */
  readonly concluded: number[];
  readonly mostRunning: number;
  readonly closed: string | undefined;
  readonly requests: number;
}

async function run(
  concurrency: Concurrency,
  plan: readonly Plan[],
  inFlight: number,
  cuts: number[],
  picks: number[],
): Promise<Run> {
  const waiting = new Map<number, () => void>();
  const concluded: number[] = [];
  let running = 0;
  let mostRunning = 0;
  let requests = 0;
  const service = defineService({
    codec: line(),
    concurrency,
    onMessage(text): string | undefined | Promise<string | undefined> {
      const index = Number(text);
      const each = plan[index] as Plan;
      requests += 1;
      if (each === "throw") throw new Error(`failed ${index}`);
      if (each === "sync" || each === "nothing") return expectedReply(each, index);
      running += 1;
      mostRunning = Math.max(mostRunning, running);
      return new Promise((resolve, reject) => {
        waiting.set(index, () => {
          running -= 1;
          if (each === "reject") reject(new Error(`failed ${index}`));
          else resolve(expectedReply(each, index));
        });
      });
    },
    onError: (error) => ({ reply: (error as Error).message }),
  });
  const harness = testConnection(service, { limits: { inFlight } });
  const bytes = Buffer.from(plan.map((_, index) => `${index}\n`).join(""));
  for (const chunk of splitAt(bytes, cuts)) harness.push(chunk);
  for (let turn = 0; waiting.size > 0; turn++) {
    const keys = [...waiting.keys()];
    const index = keys[(picks[turn % picks.length] ?? 0) % keys.length] as number;
    waiting.get(index)?.();
    waiting.delete(index);
    concluded.push(index);
    await harness.settle();
  }
  harness.end();
  const replies = harness.sent().toString().split("\n").slice(0, -1);
  return { replies, concluded, mostRunning, closed: harness.closed, requests };
}

const picks = fc.array(fc.nat({ max: 30 }), { minLength: 1, maxLength: 30 });
const inFlight = fc.integer({ min: 1, max: 6 });

for (const concurrency of ["serial", "ordered"] as const) {
  test(`${concurrency}: replies leave in the order of the requests, whichever handler ends first`, async () => {
    await fc.assert(
      fc.asyncProperty(plans, inFlight, cutPlaces, picks, async (plan, bound, cuts, order) => {
        const outcome = await run(concurrency, plan, bound, cuts, order);
        assert.deepEqual(
          outcome.replies,
          plan.flatMap((each, index) => expectedReply(each, index) ?? []),
        );
        assert.equal(outcome.requests, plan.length);
        assert.ok(outcome.mostRunning <= (concurrency === "serial" ? 1 : bound));
        assert.equal(outcome.closed, "peer-closed");
      }),
      { numRuns: 300 },
    );
  });
}

test("unordered: each reply once, in the order in which the handlers end", async () => {
  await fc.assert(
    fc.asyncProperty(plans, inFlight, cutPlaces, picks, async (plan, bound, cuts, order) => {
      const outcome = await run("unordered", plan, bound, cuts, order);
      const later = outcome.concluded.flatMap((index) => expectedReply(plan[index] as Plan, index) ?? []);
      const isLater = (reply: string): boolean => later.includes(reply);
      assert.deepEqual(outcome.replies.filter(isLater), later);
      const expected = plan.flatMap((each, index) => expectedReply(each, index) ?? []);
      assert.deepEqual([...outcome.replies].sort(), [...expected].sort());
      assert.ok(outcome.mostRunning <= bound);
      assert.equal(outcome.closed, "peer-closed");
    }),
    { numRuns: 300 },
  );
});

test("a synchronous reply is sent before push returns, in every order", () => {
  for (const concurrency of ["serial", "ordered", "unordered"] as const) {
    const harness = testConnection(
      defineService({ codec: line(), concurrency, onMessage: (text) => text.toUpperCase() }),
    );
    harness.push("a\nb\nc");
    assert.equal(harness.sent().toString(), "A\nB\n");
    harness.push("\n");
    assert.equal(harness.sent().toString(), "C\n");
  }
});

test("ordered: finished handlers behind a slow one keep their place in flight, so that replies do not pile up", async () => {
  let started = 0;
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    limits: { inFlight: 4 },
    onMessage(text): Promise<string> {
      started += 1;
      if (text !== "slow") return Promise.resolve(text);
      return new Promise((resolve) => {
        release = () => resolve(text);
      });
    },
  });
  const harness = testConnection(service);
  harness.push(`slow\n${"quick\n".repeat(100)}`);
  for (let i = 0; i < 5; i++) await harness.settle();
  assert.equal(started, 4);
  assert.equal(harness.readsPaused, true);
  release?.();
  for (let i = 0; i < 60; i++) await harness.settle();
  assert.equal(harness.sent().toString(), `slow\n${"quick\n".repeat(100)}`);
  assert.equal(harness.readsPaused, false);
});

test("a thenable whose then throws fails its request and holds up nobody", async () => {
  const service = defineService({
    codec: line(),
    onMessage(text): string | Promise<string> {
      if (text !== "bad") return text;
      return {
        // biome-ignore lint/suspicious/noThenProperty: this is what is tested
        then() {
          throw new Error("then failed");
        },
      } as unknown as Promise<string>;
    },
    onError: () => ({ reply: "failed" }),
  });
  const harness = testConnection(service);
  harness.push("bad\ngood\n");
  await harness.settle();
  assert.equal(harness.sent().toString(), "failed\ngood\n");
});

test("a thenable that settles twice is answered once", async () => {
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    limits: { inFlight: 1 },
    onMessage(text): string | Promise<string> {
      if (text !== "twice") return text;
      return {
        // biome-ignore lint/suspicious/noThenProperty: this is what is tested
        then(resolve: (value: string) => void) {
          setImmediate(() => {
            resolve("one");
            resolve("two");
          });
        },
      } as unknown as Promise<string>;
    },
  });
  const harness = testConnection(service);
  harness.push("twice\n");
  await harness.settle();
  await harness.settle();
  assert.equal(harness.sent().toString(), "one\n");
});

test("requests wait while a serial handler runs, are not decoded meanwhile, and come in order", async () => {
  const begun: string[] = [];
  const resolvers: (() => void)[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text): Promise<string> {
      begun.push(text);
      return new Promise((resolve) => resolvers.push(() => resolve(text)));
    },
  });
  const harness = testConnection(service);
  harness.push("a\nb\nc\n");
  assert.deepEqual(begun, ["a"]);
  assert.equal(harness.readsPaused, true);
  for (const count of [1, 2, 3]) {
    assert.equal(begun.length, count);
    resolvers[count - 1]?.();
    await harness.settle();
  }
  assert.equal(harness.sent().toString(), "a\nb\nc\n");
  assert.equal(harness.readsPaused, false);
});
