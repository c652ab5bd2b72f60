// Runs the compiled tests: `node test/run.mjs` all but test/system and test/sanitize, `node test/run.mjs system`
// (or `sanitize`, or any other folder of test/) that folder alone. Exits as `node --test` does, 1 when it finds no test.
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ON_REQUEST = ["system", "sanitize"];
/** For a whole file: the longest, real systemd, takes four minutes. One that hangs fails under its name. */
const FILE_TIMEOUT_MS = 15 * 60_000;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, "build", "test");
const [suite, ...excess] = process.argv.slice(2);

/** Test files below `folder`, sorted, so that every run has the same order. */
function testFiles(folder) {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.js"))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

/** A test whose source is gone would go on passing. */
function isStale(file) {
  const source = file.replace(/^build\/test\//, "test/").replace(/\.js$/, ".ts");
  return !existsSync(join(root, source));
}

function selected() {
  const found = suite === undefined ? testFiles(built) : testFiles(join(built, suite));
  const onRequest = (file) => ON_REQUEST.some((name) => file.startsWith(`build/test/${name}/`));
  return found.filter((file) => !isStale(file) && (suite !== undefined || !onRequest(file)));
}

if (excess.length > 0) {
  console.error("usage: node test/run.mjs [system|sanitize]");
  process.exit(2);
}
const files = selected();
if (files.length === 0) {
  console.error(`no test found in build/test/${suite ?? ""}; build them with \`tsc -p test/tsconfig.json\``);
  process.exit(1);
}
// One at a time where tests start servers of their own: they measure, and the machine is theirs.
const concurrency = suite === undefined ? availableParallelism() : 1;
const reporter = process.stdout.isTTY ? "spec" : "tap";
const options = [
  "--test",
  `--test-concurrency=${concurrency}`,
  `--test-reporter=${reporter}`,
  `--test-timeout=${FILE_TIMEOUT_MS}`,
];
const runner = spawn(process.execPath, [...options, ...files], { cwd: root, stdio: "inherit" });
runner.on("exit", (code, signal) => process.exit(signal === null ? code : 1));
