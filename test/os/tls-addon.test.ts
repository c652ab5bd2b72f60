/** A Node, or an installation, without what TLS needs: that one thing is refused, with its reason. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { addon, packageRoot } from "#src/os/addon.js";
import { tlsAddon } from "#src/os/tls-addon.js";
import { makeFolder } from "../support/folder.js";

/** The package without its TLS addon. */
function installation(t: TestContext): string {
  const copy = makeFolder(t);
  for (const name of ["package.json", "dist"]) cpSync(join(packageRoot(), name), join(copy, name), { recursive: true });
  mkdirSync(join(copy, "native"));
  for (const name of ["node_modules", "native/build"]) symlinkSync(join(packageRoot(), name), join(copy, name));
  return copy;
}

/** What the two addons of an installation say. */
function ask(copy: string): { sockets: string; code: string; message: string } {
  const source = `
    import { addon } from ${JSON.stringify(join(copy, "dist", "os", "addon.js"))};
    import { tlsAddon } from ${JSON.stringify(join(copy, "dist", "os", "tls-addon.js"))};
    const sockets = typeof addon().socketListen;
    try { tlsAddon(); } catch ({ code, message }) { console.log(JSON.stringify({ sockets, code, message })); }`;
  const ran = spawnSync(process.execPath, ["--input-type=module", "--eval", source], { encoding: "utf8" });
  return JSON.parse(ran.stdout || JSON.stringify({ sockets: "", code: ran.status, message: ran.stderr }));
}

test("without the binary: tls-unavailable, and everything else works", (t) => {
  const { sockets, code, message } = ask(installation(t));
  assert.deepEqual([sockets, code], ["function", "tls-unavailable"]);
  assert.match(message, /^TLS is not available in this Node: /);
});

test("with a symbol that this Node does not export: at once, not at its first use", (t) => {
  const copy = installation(t);
  const release = join(copy, "native", "tls", "build", "Release");
  mkdirSync(release, { recursive: true });
  writeFileSync(
    join(copy, "lacking.c"),
    "extern int SSL_not_there(void);\nint use(void) { return SSL_not_there(); }\n",
  );
  const output = ["-shared", "-fPIC", join(copy, "lacking.c"), "-o", join(release, "headrace_tls.node")];
  assert.equal(spawnSync("cc", output).status, 0);
  const { sockets, code, message } = ask(copy);
  assert.deepEqual([sockets, code], ["function", "tls-unavailable"]);
  assert.match(message, /undefined symbol: SSL_not_there/);
});

test("it is loaded once", () => {
  assert.equal(tlsAddon(), tlsAddon());
  assert.ok(addon());
});
