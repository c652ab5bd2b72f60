/** TLS contexts of a worker: the key log, which is as secret as all that is said. */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { line } from "#src/codec/line.js";
import { listenerKey } from "#src/config/listener-key.js";
import { addon } from "#src/os/addon.js";
import { TicketKeys } from "#src/os/ticket-keys.js";
import { defineService } from "#src/service/define.js";
import { TlsContexts } from "#src/worker/tls.js";
import { localhost } from "../support/secured.js";
import { listenerOf } from "../support/serving.js";

function logging(t: TestContext): { folder: string; make: (keyLog: string) => void } {
  const folder = mkdtempSync(join(tmpdir(), "headrace-keylog-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const { fd } = TicketKeys.create(Date.now());
  t.after(() => addon().fdClose(fd));
  const contexts = new TlsContexts(fd);
  const certificate = { ...localhost, names: ["localhost"] };
  const service = defineService({ codec: line(), onMessage: (text) => text });
  const { config } = listenerOf(service, { tls: certificate });
  const secrets = { [listenerKey(config)]: { certificates: [certificate] } };
  return {
    folder,
    make(keyLog) {
      assert.ok(config.tls);
      contexts.make({ ...config, tls: { ...config.tls, keyLog } }, secrets);
    },
  };
}

test("a key log is its owner's alone: a new one, and one that was", (t) => {
  const { folder, make } = logging(t);
  const path = join(folder, "keys.log");
  make(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const other = join(folder, "other.log");
  writeFileSync(other, "# before\n", { mode: 0o600 });
  make(other);
  assert.equal(readFileSync(other, "utf8"), "# before\n");
});

test("a key log that others can read, or that is no file, is refused", (t) => {
  const { folder, make } = logging(t);
  const path = join(folder, "keys.log");
  for (const mode of [0o644, 0o640, 0o606, 0o602]) {
    writeFileSync(path, "");
    chmodSync(path, mode);
    assert.throws(() => make(path), { code: "tls-invalid", message: /keys\.log .*chmod go= / }, mode.toString(8));
  }
  chmodSync(path, 0o600);
  make(path);
  assert.throws(() => make("/dev/null"), { code: "tls-invalid", message: /\/dev\/null is not a file/ });
  symlinkSync(path, join(folder, "link"));
  assert.throws(() => make(join(folder, "link")), { code: "tls-invalid" });
});
