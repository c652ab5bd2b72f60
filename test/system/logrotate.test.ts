/** deploy/logrotate/headrace with the real logrotate, while clients come and go. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { openClient } from "../support/client.js";
import { makeFolder } from "../support/folder.js";
import { linesOf } from "../support/log-process.js";
import { startServer } from "../support/server.js";
import { until } from "../support/until.js";

const SHIPPED = fileURLToPath(new URL("../../../deploy/logrotate/headrace", import.meta.url));

test("logrotate takes the shipped file as it is", () => {
  const { status, stderr } = spawnSync("logrotate", ["--debug", SHIPPED], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /error/);
});

test("rotated and compressed again and again, no line of any process is lost", async (t) => {
  const folder = makeFolder(t);
  chmodSync(folder, 0o700);
  const file = join(folder, "headrace.log");
  const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "2", "--log-level", "debug"], {
    env: { HEADRACE_LOG_FILE: file },
  });
  const read = (path: string): { msg: string; connection?: string; listeners?: { address: string }[] }[] =>
    existsSync(path) ? linesOf(path).map((line) => JSON.parse(line)) : [];
  const ready = await until("ready", () => read(file).find(({ msg }) => msg === "ready"));
  const port = Number(ready.listeners?.[0]?.address.split(":").at(-1));
  const config = join(folder, "rotate.conf");
  const text = readFileSync(SHIPPED, "utf8")
    .replace("/var/log/headrace/*.log", join(folder, "*.log"))
    .replace(/systemctl kill .*/, `kill -USR1 ${server.pid}`);
  writeFileSync(config, text, { mode: 0o600 });
  let visits = 0;
  const visit = async (): Promise<void> => {
    const client = await openClient(t, port);
    await client.ask("x");
    client.socket.end();
    await client.closed;
    visits++;
  };
  for (let turn = 1; turn <= 4; turn++) {
    for (let i = 0; i < 10; i++) await visit();
    const meanwhile = visit();
    execFileSync("logrotate", ["--force", "--state", join(folder, "state"), config]);
    await until("it was reopened", () => read(file).some(({ msg }) => msg === "the log file was reopened"));
    await meanwhile;
  }
  await visit();
  const all = (): string =>
    readdirSync(folder)
      .filter((name) => name.startsWith("headrace.log"))
      .map((name) => readFileSync(join(folder, name)))
      .map((bytes) => (bytes[0] === 0x1f ? gunzipSync(bytes) : bytes).toString())
      .join("");
  const closed = (): Set<unknown> => {
    const lines = all().split("\n").slice(0, -1);
    return new Set(
      lines
        .map((line) => JSON.parse(line))
        .flatMap((line) => (line.msg === "connection closed" ? [line.connection] : [])),
    );
  };
  await until("every end is in one of the files", () => closed().size === visits);
  assert.ok(
    readdirSync(folder).some((name) => name.endsWith(".gz")),
    "older ones are compressed",
  );
});
