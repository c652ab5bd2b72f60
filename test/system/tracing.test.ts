/** Traces as a collector gets them: over two servers, whose decision holds, and what a bad collector costs. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { stringify } from "yaml";
import { packageRoot } from "#src/os/addon.js";
import { openCollector } from "../support/collector.js";
import { makeFolder } from "../support/folder.js";
import { openRpcClient } from "../support/rpc-client.js";
import { type LogLine, startServer, type TestServer } from "../support/server.js";
import { CALLER, callerOf } from "../support/spans.js";
import { until } from "../support/until.js";

const LIBRARY = import.meta.resolve("#src/index.js");
/** Batches leave after a second; a stop waits for a dead collector for one more. */
const STOP_MS = 3_000;

interface Running {
  readonly server: TestServer;
  readonly port: number;
  configure(tracing: object): void;
}

/** A server of one worker whose rpc service is the module `body`. */
async function run(t: TestContext, body: string, tracing: object, env: NodeJS.ProcessEnv = {}): Promise<Running> {
  const folder = makeFolder(t);
  const names = "defineClient, definePool, defineRpcService";
  writeFileSync(join(folder, "service.mjs"), `import { ${names} } from ${JSON.stringify(LIBRARY)};\n${body}\n`);
  writeFileSync(join(folder, "work.mjs"), "export const twice = (text) => text + text;\n");
  const file = join(folder, "headrace.yaml");
  const listener = { name: "api", address: "127.0.0.1:0", service: "./service.mjs" };
  const configure = (given: object): void =>
    writeFileSync(file, stringify({ workers: 1, listeners: [listener], tracing: given }));
  configure(tracing);
  const server = startServer(t, ["--config", file], { cwd: folder, env });
  const [port = 0] = await server.ready();
  return { server, port, configure };
}

const BACK = `export default defineRpcService({
  name: "back",
  onRequest: (payload, { span }) => {
    span.setAttribute("payload", String(payload));
    return payload;
  },
});`;

const FRONT = `
const work = definePool({ name: "work", module: new URL("./work.mjs", import.meta.url), threads: 1 });
export default defineRpcService({
  name: "front",
  pools: [work],
  env: () => defineClient({ name: "backs", rpc: true, targets: [process.env.BACK] }),
  closeEnv: (client) => client.close(),
  async onRequest(payload, context) {
    const doubled = await context.run(work, "twice", String(payload));
    return context.call(context.env, doubled);
  },
});`;

async function runBoth(t: TestContext, front: object, back: object): Promise<{ front: Running; back: Running }> {
  const behind = await run(t, BACK, back);
  return { front: await run(t, FRONT, front, { BACK: `127.0.0.1:${behind.port}` }), back: behind };
}

async function stop({ server }: Running): Promise<number> {
  const from = performance.now();
  assert.equal((await server.command("stop", "--wait")).code, 0);
  return performance.now() - from;
}

test("one trace goes through two servers, a thread pool and a client, with the right parents", async (t) => {
  const collector = await openCollector(t);
  const endpoint = collector.url;
  const { front } = await runBoth(
    t,
    { sample: 1, endpoint, service: "shop" },
    { sample: "parent", endpoint: `${endpoint}/v1/traces` },
  );
  const client = await openRpcClient(t, front.port);
  assert.equal(await client.ask("a"), "ok aa");
  const asked = await collector.span("front/request");
  const task = await collector.span("work/twice");
  const call = await collector.span("backs call");
  const served = await collector.span("back/request");
  assert.deepEqual(
    [asked, task, call, served].map(({ kind }) => kind),
    [2, 1, 3, 2],
  );
  assert.equal(new Set(collector.spans.map(({ traceId }) => traceId)).size, 1);
  assert.deepEqual(
    [asked, task, call, served].map(({ parentSpanId }) => parentSpanId),
    [undefined, asked.spanId, asked.spanId, call.spanId],
  );
  assert.equal(served.attributes.payload, "aa");
  assert.equal(asked.attributes["server.port"], front.port);
  assert.deepEqual(
    [asked, served].map(({ resource }) => resource["service.name"]),
    ["shop", "headrace"],
  );
  const { workers, generation } = await front.server.status();
  assert.deepEqual(
    ["process.pid", "headrace.worker", "headrace.generation"].map((name) => asked.resource[name]),
    [workers[0]?.pid, 0, generation],
  );
});

test("a caller's decision holds all the way down, and `sample` changes while the server runs", async (t) => {
  const collector = await openCollector(t);
  const { url: endpoint } = collector;
  const { front } = await runBoth(t, { sample: "parent", endpoint }, { sample: 1, endpoint });
  const client = await openRpcClient(t, front.port);
  assert.equal(await client.ask("silent"), "ok silentsilent");
  assert.equal(await client.ask("no", { traceparent: callerOf("00") }), "ok nono");
  assert.equal(await client.ask("yes", { traceparent: callerOf("01") }), "ok yesyes");
  const served = await collector.span("back/request");
  const asked = await collector.span("front/request");
  assert.deepEqual([served.traceId, asked.traceId], [CALLER.traceId, CALLER.traceId]);
  assert.equal(asked.parentSpanId, CALLER.spanId);
  front.configure({ sample: 1, endpoint });
  const { code, stdout } = await front.server.command("reload", "--wait");
  assert.equal(code, 0);
  assert.match(stdout, /1 option changed in place/);
  assert.equal(await client.ask("now"), "ok nownow");
  await until("its span", () => collector.spans.some(({ attributes }) => attributes.payload === "nownow"));
  const payloads = collector.spans.flatMap(({ attributes }) => attributes.payload ?? []);
  assert.deepEqual(payloads, ["yesyes", "nownow"]);
});

test("a stop sends what is queued, and waits no longer than a second for a collector that is silent", async (t) => {
  const collector = await openCollector(t);
  const running = await run(t, BACK, { sample: 1, endpoint: collector.url });
  const client = await openRpcClient(t, running.port);
  assert.equal(await client.ask("last words"), "ok last words");
  client.socket.destroy();
  assert.ok((await stop(running)) < STOP_MS);
  assert.deepEqual(
    collector.spans.map(({ attributes }) => attributes.payload),
    ["last words"],
  );
  collector.behaviour = "silent";
  const other = await run(t, BACK, { sample: 1, endpoint: collector.url });
  const second = await openRpcClient(t, other.port);
  assert.equal(await second.ask("unheard"), "ok unheard");
  second.socket.destroy();
  const tookMs = await stop(other);
  assert.ok(tookMs < STOP_MS, `${tookMs} ms`);
  assert.ok(other.server.lines.some(({ msg }) => msg === "the last traces were not taken within 1000 ms"));
});

/** Lines about traces that were not taken. */
const complaints = ({ lines }: TestServer): LogLine[] =>
  lines.filter(({ msg }) => msg.startsWith("traces are not taken"));

/** Many requests at a collector that takes nothing. */
async function burden(t: TestContext, { port }: Running): Promise<void> {
  const client = await openRpcClient(t, port);
  for (let asked = 0; asked < 5_000; asked += 100) {
    const ids = Array.from({ length: 50 }, () => client.send("x"));
    await Promise.all(ids.map((id) => client.reply(id)));
  }
}

for (const behaviour of ["fails", "silent"] as const) {
  test(`a collector that ${behaviour === "fails" ? "fails" : "is silent"} costs a line in the log, and nobody waits`, async (t) => {
    const collector = await openCollector(t);
    collector.behaviour = behaviour;
    const running = await run(t, BACK, { sample: 1, endpoint: collector.url });
    await burden(t, running);
    await until("some exports were tried", () => collector.exports > 0);
    await running.server.logged("it is said", ({ msg }) => msg.startsWith("traces are not taken"));
    await burden(t, running);
    assert.equal(complaints(running.server).length, 1);
    collector.behaviour = "takes";
    if (behaviour === "fails") await collector.span("back/request");
    assert.ok((await stop(running)) < STOP_MS);
  });
}

test("no collector at all: the same", async (t) => {
  const running = await run(t, BACK, { sample: 1, endpoint: "http://127.0.0.1:9" });
  await burden(t, running);
  const line = await running.server.logged("it is said", ({ msg }) => msg.startsWith("traces are not taken"));
  assert.match(line.msg, /ECONNREFUSED/);
  assert.ok((await stop(running)) < STOP_MS);
});

/** A user's own set-up: every span is printed at once. */
const OWN_SDK = `
import { trace } from ${JSON.stringify(import.meta.resolve("@opentelemetry/api"))};
import sdk from ${JSON.stringify(import.meta.resolve("@opentelemetry/sdk-trace-base"))};
const exporter = {
  export(spans, done) {
    for (const { name } of spans) process.stdout.write(JSON.stringify({ level: 30, msg: "own " + name }) + "\\n");
    done({ code: 0 });
  },
  async shutdown() {},
};
const processor = new sdk.BatchSpanProcessor(exporter, { scheduledDelayMillis: 60_000 });
trace.setGlobalTracerProvider(new sdk.BasicTracerProvider({ spanProcessors: [processor] }));
`;

test("a module of the user's own takes the spans, and is flushed too", async (t) => {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "sdk.mjs"), OWN_SDK);
  const running = await run(t, BACK, { sample: 1, module: join(folder, "sdk.mjs") });
  const client = await openRpcClient(t, running.port);
  assert.equal(await client.ask("x"), "ok x");
  client.socket.destroy();
  await stop(running);
  assert.ok(running.server.lines.some(({ msg }) => msg === "own back/request"));
});

test("sample without anybody who takes the traces is a warning", async (t) => {
  const { server } = await run(t, BACK, { sample: 1 });
  await server.logged("the warning", ({ msg }) => msg.startsWith("tracing.sample is set, but nobody takes the traces"));
});

test("a module that is not there or throws: the start fails, and says which", async (t) => {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "bad.mjs"), "throw new Error('no licence');\n");
  for (const [module, problem] of [
    ["missing.mjs", /tracing\.module .*missing\.mjs: the file does not exist/],
    ["bad.mjs", /tracing\.module .*bad\.mjs: threw while it was loaded .*no licence/],
  ] as const) {
    const config = { listeners: [{ address: "127.0.0.1:0", service: "echo-line" }], tracing: { module } };
    writeFileSync(join(folder, "headrace.yaml"), stringify(config));
    const server = startServer(t, ["--config", join(folder, "headrace.yaml")], { cwd: folder });
    assert.notEqual((await server.exit()).code, 0);
    assert.match(await server.stderr, problem);
  }
});

/** This package as npm would install it, without the packages that are optional. */
function installWithoutSdk(t: TestContext): string {
  const folder = makeFolder(t);
  const modules = join(folder, "node_modules");
  const own = join(modules, "headrace");
  mkdirSync(join(modules, "@opentelemetry"), { recursive: true });
  const root = packageRoot();
  for (const part of ["package.json", "dist", "native"]) cpSync(join(root, part), join(own, part), { recursive: true });
  for (const name of readdirSync(join(root, "node_modules"))) {
    if (name !== "@opentelemetry" && !name.startsWith("."))
      symlinkSync(join(root, "node_modules", name), join(modules, name));
  }
  const api = join("@opentelemetry", "api");
  symlinkSync(join(root, "node_modules", api), join(modules, api));
  return folder;
}

test("without the packages for an endpoint: an error that names the command which installs them", (t) => {
  const folder = installWithoutSdk(t);
  const main = join(folder, "node_modules", "headrace", "dist", "cli", "main.js");
  const env = { ...process.env, HEADRACE_TRACING_ENDPOINT: "http://127.0.0.1:4318" };
  const refused = (): string =>
    execFileSync(process.execPath, [main, "check"], { cwd: folder, env, stdio: "pipe" }).toString();
  assert.throws(refused, ({ status, stderr }: { status: number; stderr: Buffer }) => {
    assert.equal(status, 2);
    assert.match(
      stderr.toString(),
      /the package @opentelemetry\/sdk-trace-base is not installed; run: npm install @opentelemetry\/sdk-trace-base@2 @opentelemetry\/exporter-trace-otlp-http@0\.223/,
    );
    return true;
  });
});
