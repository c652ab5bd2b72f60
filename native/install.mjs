// Runs on `npm install`: takes a prebuilt binary when the package has one that fits, else compiles the addon, and after
// it the one for TLS, without which everything else works. Anywhere but on Linux it says so in one sentence and stops.
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
// npm puts its own node-gyp on the PATH of install scripts. Always a fresh build: a stale binary would lie.
const compile = (cwd) => spawnSync("node-gyp", ["rebuild", "--loglevel=warn"], { cwd, stdio: "inherit" });
const build = prebuilt
  ? spawnSync(process.execPath, [createRequire(import.meta.url).resolve("node-gyp-build/bin.js")], {
      cwd: dirname(directory),
      stdio: "inherit",
    })
  : compile(directory);
if (build.error) console.error(`headrace: the addon could not be built (${build.error.message}); run \`npm rebuild\``);
if (build.status !== 0) process.exit(build.status ?? 1);

const tls = join(directory, "tls");
if (!existsSync(join(tls, "prebuilds", `linux-${process.arch}`)) && compile(tls).status !== 0) {
  console.error("headrace: the addon for TLS could not be built; everything but TLS works without it.");
}
