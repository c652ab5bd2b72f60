import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type ConfigChange, planChange } from "#src/config/change.js";
import type { Config } from "#src/config/config.js";
import { EFFECTS } from "#src/config/effects.js";
import { ROWS, type Row } from "#src/config/rows.js";
import { load, makeFolder } from "./folder.js";

const NOTHING: ConfigChange = { live: [], workers: [], restart: [], added: [], removed: [] };
const LISTENERS = `
listeners:
  - { name: lines, address: "127.0.0.1:9000", service: echo-line }
  - { name: six, address: "[::1]:9001", service: ./game.js }
`;

function plan(t: TestContext, before: string, after: string): ConfigChange {
  const folder = makeFolder(t);
  return planChange(load(t, { yaml: before }, folder), load(t, { yaml: after }, folder));
}

const optionOf = (path: readonly string[]): string => path.join(".").replaceAll(".[]", "[]");
const options = ROWS.filter(({ kind }) => kind === "option");

test("the table says of every option of the schema how it comes into effect, and of nothing else", () => {
  assert.deepEqual(Object.keys(EFFECTS).sort(), options.map(({ path }) => optionOf(path)).sort());
});

/** Values other than the default, where one cannot be made from what is allowed. */
const OTHER: Readonly<Record<string, string>> = {
  workers: "7",
  "limits.highWater": "40KiB",
  "limits.buffered": "1MiB",
  "limits.onLimit": "wait",
  "limits.connectBurst": "7",
  "admission.allow": "[10.0.0.0/8]",
  "admission.deny": "[10.0.0.0/8]",
  "limits.bufferMemory": "8MiB",
  "shed.memory": "1GiB",
  "log.level": "debug",
  "admin.address": '"127.0.0.1:9901"',
  "admin.token": "another-0123456789",
  "admin.hosts": "[box.example]",
  control: "/run/other.sock",
  pidFile: "/run/other.pid",
};

function otherValue(option: string, { allowed, default: fallback }: Row): string {
  const made = allowed.startsWith("duration") ? "77s" : allowed.startsWith("size") ? "8KiB" : "100";
  return OTHER[option] ?? (typeof fallback === "boolean" ? String(!fallback) : made);
}

/** `limits: { frame: 8KiB }` */
function written(option: string, value: string): string {
  const [group, name] = option.split(".");
  return name === undefined ? `${group}: ${value}` : `${group}: { ${name}: ${value} }`;
}

/** Without an address the others of `admin` say nothing. */
const ADMIN = 'address: "127.0.0.1:9900"';

for (const row of options.filter(({ path }) => path[0] !== "listeners")) {
  const option = optionOf(row.path);
  test(`a change of ${option} is found, and is what the table says`, (t) => {
    const inAdmin = option.startsWith("admin.") && option !== "admin.address";
    const changed = written(option, otherValue(option, row)).replace(
      "admin: {",
      inAdmin ? `admin: { ${ADMIN},` : "admin: {",
    );
    const before = inAdmin ? `${LISTENERS}admin: { ${ADMIN} }\n` : LISTENERS;
    const { live, workers, restart, scale, added, removed } = plan(t, before, `${LISTENERS}${changed}\n`);
    assert.deepEqual([added, removed], [[], []]);
    assert.deepEqual(live, EFFECTS[option] === "live" ? [option] : []);
    assert.deepEqual(workers, EFFECTS[option] === "workers" ? [option] : []);
    assert.equal(restart.length, EFFECTS[option] === "restart" ? 1 : 0);
    assert.equal(scale !== undefined, EFFECTS[option] === "scale");
  });
}

/** Of the groups that listeners share with the top. Those of their own have tests of their own. */
const SHARED = ["limits", "timeouts", "socket", "admission"];

for (const row of options.filter(({ path: [top, , group = ""] }) => top === "listeners" && SHARED.includes(group))) {
  const option = row.path.slice(2).join(".");
  test(`a change of one listener's ${option} is found, and is what the table says`, (t) => {
    const own = `service: ./game.js, ${written(option, otherValue(option, row))}`;
    const { live, workers, restart } = plan(t, LISTENERS, LISTENERS.replace("service: ./game.js", own));
    const effect = EFFECTS[optionOf(row.path)];
    assert.deepEqual(live, effect === "live" ? [`${option} (six)`] : []);
    assert.deepEqual(workers, effect === "workers" ? [`${option} (six)`] : []);
    assert.equal(restart.length, effect === "restart" ? 1 : 0);
  });
}

test("the same configuration is no change, however it is written", (t) => {
  assert.deepEqual(plan(t, LISTENERS, LISTENERS), NOTHING);
  const spelled = LISTENERS.replace("127.0.0.1:9000", "localhost:9000").replace("./game.js", "game.js");
  assert.deepEqual(plan(t, LISTENERS, spelled), NOTHING);
  const [first = "", ...rest] = LISTENERS.trim().split("\n");
  assert.deepEqual(plan(t, LISTENERS, [first, ...rest.reverse()].join("\n")), NOTHING, "the order of listeners");
});

test("services and names need new workers", (t) => {
  const { workers, live } = plan(t, LISTENERS, LISTENERS.replace("echo-line", "hash-line").replace("six", "vi"));
  assert.deepEqual([workers, live], [["listeners[].name (vi)", "listeners[].service (lines)"], []]);
});

test("listeners come and go by their address", (t) => {
  const moved = LISTENERS.replace("127.0.0.1:9000", "127.0.0.1:9100");
  const { added, removed, workers, restart } = plan(t, LISTENERS, moved);
  assert.deepEqual(
    [added.map(({ addressText }) => addressText), removed.map(({ addressText }) => addressText)],
    [["127.0.0.1:9100"], ["127.0.0.1:9000"]],
  );
  assert.deepEqual([workers, restart], [["listeners[].address (lines)"], []]);
});

test("with port 0 the name tells listeners apart", (t) => {
  const zero = LISTENERS.replace(":9000", ":0");
  assert.deepEqual(plan(t, zero, zero), NOTHING);
  const { added, removed } = plan(t, zero, zero.replace("lines", "rows"));
  assert.deepEqual([added.map(({ name }) => name), removed.map(({ name }) => name)], [["rows"], ["lines"]]);
});

test("a listener with its own value is not touched by the one at the top", (t) => {
  const before = LISTENERS.replace("service: echo-line", "service: echo-line, timeouts: { idle: 5s }");
  assert.deepEqual(plan(t, before, `${before}timeouts: { idle: 9s }\n`).live, ["timeouts.idle (six)"]);
});

test("the total of connections is named as such, whichever listeners have caps of their own", (t) => {
  const before = LISTENERS.replace("service: echo-line", "service: echo-line, limits: { connections: 5 }");
  assert.deepEqual(plan(t, before, `${before}limits: { connections: 50 }\n`).live, ["limits.connections"]);
});

test("ipv6Only of an open address needs a restart; of an IPv4 one it means nothing", (t) => {
  const { restart, added, removed } = plan(t, LISTENERS, `${LISTENERS}socket: { ipv6Only: true }\n`);
  assert.deepEqual(restart, [
    "listener six: socket.ipv6Only: cannot change from false to true while [::1]:9001 is open; restart the server, or remove the listener, reload, and add it again",
  ]);
  assert.deepEqual([added, removed], [[], []]);
});

test("an address in whose way an open one stands is refused with the way round", (t) => {
  assert.deepEqual(plan(t, LISTENERS, LISTENERS.replace("127.0.0.1:9000", "0.0.0.0:9000")).restart, [
    "listener lines: 0.0.0.0:9000 cannot be opened before 127.0.0.1:9000 is closed; remove listener lines, reload, and then add this one",
  ]);
});

test("control and pidFile stay where they are", (t) => {
  const { restart } = plan(t, `control: /run/a.sock\n${LISTENERS}`, `pidFile: /run/a.pid\n${LISTENERS}`);
  assert.deepEqual(restart, [
    "control: cannot change from /run/a.sock to the default while the server runs; restart it",
    "pidFile: cannot change from none to /run/a.pid while the server runs; restart it",
  ]);
});

test("the number of workers is a scale", (t) => {
  const { scale } = plan(t, `workers: 2\n${LISTENERS}`, `workers: 5\n${LISTENERS}`);
  assert.deepEqual(scale, { from: 2, to: 5 });
});

test("planning changes neither configuration", (t) => {
  const deepFreeze = (value: object): object => {
    for (const inner of Object.values(value)) if (typeof inner === "object" && inner !== null) deepFreeze(inner);
    return Object.freeze(value);
  };
  const [before, after] = [load(t, { yaml: LISTENERS }), load(t, {})];
  planChange(deepFreeze(before) as Config, deepFreeze(after) as Config);
});
