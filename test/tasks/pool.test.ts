import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { DeadlineExceeded, HeadraceError, ServerBusy } from "#src/base/errors.js";
import { definePool, type Pool, type PoolDefinition } from "#src/tasks/define.js";
import type { TaskPool } from "#src/tasks/pool.js";
import type { Priority } from "#src/tasks/queue.js";
import { makeFolder } from "../support/folder.js";
import { until } from "../support/until.js";

type Work = typeof import("./work.js");

const WORK = new URL("./work.js", import.meta.url);

function open(t: TestContext, options: Partial<PoolDefinition> = {}): Pool<Work> {
  const pool = definePool<Work>({ name: "work", module: WORK, threads: 1, ...options });
  // Other tests run beside, and may slow this one down: overload is looked for only where it is meant.
  const { queue = 1_024, threads = 1 } = options;
  inner(pool).configure({ tasks: { queue, threads }, workers: 1, queueDelay: "off" });
  t.after(() => pool.close());
  return pool;
}

/** What a worker does with it. */
const inner = (pool: Pool<Work>): TaskPool => pool as unknown as TaskPool;

function busy(because: string): (error: unknown) => boolean {
  return (error) => error instanceof ServerBusy && error.code === "server-busy" && error.because === because;
}

/** The thread is taken for a while, and what is given now waits. */
async function occupied(pool: Pool<Work>, forMs: number): Promise<{ readonly running: Promise<number> }> {
  await pool.run("same", [1]);
  const running = pool.run("spin", [forMs]);
  await until("it runs", () => pool.waiting === 0);
  return { running };
}

test("arguments and values of every kind arrive as they left", async (t) => {
  const pool = open(t);
  const large = Buffer.alloc(100_000, "x");
  const values = [1, "text", true, null, undefined, 12n, { a: [1, { b: new Date(0) }] }, new Map([[1, 2]])];
  for (const value of values) assert.deepEqual(await pool.run("same", [value]), value);
  assert.deepEqual(await pool.run("same", [Buffer.from("abc")]), Buffer.from("abc"));
  assert.deepEqual(await pool.run("same", [large.subarray(5, 60_000)]), large.subarray(5, 60_000));
  assert.deepEqual(await pool.run("same", values), values);
  assert.equal(await pool.run("later", ["x"]), "x");
});

test("arguments are copied when the task is given, not when it is handed over", async (t) => {
  const pool = open(t);
  for (const size of [8, 5_000]) {
    const bytes = Buffer.alloc(size, "a");
    const value = pool.run("same", [bytes]);
    bytes.fill("b");
    assert.deepEqual(await value, Buffer.alloc(size, "a"));
  }
});

test("hundreds at once: each gets its own value, and a failure only its own task", async (t) => {
  const pool = open(t, { threads: 2 });
  const all = Array.from({ length: 500 }, (_, index) =>
    index % 7 === 0
      ? pool.run("fails", [String(index)]).catch((error: Error) => error.message)
      : pool.run("same", [index]),
  );
  assert.deepEqual(
    await Promise.all(all),
    Array.from({ length: 500 }, (_, index) => (index % 7 === 0 ? String(index) : index)),
  );
});

test("what a task throws arrives with name, code and the stack of its thread", async (t) => {
  const pool = open(t);
  await assert.rejects(pool.run("fails", ["bad"]), (error: NodeJS.ErrnoException) => {
    assert.deepEqual([error.name, error.message, error.code], ["RangeError", "bad", "E_WORK"]);
    return /work\.js/.test(error.stack ?? "");
  });
});

test("what cannot be copied fails alone, on the way there and back", async (t) => {
  const pool = open(t);
  const others = [pool.run("same", [1]), pool.run("same", [2])];
  await assert.rejects(pool.run("same", [() => {}]), /could not be cloned/);
  await assert.rejects(pool.run("same", [Symbol("x")]), /could not be cloned/);
  await assert.rejects(pool.run("functionless", []), /could not be cloned/);
  assert.deepEqual(await Promise.all(others), [1, 2]);
});

test("a function that the module does not export is named with those that it does", async (t) => {
  const pool = open(t);
  const wrong = {
    code: "usage",
    message: /pool work: its module exports no function hash; there are: exits, exitsIf, fails/,
  };
  await assert.rejects(pool.run("hash" as "same", [1]), wrong, "before the module is loaded");
  await assert.rejects(pool.run("hash" as "same", [1]), wrong, "and after");
  await assert.rejects(pool.run("notATask" as "same", [1]), { code: "usage" });
});

test("the queue is bounded: one more is refused, and there is room again", async (t) => {
  const pool = open(t, { queue: 3 });
  const { running } = await occupied(pool, 100);
  const waiting = [1, 2, 3].map((value) => pool.run("same", [value]));
  const long = pool.run("spin", [1]);
  await assert.rejects(long, busy("queue-full"));
  assert.ok(inner(pool).refuses("high") === undefined || pool.waiting >= 3);
  assert.deepEqual(await Promise.all(waiting), [1, 2, 3]);
  await running;
  assert.equal(await pool.run("same", [4]), 4);
});

test("a full queue gives way to a higher priority: the newest of the lowest is refused", async (t) => {
  const pool = open(t, { queue: 3 });
  await occupied(pool, 100);
  const order: string[] = [];
  const give = (name: string, priority: Priority): Promise<unknown> =>
    pool.run("spin", [0], { priority }).then(
      () => order.push(name),
      (error: ServerBusy) => order.push(`${name} ${error.because}`),
    );
  await Promise.all([
    give("low 1", "low"),
    give("normal 1", "normal"),
    give("low 2", "low"),
    give("high 1", "high"),
    give("normal 2", "normal"),
    give("low 3", "low"),
    give("normal 3", "normal"),
  ]);
  const refused = order.filter((name) => name.endsWith("queue-full")).map((name) => name.slice(0, -11));
  assert.deepEqual(refused.toSorted(), ["low 1", "low 2", "low 3", "normal 3"]);
  assert.deepEqual(
    order.filter((name) => !name.endsWith("queue-full")),
    ["high 1", "normal 1", "normal 2"],
  );
});

test("an aborted task leaves the queue at once, and one that runs is not waited for", async (t) => {
  const pool = open(t);
  const { running } = await occupied(pool, 100);
  const abort = new AbortController();
  const waiting = pool.run("same", [1], { signal: abort.signal });
  assert.equal(pool.waiting, 1);
  abort.abort(new Error("enough"));
  assert.equal(pool.waiting, 0);
  await assert.rejects(waiting, /enough/);
  await assert.rejects(pool.run("same", [1], { signal: abort.signal }), /enough/);
  const late = new AbortController();
  const begun = pool.run("spin", [50], { signal: late.signal });
  await running;
  late.abort(new Error("too long"));
  await assert.rejects(begun, /too long/);
  assert.equal(await pool.run("same", [2]), 2, "the thread goes on");
});

test("a task that waited longer than maxQueueDelay is refused, also while the thread is taken", async (t) => {
  const pool = open(t, { maxQueueDelay: "50ms" });
  const { running } = await occupied(pool, 600);
  const startedAt = performance.now();
  await assert.rejects(pool.run("same", [1]), busy("queue-delay"));
  assert.ok(performance.now() - startedAt < 400, "not only when its turn comes");
  await running;
});

test("a task that is past its deadline is not begun", async (t) => {
  const pool = open(t);
  const { running } = await occupied(pool, 300);
  const task = inner(pool).begin("same", [1], "normal", 10);
  await assert.rejects(
    task.promise,
    (error) => error instanceof DeadlineExceeded && error.code === "deadline-exceeded",
  );
  await running;
});

test("a thread that dies takes its task along, and is replaced; those behind are done", async (t) => {
  const pool = open(t);
  for (const deadly of ["exits", "exits"] as const) {
    const lost = pool.run(deadly, []);
    const behind = [1, 2, 3].map((value) => pool.run("same", [value]));
    await assert.rejects(lost, (error) => error instanceof HeadraceError && error.code === "thread-died");
    assert.deepEqual(await Promise.all(behind), [1, 2, 3]);
  }
});

test("of a batch the tasks behind the one that killed the thread are done by the next thread", async (t) => {
  const pool = open(t);
  // By now it is known to be quick, and many are handed over at once.
  for (let round = 0; round < 20; round++)
    await Promise.all(
      Array(20)
        .fill(0)
        .map(() => pool.run("exitsIf", [false])),
    );
  const outcomes = await Promise.allSettled(Array.from({ length: 40 }, (_, at) => pool.run("exitsIf", [at === 3])));
  assert.equal(outcomes[3]?.status, "rejected");
  assert.ok(outcomes.slice(4).every(({ status }) => status === "fulfilled"));
});

/** Knows by now that `or` is quick, and hands many over at once. */
async function warm(pool: Pool<Work>): Promise<void> {
  for (let round = 0; round < 20; round++) await Promise.all(Array.from({ length: 20 }, () => pool.run("or", ["", 0])));
}

test("of a batch the tasks in front of the one that killed the thread have their results", async (t) => {
  const pool = open(t);
  await warm(pool);
  const values = [undefined, null, 5, "text", { a: [1] }, Buffer.from("bytes"), Buffer.alloc(5_000, 1)];
  const outcomes = await Promise.allSettled([
    ...values.map((value) => pool.run("or", ["", value])),
    pool.run("or", ["throw", "wrong"]),
    pool.run("or", ["exit", 0]),
    pool.run("or", ["", "behind"]),
  ]);
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.message)),
    [...values, "wrong", outcomes[8]?.status === "rejected" ? outcomes[8].reason.message : "", "behind"],
  );
  assert.match(String((outcomes[8] as PromiseRejectedResult).reason), /the thread died/);
});

test("a thread that dies does not take the hand-over before along, whose reply nobody has read yet", async (t) => {
  const pool = open(t);
  for (let round = 0; round < 5; round++) {
    await warm(pool);
    const done = pool.run("or", ["", "done"]);
    const deadly = pool.run("or", ["exit", 0]);
    await assert.rejects(deadly, { code: "thread-died" });
    assert.equal(await done, "done");
  }
});

test("what is too large to be kept fails truthfully when another task kills the thread", async (t) => {
  const pool = open(t);
  await warm(pool);
  const outcomes = await Promise.allSettled([
    pool.run("or", ["", "kept"]),
    pool.run("or", ["", Buffer.alloc(70_000)]),
    pool.run("or", ["", "behind what is not"]),
    pool.run("or", ["exit", 0]),
    // Half of all are handed over together.
    ...[1, 2, 3, 4].map((value) => pool.run("or", ["", value])),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status === "fulfilled"),
    [true, false, false, false, true, true, true, true],
  );
  for (const outcome of outcomes.slice(1, 3)) {
    assert.match(String((outcome as PromiseRejectedResult).reason), /was done, but what it returned was lost/);
  }
});

test("tasks in front of one that is slow for once need not wait for it; nor do they die with it", async (t) => {
  const pool = open(t, { maxRunTime: "1s" });
  await warm(pool);
  const began = performance.now();
  const front = [1, 2, 3].map((value) => pool.run("or", ["", value]));
  const slow = pool.run("or", ["spin", 60_000]);
  assert.deepEqual(await Promise.all(front), [1, 2, 3]);
  assert.ok(performance.now() - began < 900, `${performance.now() - began} ms`);
  await assert.rejects(slow, { code: "deadline-exceeded" });
});

test("an error outside of any task ends the thread, and not the process", async (t) => {
  const pool = open(t);
  await pool.run("failsLater", []).catch(() => {});
  const values = await Promise.allSettled(Array.from({ length: 20 }, (_, value) => pool.run("later", [String(value)])));
  assert.ok(values.some(({ status }) => status === "fulfilled"));
  assert.equal(await pool.run("same", [1]), 1);
});

test("a task that runs for too long is ended with its thread, which is replaced", async (t) => {
  const pool = open(t, { maxRunTime: "200ms" });
  for (const endless of [pool.run("spin", [60_000]), pool.run("never", [])]) {
    await assert.rejects(
      endless,
      (error) => error instanceof DeadlineExceeded && /ran for more than 200 ms/.test(error.message),
    );
  }
  assert.equal(await pool.run("same", [1]), 1);
});

test("overload: the queue stays short, the rest is refused, the threads stay busy; then calm returns", async (t) => {
  const pool = open(t, { queue: 100_000, maxQueueDelay: "10s" });
  inner(pool).configure({ tasks: { threads: 1, queue: 100_000 }, workers: 1, queueDelay: 20 });
  const pressure: boolean[] = [];
  inner(pool).onPressure((pressed) => pressure.push(pressed));
  await pool.run("spin", [1]);
  const waits: number[] = [];
  let refused = 0;
  const begun = performance.now();
  while (performance.now() - begun < 1_500) {
    // Three times what one thread can do.
    for (let each = 0; each < 15; each++) {
      const at = performance.now();
      pool.run("spin", [1]).then(
        () => performance.now() - begun > 700 && waits.push(performance.now() - at),
        (error) => {
          assert.ok(busy("queue-delay")(error), String(error));
          refused += 1;
        },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const p99 = waits.toSorted((a, b) => a - b)[Math.floor(waits.length * 0.99)] as number;
  assert.ok(waits.length > 250, `${waits.length} of about 800 done in the second half`);
  assert.ok(refused > waits.length, `${refused} refused`);
  assert.ok(p99 < 100, `p99 ${p99} ms`);
  assert.ok(inner(pool).refuses("normal") instanceof ServerBusy || pool.waiting < 40);
  await until("calm", () => pressure.at(-1) === false);
  assert.deepEqual(pressure, [true, false], "it does not flap");
  assert.equal(inner(pool).refuses("normal"), undefined);
  assert.equal(await pool.run("same", [1]), 1);
});

test("a burst that is worked off within the interval is no overload", async (t) => {
  const pool = open(t);
  inner(pool).configure({ tasks: {}, workers: 1, queueDelay: 5 });
  await pool.run("spin", [1]);
  const burst = await Promise.allSettled(Array.from({ length: 25 }, () => pool.run("spin", [1])));
  assert.equal(burst.filter(({ status }) => status === "rejected").length, 0);
});

test("close refuses what waits and ends what runs", async (t) => {
  const pool = open(t);
  const { running } = await occupied(pool, 60_000);
  const ended = assert.rejects(running, { code: "thread-died" });
  const waiting = assert.rejects(pool.run("same", [1]), busy("closing"));
  await pool.close();
  await Promise.all([ended, waiting]);
  await assert.rejects(pool.run("same", [1]), busy("closing"));
});

const BAD: [what: string, code: string | undefined, problem: RegExp][] = [
  ["a module that is not there", undefined, /pool bad: module .*bad\.mjs does not exist$/],
  [
    "one that throws",
    "\nthrow new Error('no licence');",
    /bad\.mjs threw while it was loaded \(.*bad\.mjs:2\): no licence$/,
  ],
  ["one that is no JavaScript", "export function {", /bad\.mjs is not valid JavaScript \(.*bad\.mjs:1\)/],
  ["one that imports what is not there", "import './gone.mjs';", /bad\.mjs imports something that does not exist/],
  ["one without functions", "export const x = 1;", /bad\.mjs exports no function; each exported function is a task$/],
  ["one that ends its thread", "process.exit(1);", /bad\.mjs ended its thread while it was loaded/],
];

for (const [what, code, problem] of BAD) {
  test(`${what} is named at the start, and to the tasks`, async (t) => {
    const file = join(makeFolder(t), "bad.mjs");
    if (code !== undefined) writeFileSync(file, code);
    const pool = definePool<Work>({ name: "bad", module: pathToFileURL(file), threads: 2 });
    const task = assert.rejects(pool.run("same", [1]), { message: problem });
    await assert.rejects(inner(pool).start(), {
      code: /throws/.test(what) ? "service-failed" : "service-invalid",
      message: problem,
    });
    await task;
    await assert.rejects(pool.run("same", [1]), { message: problem });
  });
}

test("a wrong definition is refused, naming the property and what is allowed", () => {
  const good = { name: "x", module: WORK };
  const cases: [unknown, RegExp][] = [
    [undefined, /expects an object/],
    [{ module: WORK }, /definePool: name: not a text/],
    [{ name: "x" }, /module: not the URL of a file; allowed: new URL/],
    [{ name: "x", module: "./work.js" }, /module: not the URL/],
    [{ name: "x", module: new URL("https://example.org/x.js") }, /module: not the URL of a file/],
    [{ ...good, thread: 1 }, /thread: unknown; did you mean threads\?/],
    [{ ...good, threads: 0 }, /threads: .*1 to 256 or auto/],
    [{ ...good, queue: "many" }, /queue: /],
    [{ ...good, maxQueueDelay: 5 }, /maxQueueDelay: /],
  ];
  for (const [given, problem] of cases) {
    assert.throws(() => definePool(given as PoolDefinition), { code: "service-invalid", message: problem });
  }
});
