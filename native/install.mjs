// Runs on `npm install`: takes a prebuilt binary when the package has one that fits, else compiles the addon.
// Anywhere but on Linux it says so in one sentence and stops.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

if (process.platform !== "linux") {
  console.error(
    `headrace runs on Linux only (this is ${process.platform}): its engine is built on epoll and SO_REUSEPORT.`,
  );
  process.exit(1);
}

const directory = dirname(fileURLToPath(import.meta.url));
const prebuilt = existsSync(join(directory, "..", "prebuilds"));
const build = prebuilt
  ? spawnSync(process.execPath, [createRequire(import.meta.url).resolve("node-gyp-build/bin.js")], {
      cwd: dirname(directory),
      stdio: "inherit",
    })
  : // npm puts its own node-gyp on the PATH of install scripts. Always a fresh build: a stale binary would lie.
    spawnSync("node-gyp", ["rebuild", "--loglevel=warn"], { cwd: directory, stdio: "inherit" });
if (build.error) console.error(`headrace: the addon could not be built (${build.error.message}); run \`npm rebuild\``);
process.exit(build.status ?? 1);
