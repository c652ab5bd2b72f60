/** What is asked about connections while they are on their way: stand-ins for workers, which say where a move stands. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnectionQuery } from "#src/control/inspection.js";
import { killConnection, listConnections } from "#src/primary/inspection.js";
import type { Primary } from "#src/primary/primary.js";

/** The first `misses` times it is asked nobody has the connection. */
function primaryOf(workerState: string, misses: number, departing = false): { primary: Primary; asked: () => number } {
  let asked = 0;
  const ask = async (kind: string): Promise<object> => {
    asked += 1;
    return kind === "kill" ? { killed: asked > misses } : { total: 0, keys: [], handles: [] };
  };
  const crew = { all: [{ state: workerState, slot: 0, ask }] };
  return { primary: { crew, state: "running", departing } as unknown as Primary, asked: () => asked };
}

const QUERY: ConnectionQuery = { sort: "age", order: "desc", limit: 10, offset: 0 };
const BEFORE = { pid: 42, generation: 3, open: 1, since: "" };

test("a connection that is in no worker for a moment, because it moves, is asked for once more", async () => {
  const { primary, asked } = primaryOf("retired", 1);
  await killConnection(primary, "moving");
  assert.equal(asked(), 2);
  const never = primaryOf("retired", 9);
  await assert.rejects(killConnection(never.primary, "nobody"), { code: "not-found" });
  assert.equal(never.asked(), 2);
});

test("while nothing moves, what is not there is said at once", async () => {
  const { primary, asked } = primaryOf("accepting", 1);
  await assert.rejects(killConnection(primary, "nobody"), { code: "not-found" });
  assert.equal(asked(), 1);
});

test("where another generation may have it, nobody says that it is not there", async () => {
  await assert.rejects(killConnection(primaryOf("accepting", 9).primary, "x", BEFORE), { code: "no-answer" });
  await assert.rejects(killConnection(primaryOf("stopping", 9, true).primary, "x"), { code: "no-answer" });
});

test("a page of connections says whose are not among its rows", async () => {
  const missing = async (primary: Primary, before?: typeof BEFORE): Promise<readonly string[]> =>
    (await listConnections(primary, QUERY, before)).missing;
  assert.deepEqual(await missing(primaryOf("accepting", 0).primary), []);
  assert.match(String(await missing(primaryOf("retired", 0).primary)), /on their way/);
  assert.match(String(await missing(primaryOf("stopping", 0, true).primary)), /next generation/);
  assert.match(String(await missing(primaryOf("accepting", 0).primary, BEFORE)), /generation 3, process 42/);
});

test("rows stand in order though some connections have gone", async () => {
  const worker = (keys: number[], rows: (number | null)[]): object => ({
    state: "accepting",
    ask: async (kind: string): Promise<object> =>
      kind === "connectionKeys"
        ? { total: keys.length, keys, handles: keys.flatMap((key) => [key, 0]) }
        : { rows: rows.map((id) => id && { id: String(id) }) },
  });
  const crew = { all: [worker([9, 7, 5], [null, 7, 5]), worker([8, 6, 4], [8, null, 4])] };
  const primary = { crew, state: "running" } as unknown as Primary;
  const { rows } = await listConnections(primary, QUERY);
  assert.deepEqual(
    rows.map(({ id }) => id),
    ["8", "7", "5", "4"],
  );
});
