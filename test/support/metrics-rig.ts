/**
 * A primary with its workers, in the test's own process, and its metrics behind a small HTTP server: what the admin
 * server does with them, without the admin server.
 */
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pino } from "pino";
import { loadConfig } from "#src/config/load.js";
import { Certificates } from "#src/primary/certificates.js";
import { openMetrics } from "#src/primary/metrics-source.js";
import { freshOrigin } from "#src/primary/origin.js";
import { Primary } from "#src/primary/primary.js";
import { type Exposition, readExposition } from "./exposition.js";
import { makeFolder } from "./folder.js";

export interface MetricsRig {
  readonly primary: Primary;
  /** Of the listeners. */
  readonly ports: readonly number[];
  /** Where Prometheus scrapes: "127.0.0.1:PORT", path /metrics. */
  readonly target: string;
  /** Messages that the primary has logged. */
  readonly logged: readonly string[];
  /** A scrape over HTTP. */
  scrape(): Promise<Exposition>;
}

/** Serves `config` (as JSON of a configuration file), in `folder`. Ends with the test. */
export async function startMetricsRig(
  t: TestContext,
  config: object,
  folder: string = makeFolder(t),
): Promise<MetricsRig> {
  writeFileSync(join(folder, "headrace.json"), JSON.stringify({ log: { level: "error" }, ...config }));
  const read = () => loadConfig({ file: "headrace.json", env: {}, flags: {}, cwd: folder });
  const logged: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => logged.push(JSON.parse(line).msg) });
  const first = read();
  const certificates = new Certificates(log);
  certificates.require(first);
  const primary = new Primary({
    config: first,
    workers: first.workers,
    onTrial: false,
    log,
    pretty: false,
    origin: freshOrigin(),
    certificates,
    observer: { onStep() {}, onChange() {}, onHealth() {}, onStopping() {} },
    readConfig: read,
  });
  let unauthorized = 0;
  const render = openMetrics(primary, {
    version: "0.0.0-test",
    log,
    ready: () => primary.state === "running" && primary.health === "ok",
    unauthorized: () => unauthorized,
    logLinesDropped: () => 0,
  });
  const server = createServer((request, response) => {
    if (request.url !== "/metrics") {
      unauthorized++;
      response.writeHead(401).end();
      return;
    }
    render().then(
      ({ contentType, body }) => response.writeHead(200, { "content-type": contentType }).end(body),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(async () => {
    server.closeAllConnections();
    server.close();
    primary.stop(true);
    await primary.stopped;
  });
  await primary.start();
  const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    primary,
    ports: primary.addresses.map((address) => Number(address.split(":").at(-1))),
    target,
    logged,
    async scrape() {
      const response = await fetch(`http://${target}/metrics`);
      const body = await response.text();
      if (response.status !== 200) throw new Error(`scrape: ${response.status} ${body}`);
      return readExposition(body);
    },
  };
}
