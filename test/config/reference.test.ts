import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_LIMITS, DEFAULT_SOCKET, DEFAULT_TASKS, DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import { VARIABLES } from "#src/config/environment.js";
import { configReference, jsonSchema } from "#src/config/reference.js";
import { ROWS } from "#src/config/rows.js";
import { load } from "./folder.js";

interface JsonSchema {
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  description?: string;
  default?: unknown;
  required?: string[];
  additionalProperties?: boolean;
}

const options = ROWS.filter(({ kind }) => kind === "option");

test("every group and option has a description in one line, every option says what is allowed", () => {
  for (const { path, description } of ROWS) assert.match(description, /^\S.{10,}\.$/, path.join("."));
  for (const { path, allowed } of options) assert.notEqual(allowed, "", path.join("."));
});

test("every limit, timeout and socket option of src/base is there, at the top and on listeners", () => {
  const groups = { limits: DEFAULT_LIMITS, timeouts: DEFAULT_TIMEOUTS, socket: DEFAULT_SOCKET };
  const known = new Set(options.map(({ path }) => path.join(".")));
  for (const [group, values] of Object.entries(groups)) {
    for (const name of Object.keys(values)) {
      assert.ok(known.has(`${group}.${name}`), `${group}.${name}`);
      assert.ok(known.has(`listeners.[].${group}.${name}`), `listeners.[].${group}.${name}`);
    }
  }
});

test("every default is what one may write, through its variable, and changes nothing", (t) => {
  const unset = load(t, {});
  const env: NodeJS.ProcessEnv = {};
  for (const [name, path] of VARIABLES) {
    const row = options.find((option) => option.path.join() === path.join());
    if (row?.default !== undefined) env[name] = String(row.default);
  }
  // With nothing at all configured there is an admin server, with anything there is none.
  env.HEADRACE_ADMIN_ADDRESS = unset.admin?.addressText;
  const written = load(t, { env });
  const listeners = written.listeners.map((listener) => ({ ...listener, limits: {}, timeouts: {} }));
  assert.deepEqual({ ...written, listeners, tasks: {} }, unset);
  assert.deepEqual(written.tasks, DEFAULT_TASKS);
  assert.deepEqual(written.listeners[0]?.limits, DEFAULT_LIMITS);
  assert.deepEqual(written.listeners[0]?.timeouts, DEFAULT_TIMEOUTS);
  assert.equal(
    Object.keys(env).length,
    VARIABLES.size - 3,
    "all but `control`, `pidFile` and the token have a default",
  );
});

test("variables are named after the path", () => {
  assert.deepEqual(VARIABLES.get("HEADRACE_SOCKET_NO_DELAY"), ["socket", "noDelay"]);
  assert.deepEqual(VARIABLES.get("HEADRACE_SOCKET_IPV6_ONLY"), ["socket", "ipv6Only"]);
  assert.deepEqual(VARIABLES.get("HEADRACE_CONTROL"), ["control"]);
  assert.ok([...VARIABLES.keys()].every((name) => /^HEADRACE_[A-Z0-9_]+$/.test(name)));
});

test("the table has a row of six cells for every option", () => {
  const lines = configReference().trimEnd().split("\n");
  assert.ok(
    lines.every((line) => line.split(" | ").length === 6),
    "six cells",
  );
  for (const { path } of options.filter(({ path }) => path[0] !== "listeners")) {
    assert.ok(
      lines.some((line) => line.startsWith(`| \`${path.join(".")}\` |`)),
      path.join("."),
    );
  }
  assert.ok(
    lines.includes(
      "| `limits.frame` | size, 1 to 1GiB | `1MiB` | Bytes of one frame's payload, both ways. A longer one closes the connection. | at once | `HEADRACE_LIMITS_FRAME` |",
    ),
  );
  assert.ok(lines.some((line) => /^\| `listeners\[\]\.address` \|.* by new workers \|/.test(line)));
});

test("the JSON Schema refuses unknown options and knows descriptions and defaults", () => {
  const schema = jsonSchema() as JsonSchema;
  assert.equal(schema.additionalProperties, false);
  const frame = schema.properties?.limits?.properties?.frame;
  assert.equal(frame?.default, "1MiB");
  assert.match(frame?.description ?? "", /payload/);
  assert.equal(schema.properties?.limits?.properties?.connections?.default, 10_000);
  assert.equal(schema.properties?.socket?.properties?.noDelay?.default, true);
  assert.deepEqual(schema.properties?.listeners?.items?.required, ["address", "service"]);
  assert.doesNotMatch(JSON.stringify(schema), /"allowed"/);
});
