import assert from "node:assert/strict";
import { copyFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { HeadraceError } from "#src/base/errors.js";
import type { Config } from "#src/config/config.js";
import { Certificates } from "#src/primary/certificates.js";
import { load } from "../config/folder.js";
import { Authority, type Issued } from "../support/authority.js";
import { makeFolder } from "../support/folder.js";

interface Rig {
  readonly folder: string;
  readonly authority: Authority;
  readonly certificates: Certificates;
  readonly config: Config;
  /** What was logged: level and message. */
  readonly logged: { readonly level: number; readonly msg: string }[];
  /** Puts other contents into the files. */
  put(issued: Issued): void;
}

const CONFIG = `listeners:
  - { name: one, address: "127.0.0.1:9443", service: echo-line, tls: { certificate: c.pem, key: k.pem } }
  - { name: two, address: "127.0.0.1:9444", service: echo-line, tls: { certificate: c.pem, key: k.pem, alpn: [x] } }
  - { name: plain, address: "127.0.0.1:9445", service: echo-line }
`;

function open(t: TestContext): Rig {
  const folder = makeFolder(t);
  const authority = new Authority(folder);
  const put = ({ certificate, key }: Issued): void => {
    copyFileSync(certificate, join(folder, "c.pem"));
    copyFileSync(key, join(folder, "k.pem"));
  };
  put(authority.issue({ name: "a.example" }));
  const logged: Rig["logged"] = [];
  const log = pino({ level: "info" }, { write: (line: string) => logged.push(JSON.parse(line)) });
  const certificates = new Certificates(log);
  const config = load(t, { yaml: CONFIG }, folder);
  certificates.require(config);
  return { folder, authority, certificates, config, logged, put };
}

const chainOf = ({ certificates, config }: Rig): string | undefined =>
  Object.values(certificates.secretsOf(config))[0]?.certificates[0]?.chain;

test("every listener with TLS gets what its files hold, by its key", (t) => {
  const { certificates, config } = open(t);
  const secrets = certificates.secretsOf(config);
  assert.equal(Object.keys(secrets).length, 2);
  assert.deepEqual(
    certificates.status(config).map(({ listener }) => listener),
    ["one", "two"],
  );
  assert.equal(certificates.files.length, 2);
});

test("a configuration whose files cannot be used is refused with file, line and option, and changes nothing", (t) => {
  const { certificates, folder } = open(t);
  const other = load(t, { yaml: CONFIG.replace("certificate: c.pem", "certificate: none.pem") }, folder);
  assert.throws(
    () => certificates.require(other),
    (error) => {
      assert.ok(error instanceof HeadraceError);
      assert.equal(error.code, "config-invalid");
      assert.match(error.message, /^headrace\.yaml:2: listeners\[0\]\.tls\.certificate: .*none\.pem does not exist$/);
      assert.equal(error.fields.line, 2);
      return true;
    },
  );
  assert.equal(certificates.files.length, 2);
});

test("new contents are used once they are right, and both listeners told", (t) => {
  const rig = open(t);
  const { certificates, config, authority, put } = rig;
  const before = chainOf(rig);
  assert.deepEqual(certificates.renew(config, { tell: true }), { renewed: [], kept: [] });
  put(authority.issue({ name: "b.example" }));
  assert.deepEqual(certificates.renew(config, { tell: false }), { renewed: ["one", "two"], kept: [] });
  assert.notEqual(chainOf(rig), before);
  assert.deepEqual(certificates.status(config)[0]?.certificates[0]?.names, ["b.example"]);
});

test("broken contents: the old ones stay, it is said once, and shown until they are right", (t) => {
  const rig = open(t);
  const { certificates, config, authority, folder, logged, put } = rig;
  const before = chainOf(rig);
  const broken: [() => void, RegExp][] = [
    [() => put(authority.issue({ name: "late", days: -1 })), /has expired on/],
    [
      () => copyFileSync(authority.issue({ name: "x" }).key, join(folder, "k.pem")),
      /has expired on .*; .*is not the key of/,
    ],
    [() => writeFileSync(join(folder, "c.pem"), "half"), /holds no certificate/],
    [() => rmSync(join(folder, "k.pem")), /k\.pem does not exist/],
  ];
  for (const [breakIt, reason] of broken) {
    breakIt();
    assert.match(certificates.renew(config, { tell: false }).kept[0] ?? "", reason);
    const told = logged.length;
    for (let again = 0; again < 3; again++) certificates.renew(config, { tell: true });
    const errors = logged.slice(told).filter(({ level }) => level >= 50);
    assert.equal(errors.length, 1, String(reason));
    assert.match(errors[0]?.msg ?? "", /listener one, two keeps its certificate: /);
    assert.match(certificates.status(config)[1]?.problem?.message ?? "", reason);
    assert.equal(chainOf(rig), before);
  }
  put(authority.issue({ name: "good.example" }));
  assert.deepEqual(certificates.renew(config, { tell: true }).renewed, ["one", "two"]);
  assert.equal(certificates.status(config)[0]?.problem, undefined);
});

test("files that are put back as they were are no change, and no problem any more", (t) => {
  const { certificates, config, folder, authority, put } = open(t);
  const now = authority.issue({ name: "c.example" });
  put(now);
  certificates.renew(config, { tell: true });
  rmSync(join(folder, "c.pem"));
  assert.equal(certificates.renew(config, { tell: true }).kept.length, 1);
  put(now);
  assert.deepEqual(certificates.renew(config, { tell: true }), { renewed: [], kept: [] });
  assert.equal(certificates.status(config)[0]?.problem, undefined);
});

test("of one that ends soon, or has, one is reminded", (t) => {
  const { certificates, logged } = open(t);
  const DAY_MS = 24 * 3_600_000;
  const said = (at: number): string[] => {
    const before = logged.length;
    certificates.remind(at);
    return logged.slice(before).map(({ level, msg }) => `${level} ${msg.replace(/^.*c\.pem/, "")}`);
  };
  assert.deepEqual(said(Date.now()), []);
  assert.match(said(Date.now() + 25 * DAY_MS)[0] ?? "", /^40 {2}expires on \d{4}-/);
  assert.match(said(Date.now() + 31 * DAY_MS)[0] ?? "", /^50 {2}has expired on \d{4}-/);
});

test("what no configuration names any more is forgotten", (t) => {
  const { certificates, config } = open(t);
  certificates.keepOnly({ listeners: config.listeners.slice(2) });
  assert.deepEqual([certificates.files, certificates.secretsOf(config)], [[], {}]);
});

test("no key and no certificate's text is ever logged", (t) => {
  const { certificates, config, logged, authority, folder, put } = open(t);
  put(authority.issue({ name: "b.example" }));
  certificates.renew(config, { tell: true });
  copyFileSync(authority.issue({ name: "x" }).key, join(folder, "k.pem"));
  certificates.renew(config, { tell: true });
  assert.ok(logged.length >= 2);
  assert.ok(!JSON.stringify([logged, certificates.status(config)]).includes("BEGIN"));
});
