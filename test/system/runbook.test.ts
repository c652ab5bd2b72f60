/** The runbook's scripts against real servers: each does what its help says, and is harmless where it cannot. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import { RUNBOOK, runScript, startScript } from "../support/runbook.js";
import { startServer } from "../support/server.js";
import { nothingHappened, type Rig, startRig } from "../support/under-load.js";
import { until } from "../support/until.js";

const SCRIPTS = readdirSync(RUNBOOK).filter((name) => name.endsWith(".sh") && name !== "lib.sh");
const [DONE, FAILED, USAGE, UNREACHABLE, BUSY] = [0, 1, 2, 3, 75];

/** What a server needs that `current` names the release of. */
function startReleased(t: TestContext, load: object | false = false): Promise<Rig> {
  return startRig(t, {
    load,
    config: { listeners: [CURRENT_LISTENER] },
    prepare(folder) {
      writeRelease(folder, "1");
      activate(folder, "1");
    },
  });
}

const link = ({ folder }: Rig): string => join(folder, "current");
const target = (rig: Rig): string => readlinkSync(link(rig)).split("/").at(-1) ?? "";
const releaseOf = (rig: Rig, name: string): string => join(rig.folder, "releases", name);
const answering = async (rig: Rig): Promise<string> => (await rig.ask("1 0 x")).split(" ")[0] ?? "";

describe("every script", { concurrency: 2 }, () => {
  for (const name of SCRIPTS) {
    test(`${name}: helps, refuses what it does not know, and changes nothing where no server is`, async (t) => {
      const folder = makeFolder(t);
      const control = join(folder, "control.sock");
      const help = await runScript(name, ["--help"]);
      assert.deepEqual([help.code, help.stderr], [DONE, ""]);
      assert.match(help.stdout, new RegExp(`^${name} - .+\\n\\nUsage: ${name}`));
      assert.match(help.stdout, /Exit codes: 0/);
      const unknown = await runScript(name, ["--nonsense"], { control });
      assert.equal(unknown.code, USAGE);
      assert.match(unknown.stderr, /unknown (argument|option) '--nonsense'; see .* --help/);
      const needed: Record<string, readonly string[]> = {
        "reload.sh": [],
        "scale.sh": ["2"],
        "drain-host.sh": ["--stop"],
        "fd-leak.sh": ["--seconds", "1"],
      };
      const args = needed[name];
      if (!args) return;
      for (const more of [[], ["--dry-run"]]) {
        const alone = await runScript(name, [...args, ...more], { control });
        assert.equal(alone.code, UNREACHABLE, alone.stderr);
        assert.match(alone.stderr, /no server answers; nothing was changed/);
      }
    });
  }
});

describe("changes", { concurrency: 2 }, () => {
  test("reload.sh: a good file is taken, one with a fault is told with its line and changes nothing", async (t) => {
    const rig = await startReleased(t);
    const { control } = rig.server;
    const dry = await runScript("reload.sh", ["--dry-run"], { control });
    assert.equal(dry.code, DONE, dry.stderr);
    assert.equal((await rig.status()).configVersion, 1);
    rig.configure({ listeners: [CURRENT_LISTENER], limits: { frame: "2MiB" } });
    const good = await runScript("reload.sh", [], { control });
    assert.equal(good.code, DONE, good.stderr);
    assert.match(good.stdout, /now: .* configuration 1,[\s\S]*then: .* configuration 2, running, health ok/);
    rig.configure({ listeners: [CURRENT_LISTENER], limits: { frame: "much" } });
    const bad = await runScript("reload.sh", ["--replace"], { control });
    assert.equal(bad.code, USAGE, bad.stderr);
    assert.match(bad.stderr, /headrace\.yaml:\d+.*limits\.frame[\s\S]*the reload failed; configuration 2 serves on/);
    const tried = await runScript("reload.sh", ["--dry-run"], { control });
    assert.equal(tried.code, DONE, "what is seen from here is a warning");
    assert.match(tried.stderr, /headrace\.yaml:\d+.*limits\.frame[\s\S]*seems to have a fault/);
    assert.equal((await rig.status()).configVersion, 2);
  });

  test("reload.sh: the server's own folder and variables count, not those of whoever runs it", async (t) => {
    const folder = makeFolder(t);
    const file = 'admin: { address: "0.0.0.0:0" }\nlisteners: [{ address: "127.0.0.1:0", service: echo-line }]\n';
    writeFileSync(join(folder, "headrace.yaml"), file);
    const env = { HEADRACE_ADMIN_TOKEN: "0123456789abcdef-of-the-server-alone" };
    const server = startServer(t, ["--config", "headrace.yaml"], { cwd: folder, env });
    await server.ready();
    const other = makeFolder(t);
    writeFileSync(join(other, "headrace.yaml"), "limits: { frame: much }\n");
    const done = await runScript("reload.sh", [], { ...server, cwd: other });
    assert.equal(done.code, DONE, done.stderr);
    assert.match(done.stdout, /then: .* configuration 2,/);
    const dry = await runScript("reload.sh", ["--dry-run"], { ...server, cwd: other });
    assert.equal(dry.code, DONE, dry.stderr);
    assert.ok(!dry.stderr.includes("limits.frame"), dry.stderr);
    assert.match(dry.stderr, new RegExp(`${folder}/headrace\\.yaml seems to have a fault`));
  });

  test("scale.sh: so many workers serve, or as many as before", async (t) => {
    const rig = await startReleased(t);
    const { control } = rig.server;
    const up = await runScript("scale.sh", ["3"], { control });
    assert.equal(up.code, DONE, up.stderr);
    assert.match(up.stdout, /then: .* 3 workers accept/);
    const dry = await runScript("scale.sh", ["1", "--dry-run"], { control });
    assert.match(dry.stdout, /would run: .*scale 1 --wait/);
    assert.equal((await rig.status()).workers.length, 3);
    for (const wrong of ["0", "257", "x", "-1", "1.5", "99999999999999999999"]) {
      assert.equal((await runScript("scale.sh", [wrong], { control })).code, USAGE, wrong);
    }
  });

  test("upgrade.sh and rollback.sh under load: the link is what runs, and no client notices", async (t) => {
    const rig = await startReleased(t, {});
    const { control } = rig.server;
    const upgrade = (...args: string[]): ReturnType<typeof runScript> =>
      runScript("upgrade.sh", [...args, "--link", link(rig)], { control });
    writeRelease(rig.folder, "2");
    const dry = await upgrade(releaseOf(rig, "2"), "--dry-run");
    assert.deepEqual([dry.code, target(rig)], [DONE, "1"], dry.stderr);
    const done = await upgrade(releaseOf(rig, "2"));
    assert.equal(done.code, DONE, done.stderr);
    assert.match(done.stdout, /generation 1,[\s\S]*generation 2,/);
    assert.deepEqual([target(rig), await answering(rig)], ["2", "2"]);

    writeRelease(rig.folder, "bad", { before: 'throw new Error("no database");' });
    const bad = await upgrade(releaseOf(rig, "bad"));
    assert.equal(bad.code, FAILED);
    assert.match(
      bad.stderr,
      /no database[\s\S]*the upgrade failed, .* names releases\/|the upgrade failed, .* names .*2 again/,
    );
    assert.deepEqual([target(rig), await answering(rig)], ["2", "2"]);

    const [before] = [await rig.status()];
    const back = await runScript("rollback.sh", ["--link", link(rig)], { control });
    assert.equal(back.code, DONE, back.stderr);
    assert.deepEqual([target(rig), await answering(rig)], ["1", "1"]);
    assert.equal((await rig.status()).generation, before.generation + 1);
    await nothingHappened(rig);
    assert.deepEqual(
      readdirSync(rig.folder).filter((name) => name.includes(".new")),
      [],
    );
  });

  test("upgrade.sh: a server that was not started through the link is found, and the link put back", async (t) => {
    const rig = await startReleased(t);
    writeRelease(rig.folder, "2");
    const place = join(releaseOf(rig, "2"), "node_modules", "headrace");
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, "package.json"), JSON.stringify({ name: "headrace", version: "99.0.0" }));
    const outcome = await runScript("upgrade.sh", [releaseOf(rig, "2"), "--link", link(rig)], rig.server);
    assert.equal(outcome.code, FAILED);
    assert.match(outcome.stderr, /the release has 99\.0\.0: the server was not started through .*current/);
    assert.equal(target(rig), "1");
  });

  test("upgrade.sh: told to end in the middle, it still leaves the link as what runs", async (t) => {
    const rig = await startRig(t, {
      load: false,
      config: { listeners: [CURRENT_LISTENER], timeouts: { prove: "1s" } },
      prepare(folder) {
        writeRelease(folder, "1");
        activate(folder, "1");
      },
    });
    writeRelease(rig.folder, "2");
    const script = startScript("upgrade.sh", [releaseOf(rig, "2"), "--link", link(rig)], rig.server);
    await until("it is under way", async () => (await rig.status()).state === "upgrading");
    process.kill(script.pid, "SIGTERM");
    const { code, stderr } = await script.ended;
    assert.equal(code, DONE, stderr);
    assert.match(stderr, /was interrupted, but the upgrade is done/);
    assert.deepEqual([target(rig), await answering(rig)], ["2", "2"]);
  });

  test("upgrade.sh and rollback.sh: what cannot be right is refused before anything is touched", async (t) => {
    const folder = makeFolder(t);
    const control = join(folder, "control.sock");
    writeRelease(folder, "1");
    activate(folder, "1");
    const [current, release] = [join(folder, "current"), join(folder, "releases", "1")];
    // One that brings headrace itself, as a checkout does, and one that was not built.
    const [whole, unbuilt] = [join(folder, "releases", "whole"), makeFolder(t)];
    symlinkSync(packageRoot(), whole);
    const cases: readonly (readonly [string, readonly string[], number, RegExp])[] = [
      ["upgrade.sh", ["--link", current], USAGE, /which release/],
      ["upgrade.sh", [join(folder, "none"), "--link", current], USAGE, /is no folder/],
      ["upgrade.sh", [release, "--link", release], USAGE, /is no symbolic link/],
      ["upgrade.sh", [unbuilt, "--link", whole], USAGE, /has neither dist\/cli\/main\.js nor node_modules/],
      ["upgrade.sh", [unbuilt, "--link", whole, "--dry-run"], USAGE, /has neither dist\/cli\/main\.js nor/],
      ["upgrade.sh", [release, "--link"], USAGE, /--link needs a value/],
      ["upgrade.sh", [release, "--link", current], UNREACHABLE, /no server answers/],
      ["rollback.sh", ["--link", current], FAILED, /no .*current\.previous: name the release/],
      ["rollback.sh", [release, "--link", current], UNREACHABLE, /no server answers/],
      ["rollback.sh", [release, "--link", current, "--restart", "headrace", "--dry-run"], DONE, /no server answers/],
    ];
    for (const [name, args, code, why] of cases) {
      const outcome = await runScript(name, args, { control });
      assert.equal(outcome.code, code, `${name} ${args.join(" ")}: ${outcome.stdout}${outcome.stderr}`);
      assert.match(outcome.stderr, why);
      assert.equal(readlinkSync(current), join("releases", "1"));
    }
    const restart = [release, "--link", current, "--restart", "headrace", "--dry-run"];
    const env = { PATH: process.env.PATH, HEADRACE_CONTROL: control };
    const second = spawnSync("flock", [folder, join(RUNBOOK, "rollback.sh"), ...restart], { env, encoding: "utf8" });
    assert.equal(second.status, BUSY, second.stderr);
    assert.match(second.stderr, /another upgrade\.sh or rollback\.sh is at work/);
    assert.deepEqual(readdirSync(folder).sort(), ["current", "releases"]);
  });

  test("drain-host.sh --stop: what is connected is drained, the server ends", async (t) => {
    const rig = await startReleased(t);
    const client = await openClient(t, rig.port);
    assert.match(await client.ask("1 0 x"), /^1 /);
    const outcome = await runScript("drain-host.sh", ["--stop"], rig.server);
    assert.equal(outcome.code, DONE, outcome.stderr);
    assert.match(outcome.stdout, /1 connections[\s\S]*stopped: 1 connections closed, 0 cut off/);
    assert.equal(await client.closed, undefined);
    assert.deepEqual(await rig.server.exit(), { code: 0, signal: null });
  });
});

/** A folder with a configuration. */
function prepared(t: TestContext, text: string): string {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "headrace.yaml"), text);
  return folder;
}

/** Lines of a log, each with a secret in another form; what is `kept` has to stay. */
const SECRETS = [
  "kept: connect postgres://app:hunter2@db/x failed",
  '{"credentials":"hunter2","msg":"kept"}',
  '{"tokens":["hunter2","x]hunter2"],"msg":"kept"}',
  "run --token hunter2 --kept",
  'kept Cookie: a="x"; b=hunter2',
  'kept Set-Cookie: a="x"; b=hunter2',
  "password: 'hunter2 hunter2' kept",
  "'password': 'it''s hunter2', kept",
  '{"token":"a\\"hunter2","msg":"kept"}',
  '{"token":"a\\\\","msg":"kept"}',
  '{"body":"{\\"token\\":\\"hunter2\\"}","kept":1}',
  '{"cookie":["a=1","b=hunter2"],"msg":"kept"}',
  '["Cookie","a=hunter2"],"kept"',
  "{ credentials: { user: 'x', pass: 'hunter2' }, msg: 'kept' }",
  "AWS_SECRET_ACCESS_KEY=hunter2 kept",
  'Authorization: Digest u="x", r="hunter2"',
  "password hun,ter;hunter2 kept",
  // Cut off before its end; looking through it does not take for ever either.
  `{"long":"kept","all":[${'{"token":"hunter2"},'.repeat(20_000)}]}`,
];

describe("looking", { concurrency: 2 }, () => {
  test("diagnose.sh: a server that hangs is told as such, after what the machine knows", async (t) => {
    const folder = makeFolder(t);
    const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "1"]);
    await server.ready();
    process.kill(server.pid, "SIGSTOP");
    const outcome = await runScript("diagnose.sh", ["--output", folder, "--within", "20"], server);
    process.kill(server.pid, "SIGCONT");
    assert.equal(outcome.code, DONE, outcome.stderr);
    assert.match(outcome.stderr, /no server answers; .* gave no answer/);
    const archive = outcome.stdout.trim().split("\n").at(-1) ?? "";
    const manifest = execFileSync("tar", ["-xzOf", archive, "--wildcards", "*/MANIFEST"], { encoding: "utf8" });
    assert.match(manifest, /^net\/tcp-info +exit 0,/m);
    assert.match(manifest, new RegExp(`^process-${server.pid}/limits +exit 0,`, "m"));
  });

  test("diagnose.sh: profiles do not use up the time of what is left", async (t) => {
    const folder = makeFolder(t);
    const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "2"]);
    await server.ready();
    const dry = await runScript("diagnose.sh", ["--output", folder, "--profile", "60", "--dry-run"], server);
    const places = dry.stdout.split("\n").map((line) => line.split(":")[0] ?? "");
    assert.deepEqual(places.slice(-3), ["profile/worker-0.txt", "profile/worker-1.txt", ""], dry.stdout);
  });

  test("admin.sh: the token is that of the server it asks, and no guessed address gets one", async (t) => {
    const folder = makeFolder(t);
    const control = join(folder, "other.sock");
    writeFileSync(join(folder, "headrace.yaml"), 'admin: { address: "127.0.0.1:0" }\n');
    const args = ["echo-line", "--listen", "127.0.0.1:0", "--workers", "1"];
    const server = startServer(t, [...args, "--control", control], { cwd: folder });
    await server.ready();
    // What another server beside it would have left.
    writeFileSync(join(folder, "admin-token"), "the-token-of-another-server-altogether\n");
    const found = await runScript("admin.sh", ["--control", control, "/status"]);
    assert.equal(found.code, DONE, found.stderr);
    assert.equal(JSON.parse(found.stdout).control, control);
    const none = join(folder, "none.sock");
    const env = { HEADRACE_ADMIN_TOKEN: "0123456789abcdef", RUNTIME_DIRECTORY: folder };
    const guessed = await runScript("admin.sh", ["--control", none, "--dry-run", "/readyz"], { env });
    assert.equal(guessed.stdout, "would ask: GET http://127.0.0.1:9900/readyz\n");
    assert.match(guessed.stderr, /is a guess, and is asked without a token/);
    const named = await runScript("admin.sh", ["--control", control, "--admin", "127.0.0.1:1", "--dry-run", "/status"]);
    assert.match(named.stdout, /with the token of .*other\.sock\.admin-token$/m);
  });

  test("diagnose.sh: one file for its owner alone, with what is asked for, without secrets, and nothing else left", async (t) => {
    const [folder, scratch] = [makeFolder(t), makeFolder(t)];
    const secrets = { DATABASE_PASSWORD: "hunter2-in-environment", SESSION: "hunter2-by-another-name" };
    const body = "export default defineService({ codec: line(), onMessage: (text) => text });";
    const cwd = prepared(t, "workers: 1\n");
    // A file that the server knows by a relative path: it has to be found from elsewhere.
    const server = startServer(
      t,
      [writeService(folder, body), "--listen", "127.0.0.1:0", "--config", "headrace.yaml"],
      {
        cwd,
        env: { NODE_ENV: "production", ...secrets },
      },
    );
    const [port = 0] = await server.ready();
    const client = await openClient(t, port);
    await client.ask("hello");
    const log = join(folder, "server.log");
    const token = "0123456789abcdef-token-of-the-server";
    writeFileSync(join(server.folder, "admin-token"), `${token}\n`);
    const key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----";
    writeFileSync(
      log,
      `{"msg":"a line"}\nAuthorization: Bearer abcdef0123\n{"token":"in-json","msg":"kept"}\nas it is: ${token}.\n${key}\n${SECRETS.join("\n")}\nlast line\n`,
    );
    const dry = await runScript("diagnose.sh", ["--output", folder, "--dry-run"], server);
    assert.match(dry.stdout, /net\/tcp-info: ss -tinmo sport = :\d+/);
    assert.match(dry.stdout, new RegExp(`^headrace/doctor: .* doctor --config ${cwd}/headrace\\.yaml$`, "m"));
    const outcome = await runScript("diagnose.sh", ["--output", folder, "--log", log], {
      ...server,
      env: { TMPDIR: scratch },
    });
    assert.equal(outcome.code, DONE, outcome.stderr);
    const archive = outcome.stdout.trim().split("\n").at(-1) ?? "";
    assert.equal(statSync(archive).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(scratch), [], "its own files are gone");
    assert.equal(readdirSync(folder).filter((name) => name.endsWith(".tar.gz")).length, 1);

    execFileSync("tar", ["-xzf", archive, "-C", scratch]);
    const place = join(scratch, readdirSync(scratch)[0] ?? "");
    const file = (name: string): string => readFileSync(join(place, name), "utf8");
    const status = await server.status();
    assert.equal(JSON.parse(file("headrace/status.json")).pid, status.pid);
    assert.match(file("net/tcp-info"), new RegExp(`ESTAB.*127\\.0\\.0\\.1:${port}[^]*rtt:`));
    assert.match(file("net/listening"), new RegExp(`:${port}`));
    assert.match(file("sysctl"), /net\.core\.somaxconn = \d+/);
    assert.match(file("log"), /a line[\s\S]*kept[\s\S]*last line/);
    for (const { pid } of [status, ...status.workers]) {
      assert.match(file(`process-${pid}/limits`), /Max open files/);
      assert.match(file(`process-${pid}/descriptors`), /socket:\[#\]/);
      assert.match(file(`process-${pid}/environment`), /^NODE_ENV=production$/m);
      assert.match(file(`process-${pid}/environment`), /^DATABASE_PASSWORD \(not shown\)$/m);
    }
    const everything = execFileSync("tar", ["-xzOf", archive], { maxBuffer: 1 << 28 }).toString("latin1");
    assert.equal(file("log").match(/kept/g)?.length, 1 + SECRETS.filter((line) => line.includes("kept")).length);
    assert.match(file("MANIFEST"), /^server: headrace .*, generation 1,/m);
    for (const secret of [...Object.values(secrets), token, "hunter2", "abcdef0123", "in-json", "MIGHAgEAMBMG"]) {
      assert.ok(!everything.includes(secret), secret);
    }
  });

  test("diagnose.sh: also where no server answers", async (t) => {
    const folder = makeFolder(t);
    const outcome = await runScript("diagnose.sh", ["--output", folder], { control: join(folder, "none.sock") });
    assert.equal(outcome.code, DONE, outcome.stderr);
    assert.match(outcome.stderr, /no server answers; what the machine knows is collected/);
    assert.equal(readdirSync(folder).length, 1);
    for (const args of [
      ["--profile", "0"],
      ["--profile", "61"],
      ["--output", join(folder, "none")],
      ["--log", "/none"],
    ]) {
      assert.equal((await runScript("diagnose.sh", args)).code, USAGE, args.join(" "));
    }
  });

  test("admin.sh: finds the server and its token; what is refused is told, and the token is on no command line", async (t) => {
    const rig = await startRig(t, { load: false, config: { admin: { address: "127.0.0.1:0" } } });
    const { control } = rig.server;
    const admin = (...args: string[]): ReturnType<typeof runScript> => runScript("admin.sh", args, { control });
    const token = readFileSync(join(rig.server.folder, "admin-token"), "utf8").trim();
    const dry = await admin("--dry-run", "/status");
    assert.match(dry.stdout, /^would ask: GET http:\/\/127\.0\.0\.1:\d+\/status with the token of .*admin-token\n$/);
    assert.ok(!dry.stdout.includes(token));
    assert.equal(JSON.parse((await admin("/readyz")).stdout).ready, true);
    assert.equal(JSON.parse((await admin("/status")).stdout).pid, (await rig.status()).pid);
    await openClient(t, rig.port);
    assert.equal(JSON.parse((await admin("/connections?limit=5")).stdout).total, 1);
    const level = await admin("--put", '{"level":"debug"}', "/log-level");
    assert.deepEqual([level.code, JSON.parse(level.stdout)], [DONE, { level: "debug" }], level.stderr);

    // Every metric that the runbook looks for.
    const { stdout: metrics } = await admin("/metrics");
    const runbook = readFileSync(join(RUNBOOK, "RUNBOOK.md"), "utf8");
    const looked = [...runbook.matchAll(/\/metrics \| grep (?:-E )?'?\^headrace_([^'\n]+)/g)].map(
      ([, names = ""]) => names,
    );
    assert.ok(looked.length > 5);
    for (const name of looked.flatMap((names) => names.match(/[a-z_]{4,}/g) ?? [])) {
      assert.match(metrics, new RegExp(`headrace_([a-z]+_)?${name}`), name);
    }

    const { admin: address = "" } = await rig.status();
    const wrong = join(rig.folder, "wrong-token");
    writeFileSync(wrong, "not-the-token-of-this-server\n");
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [["--token-file", wrong, "/status"], FAILED, /^admin\.sh: 401 /],
      [["--token-file", join(rig.folder, "none"), "/status"], FAILED, /cannot be read/],
      [["/nothing"], FAILED, /^admin\.sh: 404 /],
      [["--put", '{"level":"loud"}', "/log-level"], FAILED, /^admin\.sh: 400 .*debug/],
      [["--admin", "127.0.0.1:1", "/status"], UNREACHABLE, /no admin server answers at 127\.0\.0\.1:1: .*ECONNREFUSED/],
      [["status"], USAGE, /which path/],
      [["--admin", address, "--within", "x", "/status"], USAGE, /--within is a whole number/],
    ];
    for (const [args, code, why] of cases) {
      const outcome = await admin(...args);
      assert.equal(outcome.code, code, `${args.join(" ")}: ${outcome.stdout}${outcome.stderr}`);
      assert.match(outcome.stderr, why);
    }
    // diagnose.sh asks it too, and the real token is not in what it made.
    const folder = makeFolder(t);
    const diagnosis = await runScript("diagnose.sh", ["--output", folder, "--profile", "1"], { control });
    assert.equal(diagnosis.code, DONE, diagnosis.stderr);
    const archive = diagnosis.stdout.trim().split("\n").at(-1) ?? "";
    const all = execFileSync("tar", ["-xzOf", archive], { maxBuffer: 1 << 28 }).toString("latin1");
    assert.ok(!all.includes(token));
    for (const name of ["readyz", "metrics", "connections", "closed"])
      assert.match(all, new RegExp(`headrace/${name} +exit 0`));
    const names = execFileSync("tar", ["-tzf", archive]).toString();
    assert.match(names, /worker-0\.cpuprofile\n/);
  });

  test("time-wait.sh: tells apart who closed first, by port and by peer", async (t) => {
    const folder = makeFolder(t);
    const body = `export default defineService({
      codec: line(),
      onMessage: (text, { connection }) => (text === "you" ? connection.close() : text),
    });`;
    const server = startServer(t, [writeService(folder, body), "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    const [first = 0, second = 0] = await server.ready();
    const CLIENTS = 20;
    const close = async (port: number, who: "you" | "me"): Promise<void> => {
      const socket = connect({ port, host: "127.0.0.1", localAddress: "127.0.3.7", allowHalfOpen: true });
      socket.write(`${who}\n`);
      if (who === "you") socket.resume();
      await once(socket, who === "you" ? "end" : "data", { signal: AbortSignal.timeout(20_000) });
      socket.resume().end();
      await once(socket, "close");
    };
    for (let index = 0; index < CLIENTS; index++) {
      await close(first, "you");
      await close(second, "me");
    }
    const { code, stdout, stderr } = await runScript("time-wait.sh", ["--top", "1000"], server);
    assert.equal(code, DONE, stderr);
    // The server's own look at the port, at its start, is there too.
    const count = (pattern: string): number => Number(new RegExp(`(\\d+)  ${pattern}\\n`).exec(stdout)?.[1] ?? 0);
    assert.ok(count(`port ${first}`) >= CLIENTS, stdout);
    assert.ok(count("127\\.0\\.3\\.7") >= CLIENTS, stdout);
    assert.ok(count(`127\\.0\\.0\\.1:${second}`) >= CLIENTS, stdout);
    assert.match(
      stdout,
      /^\d+ sockets in TIME_WAIT: [\s\S]*closed first by the server\n +sockets {2}its port\n +\d+ {2}port \d+\n/,
    );
    assert.ok(count(`port ${second}`) <= 2 && count(`127\\.0\\.0\\.1:${first}`) <= 2, stdout);
    assert.match(stdout, /limit: net\.ipv4\.tcp_max_tw_buckets \d+/);
  });
});
