/** The file of kernel settings as `headrace doctor` reads it; test/system/sysctl.test.ts compares that with tune.sh. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { betterOf, packagedSettings, parseSettings, portsHave } from "#src/primary/sysctl-file.js";

const GiB = 1024 ** 3;

test("what is better already stays, number by number", () => {
  assert.equal(betterOf("at-least", "4096", "65535"), "65535");
  assert.equal(betterOf("at-least", "100000", "65535"), "100000");
  assert.equal(betterOf("at-least", "8192 65536 8000000", "4096 131072 6291456"), "8192 131072 8000000");
  assert.equal(betterOf("at-most", "60", "30"), "30");
  assert.equal(betterOf("at-most", "10", "30"), "10");
  assert.equal(betterOf("range", "1024 60999", "16384 65535"), "1024 65535");
  assert.equal(betterOf("exact", "2", "1"), "1");
  // As systemd sets fs.file-max: more than a double can tell apart.
  assert.equal(betterOf("at-least", "9223372036854775807", "2097152"), "9223372036854775807");
  assert.equal(betterOf("at-least", "odd", "5"), "5");
});

test("lists of ports: what is missing is added, also where the kernel has joined neighbours", () => {
  assert.equal(betterOf("ports", "", "9000-9001,9900"), "9000-9001,9900");
  assert.equal(betterOf("ports", "7000,8999-9002", "9000-9001,9900"), "7000,8999-9002,9900");
  assert.equal(portsHave("9000-9004,9005-9010", 9001, 9009), true);
  assert.equal(portsHave("9000-9004,9006", 9001, 9006), false);
});

test("lines: a rule is for the next setting alone; shares of memory are computed", () => {
  const text =
    "# words = none\n#: at-least host memory/pages\n#= net.ipv4.tcp_mem = 9% 12%\na.b =  1\t2 \n#: at-most\n-c.d = 3\n";
  assert.deepEqual(parseSettings(text, GiB, 4096), [
    { key: "net.ipv4.tcp_mem", rule: "at-least", host: true, wanted: "23592 31457" },
    { key: "a.b", rule: "exact", host: false, wanted: "1 2" },
    { key: "c.d", rule: "at-most", host: false, wanted: "3" },
  ]);
});

test("the packaged file is found and has everything", () => {
  const settings = packagedSettings(8 * GiB, 4096);
  const keys = settings.map(({ key }) => key);
  assert.ok(keys.includes("net.core.somaxconn") && keys.includes("net.ipv4.tcp_mem") && keys.includes("fs.nr_open"));
  assert.ok(settings.every(({ wanted }) => !wanted.includes("%")));
});
