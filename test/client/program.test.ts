/** Clients in a plain Node program: its own engine, which neither keeps it alive nor lets it end with calls under way. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openDownstream } from "../support/downstream.js";
import { moduleUrl, runScript } from "../support/script.js";

const PRELUDE = `
import { defineClient } from ${moduleUrl("#src/client/define.js")};
import { line } from ${moduleUrl("#src/codec/line.js")};
`;

test("it asks, and ends by itself although its connections are open", async (t) => {
  const downstream = await openDownstream(t);
  const { code, stdout, stderr } = await runScript(
    t,
    `${PRELUDE}
    const client = defineClient({ name: "test", codec: line(), targets: ["${downstream.target}"] });
    for (const word of ["one", "two"]) console.log(await client.call(word));
    console.log(client.stats().targets[0].connections);`,
  );
  assert.deepEqual([code, stdout, stderr], [0, "one\ntwo\n1\n", ""]);
});

test("a call under way keeps it alive until its reply, or until its deadline", async (t) => {
  const downstream = await openDownstream(t, (text, socket) => {
    if (text === "late") setTimeout(() => socket.write("late\n"), 300);
  });
  const { code, stdout } = await runScript(
    t,
    `${PRELUDE}
    const client = defineClient({ name: "test", codec: line(), targets: ["${downstream.target}"] });
    console.log(await client.call("late"));
    console.log(await client.call("never", { timeoutMs: 200 }).catch(({ code }) => code));`,
  );
  assert.deepEqual([code, stdout], [0, "late\ndeadline-exceeded\n"]);
});

test("in a worker thread: a typed error, at the call", async (t) => {
  const { code, stdout } = await runScript(
    t,
    `import { Worker } from "node:worker_threads";
    const source = ${JSON.stringify(PRELUDE)} + \`
    const client = defineClient({ name: "test", codec: line(), targets: ["127.0.0.1:7000"] });
    console.log(await client.call("x").catch(({ code }) => code));\`;
    new Worker(new URL("data:text/javascript," + encodeURIComponent(source)));`,
  );
  assert.deepEqual([code, stdout], [0, "engine-thread\n"]);
});
