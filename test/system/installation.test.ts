/** What deploy/systemd/README.md says to do with a checkout makes one that runs, without what only development needs. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "../support/folder.js";

const INSTALL_MS = 10 * 60_000;
/** What is made from the rest, or is not part of a release. */
const LEFT_OUT = /^(node_modules|dist|build|\.git)(\/|$)|^native\/(tls\/)?build(\/|$)/;

test("the first line of the installation, as it stands", (t) => {
  const readme = readFileSync(join(packageRoot(), "deploy", "systemd", "README.md"), "utf8");
  const [, line = ""] = /```sh\n(npm .*?)(?: +#.*)?\n/.exec(readme) ?? [];
  assert.match(line, /^npm ci /);
  const checkout = makeFolder(t);
  const filter = (path: string): boolean => !LEFT_OUT.test(path.slice(packageRoot().length + 1));
  cpSync(packageRoot(), checkout, { recursive: true, filter });
  const env = { ...process.env, NODE_ENV: "", npm_config_prefer_offline: "true", npm_config_audit: "false" };
  execFileSync("bash", ["-euo", "pipefail", "-c", line], { cwd: checkout, env, timeout: INSTALL_MS, stdio: "pipe" });
  const version = execFileSync(process.execPath, [join(checkout, "dist", "cli", "main.js"), "--version"], {
    encoding: "utf8",
    cwd: "/",
  });
  assert.match(version, /^\S*\d+\.\d+\.\d+/);
  assert.ok(existsSync(join(checkout, "native", "build", "Release", "headrace.node")));
  assert.ok(!existsSync(join(checkout, "node_modules", "typescript")), "what only development needs is gone");
});
