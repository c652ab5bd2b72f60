/** A real Prometheus: what deploy/ has for it is right, and every query of the dashboard and the alerts finds its series. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "#src/os/addon.js";
import { Authority } from "../support/authority.js";
import { makeFolder } from "../support/folder.js";
import { PROMETHEUS_FOLDER, type Prometheus, startPrometheus, writePrometheusConfig } from "../support/prometheus.js";
import { startServer } from "../support/server.js";
import { startTraffic } from "../support/steady-traffic.js";
import { until } from "../support/until.js";

const TOKEN = "a-token-that-is-long-enough";
const RUNBOOK = "deploy/runbook/RUNBOOK.md";

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly targets?: readonly { readonly expr: string }[];
}

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Dashboard {
  readonly panels: readonly Panel[];
  readonly annotations: { readonly list: readonly { readonly expr: string }[] };
}

const dashboard = JSON.parse(
  readFileSync(join(packageRoot(), "deploy", "grafana", "headrace.json"), "utf8"),
) as Dashboard;
const alerts = parse(readFileSync(join(PROMETHEUS_FOLDER, "alerts.yml"), "utf8")).groups[0].rules as readonly Alert[];

/** As Grafana asks, for all instances. */
const asked = (expression: string): string =>
  expression.replaceAll("$__rate_interval", "5s").replaceAll("$instance", ".+");

const promtool = (...args: string[]): string =>
  execFileSync("promtool", args, { cwd: PROMETHEUS_FOLDER, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/** Resolves with where its metrics are. */
async function serve(t: TestContext, folder: string): Promise<string> {
  const { certificate, key } = new Authority(folder).issue({ name: "localhost" });
  const config = {
    workers: 2,
    admin: { address: "127.0.0.1:0", token: TOKEN },
    listeners: [
      { name: "lines", address: "127.0.0.1:0", service: "echo-line" },
      { name: "secure", address: "127.0.0.1:0", service: "echo-line", tls: { certificate, key } },
      { name: "feed", address: "udp://127.0.0.1:0", service: "echo-udp" },
    ],
  };
  writeFileSync(join(folder, "server.json"), JSON.stringify(config));
  const server = startServer(t, ["--config", join(folder, "server.json")]);
  const [lines = 0, secure = 0, udp = 0] = await server.ready();
  startTraffic(t, { lines, secure, udp });
  const { admin } = await server.logged("ready", ({ msg }) => msg === "ready");
  return (admin as { address: string }).address;
}

async function hasData(prometheus: Prometheus, expression: string): Promise<boolean> {
  const series = await prometheus.query(asked(expression));
  return series.some(({ value: [, text] }) => Number.isFinite(Number(text)));
}

test("promtool finds nothing wrong; each alert fires when it should and only then", (t) => {
  const folder = makeFolder(t);
  assert.match(
    promtool("check", "config", writePrometheusConfig(folder, { target: "127.0.0.1:9900", token: TOKEN })),
    /SUCCESS/,
  );
  assert.match(promtool("check", "rules", "alerts.yml"), new RegExp(`SUCCESS: ${alerts.length} rules`));
  assert.match(promtool("test", "rules", "alerts.test.yml"), /SUCCESS/);
  const tested = parse(readFileSync(join(PROMETHEUS_FOLDER, "alerts.test.yml"), "utf8")).tests as {
    alert_rule_test: { alertname: string; exp_alerts: unknown[] }[];
  }[];
  const firing = tested.flatMap((each) => each.alert_rule_test).filter(({ exp_alerts }) => exp_alerts.length > 0);
  assert.deepEqual(
    alerts.map(({ alert }) => alert).filter((alert) => !firing.some(({ alertname }) => alertname === alert)),
    [],
    "every alert is tested",
  );
});

test("each alert names its page of the runbook", () => {
  for (const { alert, annotations } of alerts) {
    assert.equal(annotations.runbook_url, `${RUNBOOK}#${alert.toLowerCase()}`);
  }
});

test("every query of dashboard and alerts, asked of a Prometheus that scrapes a server", async (t) => {
  const folder = makeFolder(t);
  const prometheus = await startPrometheus(t, folder, { target: await serve(t, folder), token: TOKEN });
  await until("it scrapes", async () => (await prometheus.query('up{job="headrace"} == 1')).length === 1);

  const queries = dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })));
  assert.ok(queries.length > 50);
  for (const panel of dashboard.panels) assert.ok(panel.type === "row" || panel.targets?.length, panel.title);
  const selectors = alerts.flatMap(({ expr }) => expr.match(/\b(headrace_\w+|up)(\{[^}]*\})?/g) ?? []);
  assert.ok(selectors.length > 20);
  // Whatever an alert looks at is there: a name or a label that does not exist would keep it silent for ever.
  let missing = [...queries, ...selectors.map((expr) => ({ title: "an alert", expr }))];
  await until("data of every query", async () => {
    for (const query of missing) {
      if (await hasData(prometheus, query.expr)) missing = missing.filter((each) => each !== query);
    }
    return missing.length === 0;
  }).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(missing, null, 2)}`));

  // Nothing has changed meanwhile: right, and empty.
  for (const { expr } of dashboard.annotations.list) assert.deepEqual(await prometheus.query(expr), []);

  await until("all rules were evaluated", async () =>
    (await prometheus.rules()).every(({ health }) => health !== "unknown"),
  );
  const rules = await prometheus.rules();
  assert.deepEqual(
    rules.map(({ name, health, lastError }) => [name, health, lastError]),
    alerts.map(({ alert }) => [alert, "ok", undefined]),
  );
  const firing = await prometheus.query('ALERTS{alertstate="firing"}');
  assert.deepEqual(
    firing.map(({ metric }) => metric.alertname),
    [],
    "a server that is well alarms nobody",
  );
});
