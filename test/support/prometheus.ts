/** A real Prometheus with the configuration of deploy/: target, token and intervals are a test's own, the rest is as shipped. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { parse, stringify } from "yaml";
import { packageRoot } from "#src/os/addon.js";
import { freePort } from "./balancers.js";
import { until, within } from "./until.js";

export const PROMETHEUS_FOLDER: string = join(packageRoot(), "deploy", "prometheus");
const INTERVAL = "500ms";

/** One series of an answer, at one moment. */
interface QuerySample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

interface RuleHealth {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
}

export interface Prometheus {
  /** Throws what is wrong with the expression. */
  query(expression: string): Promise<readonly QuerySample[]>;
  rules(): Promise<readonly RuleHealth[]>;
}

/** Whom it scrapes. */
interface Scraped {
  readonly target: string;
  readonly token: string;
}

/** Writes the shipped configuration for a target into `folder`. Returns its path. */
export function writePrometheusConfig(folder: string, { target, token }: Scraped): string {
  const config = parse(readFileSync(join(PROMETHEUS_FOLDER, "scrape.yml"), "utf8"));
  const credentials = join(folder, "token");
  writeFileSync(credentials, token);
  Object.assign(config.global, { scrape_interval: INTERVAL, evaluation_interval: INTERVAL });
  const [scrape] = config.scrape_configs;
  Object.assign(scrape, { scrape_timeout: INTERVAL, static_configs: [{ targets: [target] }] });
  scrape.authorization.credentials_file = credentials;
  copyFileSync(join(PROMETHEUS_FOLDER, "alerts.yml"), join(folder, "alerts.yml"));
  const path = join(folder, "prometheus.yml");
  writeFileSync(path, stringify(config));
  return path;
}

/** Runs it until the test ends. */
export async function startPrometheus(t: TestContext, folder: string, scraped: Scraped): Promise<Prometheus> {
  const config = writePrometheusConfig(folder, scraped);
  const data = join(folder, "data");
  mkdirSync(data);
  const address = `127.0.0.1:${await freePort()}`;
  const args = [
    `--config.file=${config}`,
    `--storage.tsdb.path=${data}`,
    `--web.listen-address=${address}`,
    "--web.enable-lifecycle",
  ];
  const child = spawn("prometheus", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  const exited = once(child, "exit");
  const lines: string[] = [];
  createInterface(child.stderr).on("line", (line) => lines.push(line));
  t.after(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const ask = async (path: string): Promise<unknown> => {
    const response = await fetch(`http://${address}/api/v1/${path}`);
    const { status, data: answer, error } = (await response.json()) as Record<string, unknown>;
    assert.equal(status, "success", `${path}: ${error}`);
    return answer;
  };
  const died = exited.then(() => assert.fail(`prometheus ended:\n${lines.join("\n")}`));
  const ready = until("prometheus is ready", () =>
    fetch(`http://${address}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    ),
  );
  died.catch(() => {});
  await within("prometheus starts", Promise.race([ready, died]));
  return {
    async query(expression) {
      const answer = await ask(`query?query=${encodeURIComponent(expression)}`);
      const { result } = answer as { result: QuerySample[] };
      return result;
    },
    async rules() {
      const { groups } = (await ask("rules")) as { groups: { rules: RuleHealth[] }[] };
      return groups.flatMap(({ rules }) => rules);
    },
  };
}
