/**
 * sysctl/tune.sh on a real kernel, in a network namespace of its own: its net.* settings are nobody else's. What belongs
 * to the whole machine (fs.*) is replaced by ordinary files there.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { packageRoot } from "#src/os/addon.js";
import type { Outcome } from "../support/command.js";
import { makeFolder, writeService } from "../support/folder.js";
import { makeNamespace, type Namespace } from "../support/namespace.js";

interface Rig {
  readonly namespace: Namespace;
  readonly state: string;
  /** What `persist` installs. */
  readonly installed: string;
  readonly script: string;
  /** Runs tune.sh with the test's own folders. */
  tune(...args: string[]): Outcome;
  read(key: string): string;
  set(key: string, value: string): void;
  /** A settings file of the test's own. */
  file(text: string): string;
}

const pathOf = (key: string): string => `/proc/sys/${key.replaceAll(".", "/")}`;

async function makeRig(t: TestContext): Promise<Rig> {
  const folder = makeFolder(t);
  // Somebody else than root can run it too.
  chmodSync(folder, 0o755);
  cpSync(join(packageRoot(), "sysctl"), join(folder, "sysctl"), { recursive: true });
  const namespace = await makeNamespace(t);
  namespace.shell(`mkdir ${folder}/fs && cp /proc/sys/fs/nr_open /proc/sys/fs/file-max ${folder}/fs/
    mount --bind ${folder}/fs /proc/sys/fs`);
  const state = join(folder, "saved", "sysctl.saved");
  const etc = join(folder, "etc");
  const script = join(folder, "sysctl", "tune.sh");
  return {
    namespace,
    script,
    state,
    installed: join(etc, "90-headrace.conf"),
    tune: (...args) => namespace.run(script, ...args, "--state", state, "--etc", etc),
    read: (key) =>
      namespace
        .shell(`cat ${pathOf(key)}`)
        .trim()
        .replaceAll(/\s+/g, " "),
    set: (key, value) => {
      namespace.shell(`printf '%s\\n' '${value}' > ${pathOf(key)}`);
    },
    file(text) {
      const path = join(folder, "own.conf");
      writeFileSync(path, text);
      return path;
    },
  };
}

const PACKAGED = readFileSync(join(packageRoot(), "sysctl", "90-headrace.conf"), "utf8");
/** The packaged file without what no namespace may set. */
const OWN = PACKAGED.replaceAll(/^#:.* host.*\n(#= )?\S+ = .*\n/gm, "");

const MAIN = fileURLToPath(import.meta.resolve("#src/cli/main.js"));

/** A service of a user's own, which may connect to others. */
function makeService(t: TestContext): string {
  return writeService(makeFolder(t), "export default defineService({ codec: line(), onMessage: (text) => text });");
}

const SAMPLE = [
  "net.core.somaxconn",
  "net.ipv4.tcp_migrate_req",
  "net.ipv4.ip_local_port_range",
  "net.ipv4.ip_local_reserved_ports",
  "net.ipv4.tcp_keepalive_probes",
];
const WANTED = ["65535", "1", "16384 65535", "7000,9000-9001,9900", "5"];

test("check, apply, apply, persist, persist, rollback: each does its part once", async (t) => {
  const { tune, read, set, file, state, installed } = await makeRig(t);
  set("net.ipv4.ip_local_reserved_ports", "7000");
  const before = SAMPLE.map(read);
  const own = ["--file", file(OWN)];

  const checked = tune("check", ...own);
  assert.equal(checked.code, 1, checked.stderr);
  assert.match(checked.stdout, /^worse {4}net\.ipv4\.tcp_migrate_req: 0, wanted 1$/m);
  assert.deepEqual([SAMPLE.map(read), existsSync(state)], [before, false]);

  const applied = tune("apply", ...own);
  assert.equal(applied.code, 0, applied.stdout + applied.stderr);
  assert.deepEqual(SAMPLE.map(read), WANTED);
  assert.equal(statSync(state).mode & 0o777, 0o600);
  const saved = readFileSync(state, "utf8");
  assert.match(saved, /^net\.ipv4\.ip_local_reserved_ports = 7000$/m);
  assert.doesNotMatch(saved, /tcp_syncookies/, "only what was changed");
  assert.equal(tune("check", ...own).code, 0);

  // A value that drifts is set again, and what was there first is still what will be restored.
  set("net.ipv4.tcp_keepalive_probes", "8");
  assert.match(tune("apply", ...own).stdout, /^set {6}net\.ipv4\.tcp_keepalive_probes: 8 -> 5$/m);
  const again = tune("apply", ...own);
  assert.deepEqual([again.code, /^nothing to do$/m.test(again.stdout)], [0, true]);
  assert.equal(readFileSync(state, "utf8"), saved);

  assert.equal(tune("persist", ...own).code, 0);
  const first = statSync(installed);
  assert.match(readFileSync(installed, "utf8"), /^net\.ipv4\.ip_local_reserved_ports = 7000,9000-9001,9900$/m);
  assert.match(tune("persist", ...own).stdout, /^nothing to do$/m);
  assert.deepEqual([statSync(installed).ino, first.mode & 0o777], [first.ino, 0o644]);

  const back = tune("rollback", ...own);
  assert.equal(back.code, 0, back.stderr);
  assert.deepEqual([SAMPLE.map(read), existsSync(state), existsSync(installed)], [before, false, false]);
  assert.deepEqual(tune("rollback", ...own), { code: 0, stdout: "nothing to do\n", stderr: "" });
});

test("what is better already stays, number by number", async (t) => {
  const { tune, read, set, file } = await makeRig(t);
  set("net.core.somaxconn", "100000");
  set("net.ipv4.tcp_fin_timeout", "10");
  set("net.ipv4.ip_local_port_range", "1024 60999");
  set("net.ipv4.tcp_rmem", "8192 65536 8000000");
  assert.equal(tune("apply", "--file", file(OWN)).code, 0);
  assert.equal(read("net.core.somaxconn"), "100000");
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "10");
  assert.equal(read("net.ipv4.ip_local_port_range"), "1024 65535");
  assert.equal(read("net.ipv4.tcp_rmem"), "8192 131072 8000000");
});

test("--dry-run says what would be done, and does nothing", async (t) => {
  const { tune, read, file, state, installed } = await makeRig(t);
  const own = ["--file", file(OWN)];
  const before = SAMPLE.map(read);
  assert.match(tune("apply", ...own, "--dry-run").stdout, /^would set net\.core\.somaxconn: \d+ -> 65535$/m);
  assert.match(tune("persist", ...own, "--dry-run").stdout, /^net\.core\.somaxconn = 65535$/m);
  assert.deepEqual([SAMPLE.map(read), existsSync(state), existsSync(installed)], [before, false, false]);
  tune("apply", ...own);
  tune("persist", ...own);
  const after = SAMPLE.map(read);
  const { stdout } = tune("rollback", ...own, "--dry-run");
  assert.match(stdout, /^would restore net\.core\.somaxconn: 65535 -> \d+$/m);
  assert.match(stdout, /^would remove /m);
  assert.deepEqual([SAMPLE.map(read), existsSync(state), existsSync(installed)], [after, true, true]);
});

test("what the kernel refuses is named; the rest is set, and can be taken back", async (t) => {
  const { tune, read, set, file, state } = await makeRig(t);
  set("net.ipv4.tcp_fin_timeout", "60");
  const own = ["--file", file("net.ipv4.tcp_migrate_req = 7\nnet.ipv4.tcp_fin_timeout = 20\n")];
  const { code, stderr } = tune("apply", ...own);
  assert.equal(code, 1);
  assert.match(stderr, /^not set {2}net\.ipv4\.tcp_migrate_req: the kernel refuses the value 7$/m);
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "20");
  assert.deepEqual(
    readFileSync(state, "utf8").match(/^net.*$/gm),
    ["net.ipv4.tcp_fin_timeout = 60"],
    "what was not changed is not there to be restored",
  );
  assert.equal(tune("rollback", ...own).code, 0);
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "60");
});

test("a setting that this kernel does not have is said and skipped", async (t) => {
  const { tune, read, file } = await makeRig(t);
  const own = ["--file", file("net.ipv4.tcp_warp = 9\nnet.ipv4.tcp_fin_timeout = 20\n")];
  const { code, stdout } = tune("apply", ...own);
  assert.equal(code, 0);
  assert.match(stdout, /^skipped {2}net\.ipv4\.tcp_warp: not in this kernel, or its module is not loaded$/m);
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "20");
  const { keys } = JSON.parse(tune("check", "--json", ...own).stdout) as { keys: { key: string; state: string }[] };
  assert.deepEqual(
    keys.map(({ key, state }) => [key, state]),
    [
      ["net.ipv4.tcp_warp", "absent"],
      ["net.ipv4.tcp_fin_timeout", "ok"],
    ],
  );
});

test("not root: each is named with what to do, and nothing is changed or left behind", async (t) => {
  const { namespace, script, read, file, state, tune } = await makeRig(t);
  const before = SAMPLE.map(read);
  const own = file(OWN);
  const nobody = (...args: string[]): Outcome =>
    namespace.run(
      "setpriv",
      ...["--reuid=65534", "--regid=65534", "--clear-groups", script],
      ...args,
      ...["--file", own, "--state", state],
    );
  const { code, stderr } = nobody("apply");
  assert.equal(code, 1);
  assert.match(stderr, /^not set {2}net\.core\.somaxconn: only root may: sudo \S+ apply$/m);
  assert.deepEqual([SAMPLE.map(read), existsSync(state)], [before, false]);
  assert.equal(nobody("check").code, 1, "to look is allowed");
  assert.match(nobody("persist", "--etc", "/proc").stderr, /could not be written: sudo \S+ persist$/m);
  tune("apply", "--file", own);
  assert.match(nobody("rollback").stderr, /^tune\.sh: the state file \S+ cannot be read: sudo \S+ rollback$/m);
});

test("/proc/sys read-only, as in a container: each is named with where it is set instead", async (t) => {
  const { namespace, script, tune, read, file, state } = await makeRig(t);
  const before = SAMPLE.map(read);
  namespace.shell("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys");
  const { code, stderr } = tune("apply", "--file", file(OWN));
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^not set {2}net\.core\.somaxconn: \/proc\/sys is read-only here; .*--sysctl net\.core\.somaxconn="65535"/m,
  );
  assert.deepEqual([SAMPLE.map(read), existsSync(state)], [before, false]);
  const fargate = (...args: string[]): string =>
    namespace.run("env", "AWS_EXECUTION_ENV=AWS_ECS_FARGATE", script, ...args).stdout;
  assert.match(fargate("check", "--file", file(OWN)), /systemControls: namespace net\.core\.somaxconn, value "65535"/);
  const nrOpen = file("#: at-least host\nfs.nr_open = 999999999\n");
  assert.match(fargate("check", "--file", nrOpen), /Fargate fixes it: there is no way to change it/);
});

test("what cannot be restored stays to be restored", async (t) => {
  const { namespace, tune, read, set, file, state } = await makeRig(t);
  set("net.ipv4.tcp_fin_timeout", "60");
  set("net.ipv4.tcp_keepalive_probes", "9");
  const own = ["--file", file("net.ipv4.tcp_fin_timeout = 20\nnet.ipv4.tcp_keepalive_probes = 3\n")];
  assert.equal(tune("apply", ...own).code, 0);
  const path = pathOf("net.ipv4.tcp_fin_timeout");
  namespace.shell(`mount --bind ${path} ${path} && mount -o remount,ro,bind ${path}`);
  const { code, stderr } = tune("rollback", ...own);
  assert.equal(code, 1);
  assert.match(stderr, /^not restored net\.ipv4\.tcp_fin_timeout: /m);
  assert.deepEqual(readFileSync(state, "utf8").match(/^net.*$/gm), ["net.ipv4.tcp_fin_timeout = 60"]);
  assert.equal(read("net.ipv4.tcp_keepalive_probes"), "9");
  namespace.shell(`umount ${path}`);
  assert.equal(tune("rollback", ...own).code, 0);
  assert.deepEqual([read("net.ipv4.tcp_fin_timeout"), existsSync(state)], ["60", false]);
});

test("without a state file nothing is changed; one of somebody else's is not trusted", async (t) => {
  const { namespace, script, tune, read, set, file, state } = await makeRig(t);
  set("net.ipv4.tcp_fin_timeout", "60");
  const own = ["--file", file("net.ipv4.tcp_fin_timeout = 20\n")];
  const unsaved = namespace.run(script, "apply", ...own, "--state", "/proc/none/saved");
  assert.equal(unsaved.code, 1);
  assert.match(unsaved.stderr, /cannot be remembered in \/proc\/none\/saved, so nothing was changed/);
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "60");
  tune("apply", ...own);
  namespace.shell(`chown 65534 ${state}`);
  const { code, stderr } = tune("rollback", ...own);
  assert.deepEqual([code, /belongs to somebody else/.test(stderr)], [1, true]);
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "20");
});

test("it is found through a link, leaves nothing on a full disk, and runs one at a time whatever its files are", async (t) => {
  const { namespace, script, tune, read, set, file, state } = await makeRig(t);
  namespace.shell(`ln -s ${script} ${script}.link`);
  assert.notEqual(namespace.run(`${script}.link`, "check").code, 2, "its settings are beside the script");

  set("net.ipv4.tcp_fin_timeout", "60");
  const own = ["--file", file("net.ipv4.tcp_fin_timeout = 20\n")];
  const folder = join(state, "..");
  namespace.shell(
    `mkdir ${folder} && mount -t tmpfs -o size=4k full ${folder} && head -c 4096 /dev/zero >${folder}/filler`,
  );
  const full = tune("apply", ...own);
  assert.deepEqual([full.code, /cannot be remembered/.test(full.stderr)], [1, true], full.stderr);
  assert.equal(namespace.shell(`ls ${folder}`), "filler\n");
  assert.equal(read("net.ipv4.tcp_fin_timeout"), "60");
  namespace.shell(`umount ${folder}`);

  // Whoever is at work holds this, by whatever files it goes.
  const second = namespace.run("flock", "/proc/sys", script, "apply", ...own, "--state", state);
  assert.deepEqual([second.code, second.stderr], [1, "tune.sh: another tune.sh is at work\n"]);
  assert.equal(tune("apply", ...own).code, 0);
});

test("persist and rollback leave a file of somebody else's alone", async (t) => {
  const { tune, file, installed, namespace } = await makeRig(t);
  const own = ["--file", file(OWN)];
  namespace.shell(`mkdir -p ${join(installed, "..")} && echo 'net.core.somaxconn = 1' > ${installed}`);
  const { code, stderr } = tune("persist", ...own);
  assert.deepEqual([code, /was not written by tune\.sh/.test(stderr)], [1, true]);
  tune("rollback", ...own);
  assert.equal(readFileSync(installed, "utf8"), "net.core.somaxconn = 1\n");
});

test("shares of memory are computed; what is the machine's is set there", async (t) => {
  const { namespace, tune, file } = await makeRig(t);
  const meminfo = file("MemTotal:        1048576 kB\nMemFree: 1 kB\n");
  namespace.shell(`cp ${meminfo} ${meminfo}.mem && mount --bind ${meminfo}.mem /proc/meminfo`);
  const page = Number(namespace.shell("getconf PAGESIZE"));
  const own = file(`#: at-least host memory/pages
#= net.ipv4.tcp_mem = 9% 12% 18%
#: at-most memory/320
#= net.ipv4.tcp_warp = 2%
#: at-least host
fs.file-max = 9000000000000000
`);
  const wanted = (): (string | undefined)[] =>
    (JSON.parse(tune("check", "--json", "--file", own).stdout) as { keys: { wanted: string }[] }).keys.map(
      ({ wanted }) => wanted,
    );
  const share = (percent: number, unit: number): number => Math.floor(Math.floor((2 ** 30 * percent) / 100) / unit);
  assert.deepEqual(wanted().slice(0, 2), [[9, 12, 18].map((of) => share(of, page)).join(" "), String(share(2, 320))]);
  assert.equal(tune("apply", "--file", own).code, 0);
  assert.equal(namespace.shell("cat /proc/sys/fs/file-max").trim(), "9000000000000000");
  namespace.shell("umount /proc/meminfo && mount --bind /dev/null /proc/meminfo");
  const blind = tune("check", "--file", own);
  assert.match(blind.stderr, /^skipped {2}net\.ipv4\.tcp_mem: the machine's memory cannot be read/m);
  assert.equal(blind.code, 0, "what is left is as it should be");
});

test("--reserve adds ports to those that are there, once", async (t) => {
  const { tune, read, set, file } = await makeRig(t);
  set("net.ipv4.ip_local_reserved_ports", "8080,20000-20005");
  const own = ["--file", file("#: ports\nnet.ipv4.ip_local_reserved_ports = 9000\n"), "--reserve", "20003-20010,8080"];
  assert.equal(tune("apply", ...own).code, 0);
  assert.equal(read("net.ipv4.ip_local_reserved_ports"), "8080,9000,20000-20010");
  assert.match(tune("apply", ...own).stdout, /^nothing to do$/m);
});

test("headrace doctor and tune.sh agree: what each finds and wants, before and after", async (t) => {
  const { namespace, tune, set } = await makeRig(t);
  const service = makeService(t);
  set("net.ipv4.tcp_keepalive_time", "60");
  const doctor = (): Map<string, { found: string; wanted: string; repair: string }> => {
    const args = ["doctor", service, "--listen", "127.0.0.1:0", "--json"];
    const { stdout } = namespace.run(process.execPath, MAIN, ...args);
    const { findings } = JSON.parse(stdout) as {
      findings: { check: string; found: string; wanted: string; repair: string }[];
    };
    return new Map(findings.map((finding) => [finding.check, finding]));
  };
  const checked = (): { key: string; found: string; wanted: string; state: string; why?: string }[] =>
    JSON.parse(tune("check", "--json").stdout).keys;
  const before = doctor();
  assert.ok(before.has("net.core.somaxconn") && before.has("net.ipv4.tcp_tw_reuse"));
  for (const { key, found, wanted, state } of checked()) {
    const finding = before.get(key);
    if (!finding) continue;
    assert.deepEqual([finding.found, finding.wanted, "worse"], [found, wanted, state], key);
    assert.match(finding.repair, /sysctl\/tune\.sh apply$/);
  }
  assert.ok(!before.has("net.ipv4.tcp_keepalive_time"), "it is better already");
  tune("apply");
  const after = doctor();
  const left = checked().filter(({ state, why }) => state === "worse" && why === undefined);
  assert.deepEqual(left, []);
  assert.deepEqual([after.has("net.core.somaxconn"), after.has("net.ipv4.tcp_tw_reuse")], [false, false]);
});

test("headrace doctor where the kernel shows nothing of itself: all is unknown, nothing fails", async (t) => {
  const namespace = await makeNamespace(t);
  namespace.shell("mount -t tmpfs none /sys && mount -t tmpfs none /proc/sys");
  const { code, stdout, stderr } = namespace.run(process.execPath, MAIN, "doctor", "echo-line", "--json");
  assert.ok(code === 0 || code === 1, stderr);
  const { facts } = JSON.parse(stdout) as { facts: { check: string; severity: string }[] };
  const unknown = facts.filter(({ severity }) => severity === "unknown").map(({ check }) => check);
  for (const check of ["network cards", "clock source", "transparent huge pages", "net.core.somaxconn", "fs.nr_open"]) {
    assert.ok(unknown.includes(check), `${check}: ${unknown}`);
  }
});

test("limits/ulimit.sh: a command with more open files, or as many as the shell may give", () => {
  const start = (nofile: string, ...command: string[]): Outcome => {
    const script = join(packageRoot(), "sysctl", "limits", "ulimit.sh");
    const { status, stdout, stderr } = spawnSync("prlimit", ["--nofile=100:200", script, ...command], {
      encoding: "utf8",
      // Root may raise its hard limit.
      ...(process.getuid?.() === 0 ? { uid: 65_534 } : {}),
      env: { PATH: process.env.PATH, NOFILE: nofile },
    });
    return { code: status, stdout, stderr };
  };
  const show = ["sh", "-c", "ulimit -n"];
  assert.deepEqual(start("150", ...show), { code: 0, stdout: "150\n", stderr: "" });
  const capped = start("300", ...show);
  assert.deepEqual([capped.code, capped.stdout], [0, "200\n"]);
  assert.match(capped.stderr, /^ulimit\.sh: 200 open files instead of 300: /);
  assert.equal(start("many", ...show).code, 2);
  assert.equal(start("150", "sh", "-c", "exit 7").code, 7);
});

test("the packaged file: every setting has its words, and a rule", () => {
  const settings = PACKAGED.match(/^(#= )?[a-z][\w.-]+ = .*$/gm) ?? [];
  assert.ok(settings.length >= 24);
  for (const setting of settings) {
    const [above = ""] = PACKAGED.slice(0, PACKAGED.indexOf(setting)).split("\n").slice(-2);
    assert.match(above, /^#: (exact|at-least|at-most|range|ports)\b/, setting);
  }
  const explained = ["Default", "Why"].map((word) => PACKAGED.match(new RegExp(`^# ${word}:`, "gm"))?.length);
  assert.deepEqual(explained, [19, 19], "some explain several");
});

for (const [what, args, text, says] of [
  ["no command", [], "", /no command; allowed: check, apply, persist, rollback/],
  ["an unknown one", ["aply"], "", /unknown: aply; allowed: check, apply/],
  ["two", ["check", "apply"], "", /one command, not both check and apply/],
  ["a missing value", ["check", "--file"], "", /--file needs a value/],
  ["a missing file", ["check", "--file", "/nowhere"], "", /--file \/nowhere cannot be read/],
  ["--json elsewhere", ["apply", "--json"], "", /--json is for check/],
  ["ports that are none", ["check", "--reserve", "70000"], "", /--reserve 70000: allowed: 1 to 65535/],
  ["a range upside down", ["check", "--reserve", "20-10"], "", /the lower one first/],
  ["a line that is no setting", ["check"], "somaxconn 5\n", /own\.conf:1: neither a comment nor KEY = VALUE/],
  ["a path", ["check"], "net/../../etc = 5\n", /own\.conf:1: net\/\.\.\/\.\.\/etc is no name of a setting/],
  ["a rule that is none", ["check"], "#: most\na.b = 5\n", /own\.conf:1: most; allowed: exact, at-least/],
  ["a value that is none", ["check"], "#: at-least\na.b = five\n", /own\.conf:2: a\.b: allowed: numbers/],
  ["a setting twice", ["check"], "a.b = 1\na.b = 2\n", /own\.conf:2: a\.b is set twice/],
  ["a share without memory", ["check"], "#: at-least\n#= a.b = 5%\n", /own\.conf:2: a line with #= needs memory\/N/],
] as const) {
  test(`bad input: ${what} is one line and exit code 2`, async (t) => {
    const { tune, file } = await makeRig(t);
    const { code, stdout, stderr } = tune(...args, ...(text === "" ? [] : ["--file", file(text)]));
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, says);
    assert.match(stderr, /^tune\.sh: .*; see tune\.sh --help\n$/);
  });
}

test("--help needs nothing", async (t) => {
  const { tune } = await makeRig(t);
  const { code, stdout } = tune("--help");
  assert.equal(code, 0);
  assert.match(stdout, /^Usage: tune\.sh check\|apply\|persist\|rollback/);
});
