/** The admin server of a real one: who gets in, what it shows of thousands of connections, and what outlives what. */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { Agent, request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { ClosedConnection, ConnectionPage } from "#src/control/inspection.js";
import { type LineClient, openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const OWN_TOKEN = "a-token-of-ones-own";

interface Rig {
  readonly server: TestServer;
  readonly port: number;
  readonly url: string;
  readonly token: string;
  /** Writes the configuration anew. */
  configure(options: string): void;
  /** With the token. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  json<T>(path: string): Promise<T>;
}

interface RigOptions {
  /** The program, if it is not this build's. */
  readonly main?: string;
  /** Source of the service. Default: echo-line. */
  readonly service?: string;
}

async function start(t: TestContext, options = "", { main, service }: RigOptions = {}): Promise<Rig> {
  const folder = makeFolder(t);
  const served = service === undefined ? "echo-line" : writeService(folder, service);
  const file = join(folder, "headrace.yaml");
  const configure = (more: string): void =>
    writeFileSync(
      file,
      `workers: 2\nlisteners: [{ name: lines, address: "127.0.0.1:0", service: ${served} }]\ntimeouts: { prove: 300ms, idle: 5m, firstByte: off }\n${more}\n`,
    );
  configure(options || 'admin: { address: "127.0.0.1:0" }');
  const server = startServer(t, ["--config", file], main === undefined ? {} : { main });
  const [port = 0] = await server.ready();
  const { admin } = await server.status();
  assert.ok(admin);
  const path = join(server.folder, "admin-token");
  const token = existsSync(path) ? readFileSync(path, "utf8").trim() : OWN_TOKEN;
  const url = `http://${admin}`;
  const ask = (at: string, init: RequestInit = {}): Promise<Response> =>
    fetch(url + at, { ...init, headers: { authorization: `Bearer ${token}`, ...init.headers } });
  const json = async <T>(at: string): Promise<T> => {
    const answer = await ask(at);
    assert.equal(answer.status, 200, await answer.clone().text());
    return (await answer.json()) as T;
  };
  return { server, port, url, token, configure, ask, json };
}

async function openClients(t: TestContext, port: number, count: number): Promise<LineClient[]> {
  const all: LineClient[] = [];
  // A few at a time, as clients would come.
  while (all.length < count) {
    const group = Array.from({ length: Math.min(200, count - all.length) }, () => openClient(t, port));
    all.push(...(await Promise.all(group)));
  }
  return all;
}

test("the generated token is in a file of the server's own user, in no log, and gone with the server", async (t) => {
  const { server, token, url } = await start(t);
  const path = join(server.folder, "admin-token");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const before = performance.now();
  for (let at = 0; at < 200; at++) {
    const answer = await fetch(`${url}/status`, { headers: { authorization: `Bearer ${token}${at}` } });
    assert.equal(answer.status, 401);
    assert.deepEqual(await answer.json(), { error: "unauthorized" });
  }
  const seconds = Math.ceil((performance.now() - before) / 1_000);
  const said = server.lines.filter(({ msg }) => msg.includes("without the right token"));
  assert.ok(said.length >= 1 && said.length <= seconds + 1, `${said.length} lines in ${seconds} s`);
  assert.ok(!JSON.stringify([server.lines, await server.status()]).includes(token));
  const { stdout } = await server.command("status");
  assert.ok(stdout.includes(url) && !stdout.includes(token));
  await server.command("stop", "--wait");
  assert.ok(!existsSync(path));
});

test("a token of one's own is told to nobody: not to check, the log, the status, nor the services", async (t) => {
  const { server, ask } = await start(t, `admin: { address: "127.0.0.1:0", token: ${OWN_TOKEN} }`);
  assert.equal((await ask("/status")).status, 200);
  assert.ok(!existsSync(join(server.folder, "admin-token")));
  assert.ok(!JSON.stringify([server.lines, await server.status()]).includes(OWN_TOKEN));
  const { workers } = await server.status();
  assert.ok(!readFileSync(`/proc/${workers[0]?.pid}/environ`, "utf8").includes(OWN_TOKEN));
});

test("a port in use: a start says by whom, a reload too, and leaves all as it was", async (t) => {
  const rival = createServer().listen(0, "127.0.0.1");
  await once(rival, "listening");
  t.after(() => rival.close());
  const { port } = rival.address() as { port: number };
  const taken = `admin: { address: "127.0.0.1:${port}" }`;
  const { server, configure, ask } = await start(t);
  configure(taken);
  const { code, stderr } = await server.command("reload", "--wait");
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`admin.address: 127.0.0.1:${port} is in use by process ${process.pid}`));
  assert.equal((await ask("/readyz")).status, 200);
  const folder = makeFolder(t);
  writeFileSync(
    join(folder, "headrace.yaml"),
    `${taken}\nlisteners: [{ address: "127.0.0.1:0", service: echo-line }]\n`,
  );
  const second = startServer(t, ["--config", join(folder, "headrace.yaml")]);
  assert.equal((await second.exit()).code, 1);
  assert.match(await second.stderr, /admin\.address: .* is in use by process/);
});

test("a reload moves it to another address, changes its token, switches it off and on", async (t) => {
  const { server, configure, ask, url } = await start(t);
  const { workers } = await server.status();
  configure(`admin: { address: "127.0.0.1:0", token: ${OWN_TOKEN} }`);
  assert.equal((await server.command("reload", "--wait")).code, 0);
  assert.equal((await ask("/status")).status, 401, "the old token");
  const own = { headers: { authorization: `Bearer ${OWN_TOKEN}` } };
  assert.equal((await fetch(`${url}/status`, own)).status, 200);
  configure("admin: { address: off }");
  assert.equal((await server.command("reload", "--wait")).code, 0);
  assert.equal(await get(`${url}/healthz`, false, {}), "ECONNREFUSED");
  configure(`admin: { address: "localhost:0", token: ${OWN_TOKEN} }`);
  assert.equal((await server.command("reload", "--wait")).code, 0);
  const after = await server.status();
  assert.equal((await fetch(`http://${after.admin}/status`, own)).status, 200);
  assert.deepEqual(
    after.workers.map(({ pid }) => pid),
    workers.map(({ pid }) => pid),
    "no worker was replaced",
  );
});

test("10,000 connections: pages in order, filtered, and nobody else waits for it", async (t) => {
  const limits = "limits: { connections: 11000 }";
  const { port, json } = await start(t, `admin: { address: "127.0.0.1:0" }\n${limits}`);
  const clients = await openClients(t, port, 10_000);
  const [first, second] = [clients[17], clients[4_711]];
  await first?.ask("x".repeat(50_000));
  await second?.ask("x".repeat(1_000));
  await until("all are there", async () => (await json<ConnectionPage>("/connections?limit=1")).total === 10_000);
  const latencies: number[] = [];
  let asking = true;
  const other = clients[42];
  const steady = (async () => {
    while (asking) {
      const before = performance.now();
      await other?.ask("ping");
      latencies.push(performance.now() - before);
    }
  })();
  const seen = new Set<string>();
  for (let offset = 0; offset < 10_000; offset += 1_000) {
    const page = await json<ConnectionPage>(`/connections?sort=age&limit=1000&offset=${offset}`);
    assert.equal(page.rows.length, 1_000);
    assert.deepEqual(page.missing, []);
    for (const { id } of page.rows) seen.add(id);
    const ages = page.rows.map(({ ageMs }) => ageMs);
    assert.ok(
      ages.every((age, at) => at === 0 || age <= (ages[at - 1] ?? 0) + 1_000),
      "in order, but for the time that passes",
    );
  }
  asking = false;
  await steady;
  assert.equal(seen.size, 10_000, "pages do not overlap");
  const sorted = latencies.sort((a, b) => a - b);
  const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? 0;
  t.diagnostic(`p99 of another client meanwhile: ${p99.toFixed(1)} ms of ${sorted.length} requests`);
  assert.ok(p99 < 250, `${p99} ms`);
  const { rows } = await json<ConnectionPage>("/connections?sort=bytes&limit=3");
  assert.equal(rows[0]?.remote, `127.0.0.1:${first?.socket.localPort}`);
  assert.ok((rows[0]?.bytesReceived ?? 0) >= 50_001 && (rows[0]?.rttMs ?? -1) >= 0);
  const one = await json<ConnectionPage>(`/connections?address=127.0.0.1&worker=1&listener=lines&limit=1`);
  assert.ok(one.total > 1_000 && one.rows[0]?.worker === 1);
  assert.equal((await json<ConnectionPage>("/connections?address=10.0.0.0/8")).total, 0);
  assert.equal((await json<ConnectionPage>("/connections?address=127.0.0.0/8")).total, 10_000);
});

test("a killed connection ends as such; the last closes outlive their worker", async (t) => {
  const { server, port, json, ask } = await start(t);
  const client = await openClient(t, port);
  await client.ask("hello");
  const [row] = (await json<ConnectionPage>("/connections")).rows;
  assert.ok(row);
  const killed = await server.command("connections", "--kill", row.id);
  assert.equal(killed.code, 0, killed.stderr);
  assert.equal(await client.closed, "ECONNRESET");
  assert.equal((await ask(`/connections/${row.id}`, { method: "DELETE" })).status, 404);
  const worker = (await server.status()).workers.find(({ index }) => index === row.worker);
  process.kill(worker?.pid ?? 0, "SIGKILL");
  await until("it is replaced", async () => (await server.status()).totals.restarts === 1);
  const [last] = (await json<{ rows: ClosedConnection[] }>("/closed")).rows;
  const { id, reason, listener, remote, bytesReceived } = last ?? assert.fail("nothing was noted");
  assert.deepEqual([id, reason, listener, remote, bytesReceived], [row.id, "admin", "lines", row.remote, 6]);
  assert.match((await server.command("connections", "--closed")).stdout, /admin/);
});

test("profiles: one at a time, of a worker and of the primary, into a file of one's own", async (t) => {
  const { server, ask, configure } = await start(t);
  const first = ask("/profile/cpu?seconds=2&worker=1");
  await server.logged("it is being taken", ({ msg }) => msg === "profile (cpu) asked for");
  assert.equal((await ask("/profile/heap")).status, 409);
  const busy = await server.command("profile", "cpu", "--seconds", "1");
  assert.equal(busy.code, 75, busy.stderr);
  assert.ok(!existsSync(join(server.folder, "headrace-worker-0.cpuprofile")));
  const profile = (await (await first).json()) as { nodes: unknown[]; samples: unknown[] };
  assert.ok(profile.nodes.length > 1 && profile.samples.length > 1);
  const taken = await server.command("profile", "heap", "--worker", "primary", "--out", "x.heapsnapshot");
  assert.equal(taken.code, 0, taken.stderr);
  const out = join(server.folder, "x.heapsnapshot");
  assert.equal(statSync(out).mode & 0o777, 0o600);
  assert.ok(JSON.parse(readFileSync(out, "utf8")).snapshot);
  const again = await server.command("profile", "heap", "--out", "x.heapsnapshot");
  assert.equal(again.code, 2);
  assert.match(again.stderr, /exists already/);
  assert.equal((await server.command("profile", "heap", "--out", "x.heapsnapshot", "--force")).code, 0);
  configure('admin: { address: "127.0.0.1:0", profiles: false }');
  assert.equal((await server.command("reload", "--wait")).code, 0);
  assert.equal((await ask("/profile/cpu?seconds=1")).status, 403);
});

/** GET over `agent`; the status, or the errno. */
function get(url: string, agent: Agent | false, headers: Record<string, string>): Promise<number | string> {
  return new Promise((resolve) => {
    const asked = request(url, { agent, headers }, (answer) => {
      answer.resume().once("end", () => resolve(answer.statusCode ?? 0));
    });
    asked.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
    asked.end();
  });
}

test("upgrades: who scrapes sees no failure, who is signed in stays so, and a restart ends that", async (t) => {
  const { server, url, token, json } = await start(t);
  const signIn = await fetch(`${url}/session`, { method: "POST", body: new URLSearchParams({ token }) });
  const cookie = signIn.headers.get("set-cookie")?.split(";")[0] ?? "";
  const keepAlive = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => keepAlive.destroy());
  const answers: (number | string)[] = [];
  let scraping = true;
  const scrape = async (agent: Agent | false, headers: Record<string, string>): Promise<void> => {
    while (scraping) {
      answers.push(await get(`${url}/status`, agent, headers));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const scrapers = [
    scrape(false, { authorization: `Bearer ${token}` }),
    scrape(keepAlive, { authorization: `Bearer ${token}` }),
    scrape(false, { cookie }),
  ];
  for (let generation = 2; generation <= 4; generation++) {
    const { code, stderr } = await server.command("upgrade", "--wait");
    assert.equal(code, 0, stderr);
    await until(
      "the new one answers",
      async () => (await json<{ generation: number }>("/status")).generation === generation,
    );
    await until("the old one has gone", async () => (await server.status()).draining.length === 0);
  }
  scraping = false;
  await Promise.all(scrapers);
  const failed = answers.filter((answer) => answer !== 200);
  t.diagnostic(`${answers.length} requests, ${failed.length} failed`);
  assert.deepEqual(failed, []);
  assert.equal(readFileSync(join(server.folder, "admin-token"), "utf8").trim(), token);
  assert.equal((await fetch(`${url}/readyz`)).status, 200);
});

test("an upgrade that fails leaves the admin server as it was", async (t) => {
  const { server, configure, ask, token } = await start(t);
  const rival = createServer().listen(0, "127.0.0.1");
  await once(rival, "listening");
  t.after(() => rival.close());
  configure(`admin: { address: "127.0.0.1:${(rival.address() as { port: number }).port}" }`);
  const { code, stderr } = await server.command("upgrade", "--wait");
  assert.equal(code, 1);
  assert.match(stderr, /admin\.address/);
  assert.equal((await ask("/status")).status, 200);
  assert.equal(readFileSync(join(server.folder, "admin-token"), "utf8").trim(), token);
});

/** A copy of this build; returns its folder. */
function copyBuild(t: TestContext): string {
  const folder = makeFolder(t);
  const root = fileURLToPath(new URL("../../../", import.meta.url));
  cpSync(join(root, "dist"), join(folder, "dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(folder, "package.json"));
  for (const name of ["native", "node_modules"]) symlinkSync(join(root, name), join(folder, name));
  return folder;
}

test("a release whose admin server cannot be loaded is not upgraded to, nor is it switched on or moved by a reload", async (t) => {
  const build = copyBuild(t);
  const { server, ask, port, token, configure } = await start(t, "", { main: join(build, "dist/cli/main.js") });
  const client = await openClient(t, port);
  const file = join(build, "dist/admin/page/theme.js");
  renameSync(file, `${file}.away`);
  const upgraded = await server.command("upgrade", "--wait");
  assert.equal(upgraded.code, 1);
  assert.match(upgraded.stderr, /the admin server cannot be loaded: .*theme\.js/);
  configure(`admin: { address: "127.0.0.2:0", token: ${OWN_TOKEN} }`);
  const reloaded = await server.command("reload", "--wait");
  assert.equal(reloaded.code, 1);
  assert.match(reloaded.stderr, /the admin server cannot be loaded: .*theme\.js/);
  assert.equal((await ask("/status")).status, 200);
  assert.equal(readFileSync(join(server.folder, "admin-token"), "utf8").trim(), token);
  assert.equal(await client.ask("still"), "still");
  renameSync(`${file}.away`, file);
  assert.equal((await server.command("reload", "--wait")).code, 0);
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  assert.ok(!existsSync(join(server.folder, "admin-token")));
});

const SLOW = `export default defineService({
  codec: line(),
  onMessage: (text) => new Promise((done) => setTimeout(done, text === "slow" ? 4_000 : 0, text)),
});`;

test("while the generation before drains, it is said that its connections are not among those", async (t) => {
  const { server, port, json, ask } = await start(t, "", { service: SLOW });
  const client = await openClient(t, port);
  client.send("slow");
  await until("it is asked", async () => (await server.status()).totals.requests === 1);
  const [row] = (await json<ConnectionPage>("/connections")).rows;
  const before = (await server.status()).pid;
  const { code, stderr } = await server.command("upgrade", "--wait");
  assert.equal(code, 0, stderr);
  // A connection that was open may get its last answer from the old one.
  await until("the new one answers", async () => (await json<{ pid: number }>("/status")).pid !== before);
  const { missing } = await json<ConnectionPage>("/connections");
  assert.deepEqual(missing, [`generation 1, process ${before}, still drains: its connections are not shown`]);
  const refused = await ask(`/connections/${row?.id}`, { method: "DELETE" });
  assert.equal(refused.status, 503);
  assert.match(((await refused.json()) as { error: string }).error, /generation 1/);
  assert.equal(await client.line(), "slow");
  await until("it has drained", async () => (await server.status()).draining.length === 0);
  assert.deepEqual((await json<ConnectionPage>("/connections")).missing, []);
  assert.equal((await ask("/connections/nobody", { method: "DELETE" })).status, 404);
});

const profilesIn = (folder: string): string[] => readdirSync(folder).filter((name) => name.includes(".profile-"));

for (const target of ["primary", "1"]) {
  test(`a stop ends a profile of ${target === "primary" ? target : `worker ${target}`}, and leaves no file`, async (t) => {
    const { server, ask } = await start(t);
    const asked = ask(`/profile/cpu?seconds=60&worker=${target}`).then(
      () => {},
      () => {},
    );
    await until("its file is there", () => profilesIn(server.folder).length === 1);
    const began = performance.now();
    await server.command("stop", "--wait");
    await server.exit();
    assert.ok(performance.now() - began < 20_000);
    assert.deepEqual(profilesIn(server.folder), []);
    await asked;
  });
}

test("an upgrade ends a profile, and its file goes with it", async (t) => {
  const { server, ask } = await start(t);
  const asked = ask("/profile/cpu?seconds=60&worker=0").then(
    () => {},
    () => {},
  );
  await until("its file is there", () => profilesIn(server.folder).length === 1);
  const { code, stderr } = await server.command("upgrade", "--wait");
  assert.equal(code, 0, stderr);
  await asked;
  await until("the old one has gone", async () => (await server.status()).draining.length === 0);
  assert.deepEqual(profilesIn(server.folder), []);
});
