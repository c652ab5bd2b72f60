/** How a server was called, on a release folder that is a link: `current` → `v1`, later `v2`. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import type { CommandAsGiven } from "#src/primary/working-directory.js";
import { makeFolder } from "../support/folder.js";
import { moduleUrl } from "../support/script.js";

interface Answer extends CommandAsGiven {
  readonly directory: string;
  /** The release whose code answered. */
  readonly release: string;
}

const PROGRAM = `#!/usr/bin/env node
import { commandAsGiven, logicalWorkingDirectory } from ${moduleUrl("#src/primary/working-directory.js")};
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
if (process.argv.includes("--titled")) process.title = "headrace primary of another name";
const directory = logicalWorkingDirectory(process.env);
const release = basename(dirname(fileURLToPath(import.meta.url)));
console.log(JSON.stringify({ directory, release, ...commandAsGiven(directory, process.env) }));
`;

/** A folder with `v1`, `v2` and `current`, which is `v1`. */
function makeReleases(t: TestContext): string {
  const root = realpathSync(makeFolder(t));
  for (const release of ["v1", "v2"]) {
    mkdirSync(join(root, release, "bin"), { recursive: true });
    writeFileSync(join(root, release, "main.mjs"), PROGRAM);
    chmodSync(join(root, release, "main.mjs"), 0o755);
  }
  symlinkSync("v1", join(root, "current"));
  return root;
}

/** As `ln -sfn v2 current`. */
function turn(root: string): void {
  symlinkSync("v2", join(root, "next"));
  renameSync(join(root, "next"), join(root, "current"));
}

function ask(file: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Answer {
  const path = `${dirname(process.execPath)}${delimiter}${process.env.PATH}`;
  return JSON.parse(
    execFileSync(file, args, { cwd, env: { PATH: path, ...env }, encoding: "utf8", stdio: "pipe" }),
  ) as Answer;
}

const askAgain = ({ node, execArgv, entry, args, directory }: Answer): Answer =>
  ask(node, [...execArgv, entry, ...args], directory, { PWD: directory });

for (const [what, words] of [
  ["a relative program", (): string[] => ["./main.mjs"]],
  ["a program by its folder", (): string[] => ["../current/main.mjs"]],
  ["an absolute program", (root: string): string[] => [join(root, "current/main.mjs")]],
] as const) {
  test(`${what} inside the link: started again after it turned, it is the next release`, (t) => {
    const root = makeReleases(t);
    const current = join(root, "current");
    const args = [...words(root), "run", "--config", "game.yaml"];
    const first = ask(process.execPath, args, current, { PWD: current });
    assert.equal(first.directory, current);
    assert.equal(first.entry, join(current, "main.mjs"));
    assert.deepEqual(first.args, ["run", "--config", "game.yaml"]);
    assert.equal(first.release, "v1");
    turn(root);
    const second = askAgain(first);
    assert.equal(second.release, "v2");
    assert.deepEqual({ ...second, release: "v1" }, first, "and knows itself by the same words");
  });
}

test("without PWD, or with one that names another folder, the directory is where the kernel says", (t) => {
  const root = makeReleases(t);
  const current = join(root, "current");
  const other = join(root, "v2");
  for (const env of [{}, { PWD: "" }, { PWD: other }, { PWD: "current" }, { PWD: join(root, "gone") }]) {
    const { directory, entry } = ask(process.execPath, ["main.mjs"], current, env);
    assert.deepEqual([directory, entry], [join(root, "v1"), join(root, "v1/main.mjs")], JSON.stringify(env));
  }
  const dotted = `${root}/v2/../current`;
  assert.equal(ask(process.execPath, ["main.mjs"], current, { PWD: dotted }).directory, join(root, "v1"));
});

test("a path that goes up starts where the link leads, as it does for the kernel", (t) => {
  const root = makeReleases(t);
  mkdirSync(join(root, "links"));
  symlinkSync("../v1", join(root, "links/current"));
  const current = join(root, "links/current");
  const { entry, directory } = ask(process.execPath, ["../v2/main.mjs"], current, { PWD: current });
  assert.deepEqual([directory, entry], [current, join(root, "v2/main.mjs")]);
});

test("the options of Node and the arguments are kept, word for word", (t) => {
  const root = makeReleases(t);
  const options = ["--no-warnings", "--require", "node:fs", "--max-old-space-size=64"];
  const args = ["run", "", "--listen", "[::1]:0", "ä ö", "--", "main.mjs"];
  const answer = ask(process.execPath, [...options, "main.mjs", ...args], join(root, "v1"), {});
  assert.deepEqual(answer.execArgv, options);
  assert.deepEqual(answer.args, args);
  assert.equal(answer.entry, join(root, "v1/main.mjs"));
});

test("Node is started by the link it was started by, and a program by its own", (t) => {
  const root = makeReleases(t);
  symlinkSync(process.execPath, join(root, "v1/bin/node"));
  symlinkSync(process.execPath, join(root, "v2/bin/node"));
  symlinkSync("../main.mjs", join(root, "v1/bin/headrace"));
  const current = join(root, "current");
  const node = join(current, "bin/node");
  assert.equal(ask(node, ["main.mjs"], current, { PWD: current }).node, node);
  assert.equal(ask("./bin/node", ["main.mjs"], current, { PWD: current }).node, node);
  const PATH = `${join(current, "bin")}${delimiter}${process.env.PATH}`;
  const installed = ask(join(current, "bin/headrace"), ["run"], root, { PATH });
  assert.equal(installed.node, node, "found in PATH by env");
  assert.equal(installed.entry, join(current, "bin/headrace"));
  const plain = ask("bash", ["-c", 'exec -a nonsense "$0" main.mjs', process.execPath], current, {});
  assert.equal(plain.node, process.execPath, "called by another name");
});

test("once its title is set, Node's own words are all there is", (t) => {
  const root = makeReleases(t);
  const current = join(root, "current");
  const answer = ask(process.execPath, ["--no-warnings", "./main.mjs", "--titled"], current, { PWD: current });
  assert.deepEqual(
    [answer.node, answer.execArgv, answer.entry, answer.args],
    [process.execPath, ["--no-warnings"], join(root, "v1/main.mjs"), ["--titled"]],
  );
});

test("a directory that is gone is said so", (t) => {
  const root = makeReleases(t);
  const gone = join(root, "gone");
  mkdirSync(gone);
  const script = 'rmdir "$1" && exec "$0" "$2"';
  assert.throws(
    () => ask("sh", ["-c", script, process.execPath, gone, join(root, "v1/main.mjs")], gone, { PWD: gone }),
    /the working directory does not exist any more/,
  );
});
