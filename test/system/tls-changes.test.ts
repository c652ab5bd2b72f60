/** What changes while clients are connected: certificates, configuration, workers, the whole release. */
import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { type Issued, serialOf } from "../support/authority.js";
import { type LineClient, openClient } from "../support/client.js";
import { SClient } from "../support/s-client.js";
import { type Seen, startTls, type TlsClient, type TlsRig } from "../support/tls-rig.js";
import { until } from "../support/until.js";

const serialSeen = ({ tls }: TlsClient): string => tls.getPeerCertificate().serialNumber;

async function serialNow(rig: TlsRig): Promise<string> {
  const client = await rig.connect();
  const serial = serialSeen(client);
  client.tls.end();
  await client.closed;
  return serial;
}

/** Every worker: enough connections that each of two has some. */
async function allServe(rig: TlsRig, serial: string): Promise<void> {
  for (let round = 0; round < 12; round++) assert.equal(await serialNow(rig), serial);
}

function put({ certificate, key }: Issued, at: Issued): void {
  copyFileSync(certificate, at.certificate);
  copyFileSync(key, at.key);
}

describe("certificates change", { concurrency: 2 }, () => {
  test("written anew: newcomers get the new one in all workers, open connections notice nothing", async (t) => {
    const rig = await startTls(t, { workers: 2 });
    const old = serialOf(rig.files.certificate);
    const open = await Promise.all(Array.from({ length: 6 }, () => rig.connect()));
    const before = rig.server.processes;
    for (let round = 0; round < 2; round++) {
      const next = rig.authority.issue({ name: "a.example" });
      const serial = serialOf(next.certificate);
      put(next, rig.files);
      await until("newcomers get it", async () => (await serialNow(rig)) === serial);
      await until("in all workers", async () => {
        const seen = await Promise.all(Array.from({ length: 8 }, () => serialNow(rig)));
        return seen.every((each) => each === serial);
      });
    }
    for (const client of open) {
      assert.equal(serialSeen(client), old);
      assert.equal(await client.ask("still here"), "still here");
    }
    assert.deepEqual(rig.server.processes, before, "no process was replaced");
  });

  test("Kubernetes: the folder of the data is turned", async (t) => {
    const place = (rig: { folder: string }) => join(rig.folder, "volume");
    const rig = await startTls(t, ({ folder, authority }) => {
      const volume = place({ folder });
      mkdirSync(join(volume, "..1"), { recursive: true });
      const { certificate, key } = authority.issue({ name: "a.example" });
      copyFileSync(certificate, join(volume, "..1", "tls.crt"));
      copyFileSync(key, join(volume, "..1", "tls.key"));
      symlinkSync("..1", join(volume, "..data"));
      for (const name of ["tls.crt", "tls.key"]) symlinkSync(join("..data", name), join(volume, name));
      return { tls: { certificate: join(volume, "tls.crt"), key: join(volume, "tls.key") } };
    });
    const volume = place(rig);
    const { certificate, key } = rig.authority.issue({ name: "a.example" });
    const serial = serialOf(certificate);
    mkdirSync(join(volume, "..2"));
    renameSync(certificate, join(volume, "..2", "tls.crt"));
    renameSync(key, join(volume, "..2", "tls.key"));
    symlinkSync("..2", join(volume, "..data_tmp"));
    renameSync(join(volume, "..data_tmp"), join(volume, "..data"));
    await until("newcomers get it", async () => (await serialNow(rig)) === serial);
  });

  test("broken files: the old certificate stays, log and status say why; a worker that is replaced has it too", async (t) => {
    const rig = await startTls(t, { workers: 2 });
    const serial = serialOf(rig.files.certificate);
    const good = readFileSync(rig.files.certificate);
    writeFileSync(rig.files.certificate, "-----BEGIN CERT");
    const line = await rig.server.logged(
      "the error",
      ({ level, msg }) => level === 50 && /keeps its certificate/.test(msg),
    );
    assert.match(line.msg, /^listener secure keeps its certificate: .* holds no certificate in PEM form$/);
    const { tls } = await rig.server.status();
    assert.match(tls[0]?.problem?.message ?? "", /holds no certificate/);
    const { stdout } = await rig.server.command("status");
    assert.match(stdout, /^listener secure keeps its certificate since .*holds no certificate/m);
    const [worker] = (await rig.server.status()).workers;
    process.kill(worker?.pid ?? 0, "SIGKILL");
    await until("it was replaced", async () => (await rig.server.status()).totals.restarts === 1);
    await allServe(rig, serial);
    // A reload does what else there is to do, and says it.
    const { code, stdout: said } = await rig.server.command("reload", "--wait");
    assert.equal(code, 0);
    assert.match(said, /reloaded: .*; listener secure keeps its certificate: .*holds no certificate/);
    assert.equal(
      rig.server.lines.filter(({ msg }) => /keeps its certificate/.test(msg) && !/reloaded/.test(msg)).length,
      1,
    );
    writeFileSync(rig.files.certificate, good);
    await until("nothing is wrong any more", async () => (await rig.server.status()).tls[0]?.problem === undefined);
    await allServe(rig, serial);
  });

  test("an expired one, and a key of another certificate, are not used", async (t) => {
    const rig = await startTls(t);
    const serial = serialOf(rig.files.certificate);
    put(rig.authority.issue({ name: "a.example", days: -1 }), rig.files);
    await rig.server.logged("expired", ({ msg }) => /keeps its certificate: .* has expired on/.test(msg));
    assert.equal(await serialNow(rig), serial);
    put({ ...rig.authority.issue({ name: "a.example" }), key: rig.authority.issue({ name: "x" }).key }, rig.files);
    await rig.server.logged("mismatch", ({ msg }) => /keeps its certificate: .* is not the key of/.test(msg));
    assert.equal(await serialNow(rig), serial);
  });

  test("a reload: other files, other rules, TLS on and off; at once, and with a wrong file not at all", async (t) => {
    const rig = await startTls(t, { workers: 2 });
    const workers = (await rig.server.status()).workers.map(({ pid }) => pid);
    const client = await rig.connect();
    const { certificate, key } = rig.authority.issue({ name: "other.example" });
    rig.configure({ workers: 2, tls: { certificate, key, minVersion: "TLSv1.3", alpn: ["p"] } });
    const outcome = await rig.server.command("reload", "--wait");
    assert.equal(outcome.code, 0, outcome.stderr);
    const seen = await rig.connect({ servername: "other.example", ALPNProtocols: ["p"] });
    assert.deepEqual([serialSeen(seen), (await seen.see()).alpn], [serialOf(certificate), "p"]);
    await assert.rejects(rig.connect({ maxVersion: "TLSv1.2" }), /protocol version/);
    rig.configure({ workers: 2, tls: { certificate: "none.pem" } });
    const refused = await rig.server.command("reload", "--wait");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /listeners\[0\]\.tls\.certificate: .*none\.pem does not exist/);
    assert.equal((await rig.connect({ servername: "other.example" })).tls.getProtocol(), "TLSv1.3");
    writeFileSync(
      join(rig.folder, "headrace.yaml"),
      'workers: 2\nlisteners: [{ name: secure, address: "127.0.0.1:0", service: ./service.mjs }]\n',
    );
    assert.equal((await rig.server.command("reload", "--wait")).code, 0);
    assert.equal(await (await openClient(t, rig.port)).ask("plain"), "plain");
    assert.equal(await client.ask("encrypted still"), "encrypted still");
    assert.deepEqual(
      (await rig.server.status()).workers.map(({ pid }) => pid),
      workers,
      "in place",
    );
  });
});

describe("sessions are resumed", { concurrency: 2 }, () => {
  for (const version of ["-tls1_2", "-tls1_3"] as const) {
    test(`by any worker, after a reload, with another certificate, after an upgrade (${version})`, async (t) => {
      const rig = await startTls(t, { workers: 2, top: { timeouts: { prove: "500ms" }, drain: { tls: "1s" } } });
      const session = join(rig.folder, "session.pem");

      /** By the session of before; stores the new one. */
      async function resume(): Promise<Seen> {
        const known = existsSync(session) ? ["-sess_in", session] : [];
        const client = new SClient(t, rig.port, [version, ...known, "-sess_out", session]);
        const seen = await client.ask<Seen>("tls");
        assert.match(await client.close(), seen.resumed ? /Reused, TLSv/ : /New, TLSv/);
        return seen;
      }

      /** Until each process has had it from another one. */
      async function resumedByAll(what: string): Promise<Set<number>> {
        const pids = new Set<number>();
        for (let tries = 0; pids.size < 2 && tries < 40; tries++) {
          const { pid, resumed } = await resume();
          assert.ok(resumed, `${what}: a full handshake in process ${pid}`);
          pids.add(pid);
        }
        assert.equal(pids.size, 2, what);
        return pids;
      }

      assert.equal((await resume()).resumed, false);
      const first = await resumedByAll("other workers");
      assert.equal((await rig.server.command("reload", "--replace", "--wait")).code, 0);
      const second = await resumedByAll("a reload");
      put(rig.authority.issue({ name: "a.example" }), rig.files);
      await rig.server.logged("the new certificate", ({ msg }) => /certificate reloaded/.test(msg));
      await resumedByAll("another certificate");
      const outcome = await rig.server.command("upgrade", "--wait");
      assert.equal(outcome.code, 0, outcome.stderr);
      await until("the old generation has gone", async () => (await rig.server.status()).draining.length === 0);
      const third = await resumedByAll("an upgrade");
      const all = new Set([...first, ...second, ...third]);
      assert.equal(all.size, 6, "six processes have resumed it");
    });
  }

  test("but not where other clients are let in", async (t) => {
    const rig = await startTls(t);
    const session = join(rig.folder, "session.pem");
    const first = new SClient(t, rig.port, ["-sess_out", session]);
    assert.equal((await first.ask<Seen>("tls")).resumed, false);
    await first.close();
    rig.configure({ tls: { ca: rig.authority.certificate, clientCertificate: "required" } });
    assert.equal((await rig.server.command("reload", "--wait")).code, 0);
    const second = new SClient(t, rig.port, ["-sess_in", session]);
    second.send("tls");
    await second.seen(/alert/);
    await second.exited;
    assert.ok(!second.text.includes('"worker"'));
  });
});

/** When each was told goodbye, ms from now on; each must have been answered up to then. */
async function goodbyes(clients: readonly LineClient[]): Promise<number[]> {
  const start = performance.now();
  return Promise.all(
    clients.map(async (client) => {
      for (let count = 0; ; count++) {
        // The goodbye may come in front of the answer, or instead of it.
        const text = await client.ask(`${count}`);
        if (text === "goodbye") break;
        assert.equal(text, `${count}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.equal(await client.closed, undefined, "closed in order");
      return performance.now() - start;
    }),
  );
}

const CLIENTS = 30;
const DRAIN_MS = 3_000;

/** Spread over the time: none too early or too late, and each third has its share. */
function assertSpread(times: readonly number[], total: number, began: number): void {
  assert.equal(times.length, CLIENTS);
  const thirds = [0, 0, 0];
  for (const at of times) {
    const third = Math.min(2, Math.max(0, Math.floor((3 * (at - began)) / total)));
    thirds[third] = (thirds[third] ?? 0) + 1;
  }
  for (const count of thirds) assert.ok(count >= CLIENTS / 3 - 5 && count <= CLIENTS / 3 + 5, `${thirds} of ${times}`);
}

async function startDraining(t: TestContext): Promise<{ rig: TlsRig; clients: TlsClient[]; plain: LineClient }> {
  const rig = await startTls(t, {
    top: { drain: { tls: `${DRAIN_MS}ms` }, timeouts: { prove: "300ms" } },
    beside: [{ name: "plain", address: "127.0.0.1:0", service: "./service.mjs" }],
  });
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => rig.connect()));
  const plain = await openClient(t, rig.ports[0] ?? 0);
  assert.equal(await plain.ask("here"), "here");
  return { rig, clients, plain };
}

describe("drain.tls", { concurrency: 2 }, () => {
  test("a reload: TLS connections stay and are served, goodbyes are spread; plaintext ones move", async (t) => {
    const { rig, clients, plain } = await startDraining(t);
    const [before] = (await rig.server.status()).workers;
    const told = goodbyes(clients);
    const began = performance.now();
    const { code, stdout } = await rig.server.command("reload", "--replace", "--wait");
    const reloaded = performance.now() - began;
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`1 connection moved, ${CLIENTS} connections left to drain`));
    const status = await rig.server.status();
    assert.notEqual(status.workers[0]?.pid, before?.pid);
    assert.deepEqual(
      status.draining.map(({ pid }) => pid),
      [before?.pid],
    );
    assert.equal(JSON.parse(await plain.ask("tls")).pid, status.workers[0]?.pid, "the plaintext one has moved");
    const newcomer = await rig.connect();
    assert.equal((await newcomer.see()).pid, status.workers[0]?.pid);
    const times = await told;
    assert.ok(Math.max(...times) <= reloaded + DRAIN_MS + 500, `the last at ${Math.max(...times)}`);
    assertSpread(times, DRAIN_MS, reloaded - 100);
    await until("the old worker has gone", async () => (await rig.server.status()).draining.length === 0);
    assert.equal((await rig.server.status()).closes.drain, CLIENTS);
    assert.equal(await newcomer.ask("still here"), "still here");
    await rig.server.logged("why", ({ msg }) => /connections with TLS do not move/.test(msg));
  });

  test("an upgrade: the same, in the old generation", async (t) => {
    const { rig, clients, plain } = await startDraining(t);
    const old = (await rig.server.status()).pid;
    const told = goodbyes(clients);
    const { code, stderr } = await rig.server.command("upgrade", "--wait");
    assert.equal(code, 0, stderr);
    const status = await rig.server.status();
    assert.notEqual(status.pid, old);
    assert.equal(status.draining[0]?.pid, old);
    assert.equal(await plain.ask("moved"), "moved");
    const times = await told;
    const spread = Math.max(...times) - Math.min(...times);
    assert.ok(spread > DRAIN_MS * 0.8 && spread < DRAIN_MS + 500, `over ${spread} ms`);
    await until("the old generation has gone", async () => (await rig.server.status()).draining.length === 0);
  });

  test("a stop does not wait for it: workers that drain end by the drain deadline too", async (t) => {
    const rig = await startTls(t, { top: { drain: { tls: "1h" }, timeouts: { drain: "5s" } } });
    const clients = await Promise.all([rig.connect(), rig.connect()]);
    assert.equal((await rig.server.command("reload", "--replace", "--wait")).code, 0);
    assert.equal((await rig.server.status()).draining.length, 1);
    for (const client of clients) assert.equal(await client.ask("here"), "here");
    const began = performance.now();
    const all = clients.map(async (client) => {
      assert.equal(await client.line(), "goodbye");
      assert.equal(await client.closed, undefined);
    });
    rig.server.signal("SIGTERM");
    await Promise.all(all);
    assert.deepEqual(await rig.server.exit(), { code: 0, signal: null });
    assert.ok(performance.now() - began < 4_000);
  });

  test("nor does a stop of the next generation", async (t) => {
    const rig = await startTls(t, { top: { drain: { tls: "1h" }, timeouts: { drain: "5s", prove: "300ms" } } });
    const client = await rig.connect();
    assert.equal((await rig.server.command("upgrade", "--wait")).code, 0);
    assert.equal(await client.ask("here"), "here");
    assert.equal((await rig.server.status()).draining.length, 1);
    const began = performance.now();
    const goodbye = client.line();
    const stopped = rig.server.command("stop", "--wait");
    assert.equal(await goodbye, "goodbye");
    assert.ok(performance.now() - began < 4_000, "told by the old generation, not when that is killed for being late");
    assert.equal((await stopped).code, 0);
    await rig.server.gone();
  });
});
