/** The log's level at run time: a primary of this process, with real workers that log to a file. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createLogger } from "#src/base/log.js";
import { loadConfig } from "#src/config/load.js";
import { Certificates } from "#src/primary/certificates.js";
import { freshOrigin } from "#src/primary/origin.js";
import { Primary } from "#src/primary/primary.js";
import { openClient } from "../support/client.js";
import { makeFolder } from "../support/folder.js";
import { until } from "../support/until.js";

const ignore = (): void => {};

interface Line {
  readonly level: number;
  readonly msg: string;
  readonly worker?: number;
}

/** `gated`: workers load for as long as the file `gate` is not there. */
async function startPrimary(t: TestContext, workers: number, gated = false) {
  const folder = makeFolder(t);
  const [file, path] = [join(folder, "h.log"), join(folder, "headrace.yaml")];
  const [gate, gateway] = [join(folder, "gate"), join(folder, "gateway.mjs")];
  writeFileSync(gate, "");
  writeFileSync(
    gateway,
    `import { existsSync } from "node:fs";
    while (!existsSync("${gate}")) await new Promise((resolve) => setTimeout(resolve, 10));`,
  );
  const loading = gated ? `tracing: { module: ${gateway} }\n` : "";
  const configure = (level: string, more = loading): void => {
    const listeners = 'listeners: [{ address: "127.0.0.1:0", service: echo-line }]';
    writeFileSync(path, `workers: ${workers}\nlog: { level: ${level}, file: ${file} }\n${listeners}\n${more}`);
  };
  configure("info");
  const readConfig = () => loadConfig({ env: {}, flags: {}, cwd: folder });
  const config = readConfig();
  const log = createLogger({ level: config.logLevel, file: config.logFile });
  const observer = { onStep: ignore, onChange: ignore, onHealth: ignore, onStopping: ignore };
  const primary = new Primary({
    ...{ config, workers, log, observer, readConfig, onTrial: false, pretty: false },
    ...{ origin: freshOrigin(), certificates: new Certificates(log) },
  });
  t.after(async () => {
    primary.stop(true);
    await primary.stopped;
  });
  assert.equal(await primary.start(), true);
  const port = Number(primary.addresses[0]?.split(":").at(-1));
  const lines = (): Line[] =>
    existsSync(file)
      ? readFileSync(file, "utf8")
          .split("\n")
          .slice(0, -1)
          .map((line) => JSON.parse(line))
      : [];
  const closes = (): Line[] => lines().filter(({ msg }) => msg === "connection closed");
  /** Uses a connection and ends it. */
  const visit = async (): Promise<void> => {
    const client = await openClient(t, port);
    assert.equal(await client.ask("hello"), "hello");
    client.socket.end();
    await client.closed;
  };
  return { primary, configure, lines, closes, visit, log, gate };
}

test("a level that is set holds in the primary, in every worker and in those to come, until a reload", async (t) => {
  const { primary, configure, lines, closes, visit, log } = await startPrimary(t, 1);
  const own = (): boolean => {
    log.debug("of the primary");
    return lines().some(({ msg }) => msg === "of the primary");
  };
  await visit();
  assert.equal(own(), false);
  assert.deepEqual(await primary.setLogLevel("debug"), { level: "debug", workers: 1 });
  assert.equal(primary.logLevel, "debug");
  await visit();
  await until("the worker logs the close", () => closes().length === 1);
  await until("so does the primary", own);

  // A worker that comes later.
  await primary.drain(0);
  await visit();
  await until("its successor logs the close", () => closes().length === 2);

  // A reload that fails changes nothing.
  configure("info", "control: /elsewhere/control.sock\n");
  await assert.rejects(primary.reload(false), /control: cannot change/);
  assert.equal(primary.logLevel, "debug");
  await visit();
  await until("it is still logged", () => closes().length === 3);

  configure("info");
  await primary.reload(false);
  assert.equal(primary.logLevel, "info");
  await visit();
  await until("only the successor is left", () => primary.crew.all.length === 1);
  assert.equal((await primary.setLogLevel("debug")).workers, 1);
  await visit();
  await until("the one after the reload was not logged", () => closes().length === 4);
});

test("connections that are open follow, also what they have in hand", async (t) => {
  const { primary, closes } = await startPrimary(t, 2);
  const port = Number(primary.addresses[0]?.split(":").at(-1));
  const clients = await Promise.all(Array.from({ length: 6 }, () => openClient(t, port)));
  for (const client of clients) assert.equal(await client.ask("a"), "a");
  assert.equal((await primary.setLogLevel("debug")).workers, 2);
  for (const client of clients) client.socket.end();
  await until("each of them is logged", () => closes().length === 6);
});

test("a level that is set while a worker loads its services holds in it, too, and so does its end", async (t) => {
  const { primary, closes, visit, gate } = await startPrimary(t, 1, true);
  /** Replaces the worker, and does something while its successor loads. */
  const meanwhile = async (act: () => Promise<unknown>): Promise<void> => {
    rmSync(gate);
    const drained = primary.drain(0);
    await until("a successor loads", () => primary.crew.all.some(({ state }) => state === "starting"));
    await act();
    writeFileSync(gate, "");
    await drained;
  };
  await meanwhile(() => primary.setLogLevel("debug"));
  await visit();
  await until("the successor logs the close", () => closes().length === 1);
  await meanwhile(() => primary.setLogLevel("info"));
  await visit();
  await until("only the successor is left", () => primary.crew.all.length === 1);
  assert.equal((await primary.setLogLevel("debug")).workers, 1);
  await visit();
  await until("the one before was not logged", () => closes().length === 2);
});
