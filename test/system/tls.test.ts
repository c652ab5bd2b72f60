/** TLS as clients see it: certificates by name, protocols, client certificates; by openssl s_client and node:tls. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, copyFileSync, readFileSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { describe, test } from "node:test";
import { Authority, serialOf } from "../support/authority.js";
import { clientHello } from "../support/client-hello.js";
import { headrace } from "../support/command.js";
import { makeFolder, writeService } from "../support/folder.js";
import { SClient } from "../support/s-client.js";
import { type Seen, startTls, writeTlsConfig } from "../support/tls-rig.js";
import { until } from "../support/until.js";

describe("TLS", { concurrency: 2 }, () => {
  test("each name gets its certificate; who names none, or an unknown one, the first", async (t) => {
    const others: string[] = [];
    const rig = await startTls(t, ({ authority }) => {
      const issued = [
        authority.issue({ name: "b.example", newKey: ["-newkey", "rsa:2048"] }),
        authority.issue({ name: "wild", names: ["DNS:*.c.example"] }),
        authority.issue({ name: "given", names: [] }),
      ];
      others.push(...issued.map(({ certificate }) => serialOf(certificate)));
      const [rsa, wild, given] = issued;
      return { tls: { certificates: [rsa, wild, { ...given, names: ["d.example"] }] } };
    });
    const [rsa, wild, given] = others;
    const first = serialOf(rig.files.certificate);
    for (const [name, serial] of [
      ["a.example", first],
      ["b.example", rsa],
      ["B.Example", rsa],
      ["x.c.example", wild],
      ["y.x.c.example", first],
      ["d.example", given],
      ["unknown.example", first],
      [undefined, first],
    ]) {
      const args = name === undefined ? ["-noservername"] : ["-servername", name];
      for (const version of ["-tls1_2", "-tls1_3"]) {
        const client = new SClient(t, rig.port, [version, ...args]);
        const seen = await client.ask<Seen>("tls");
        assert.equal(client.serial, serial, `${name} with ${version}`);
        assert.equal(seen.serverName, name, "the service sees what was asked for");
        await client.close();
      }
    }
  });

  test("the chain is sent, so that openssl believes the server by its authority alone", async (t) => {
    const rig = await startTls(t);
    const args = ["-CAfile", rig.authority.certificate, "-verify_hostname", "a.example", "-verify_return_error"];
    const client = new SClient(t, rig.port, [...args, "-servername", "a.example"]);
    await client.seen(/Verify return code: 0 \(ok\)/);
    await client.close();
  });

  test("ALPN: the server's first choice; none in common is refused with its alert; none asked for is fine", async (t) => {
    const rig = await startTls(t, { tls: { alpn: ["b/2", "b/1"] } });
    for (const [offered, chosen] of [
      ["b/1,b/2", "b/2"],
      ["x,b/1", "b/1"],
    ] as const) {
      const client = new SClient(t, rig.port, ["-alpn", offered]);
      await client.seen(new RegExp(`ALPN protocol: ${chosen}`));
      assert.equal((await client.ask<Seen>("tls")).alpn, chosen);
      await client.close();
    }
    const silent = new SClient(t, rig.port);
    assert.equal((await silent.ask<Seen>("tls")).alpn, undefined);
    await silent.close();
    const foreign = new SClient(t, rig.port, ["-alpn", "h2"]);
    await foreign.seen(/alert no application protocol|no_application_protocol/);
    await foreign.exited;
    await until("it is counted", async () => (await rig.server.status()).closes["tls-error"] === 1);
    const told = await rig.server.logged("why", ({ msg }) => /^TLS handshakes failed: 1 /.test(msg));
    assert.match(told.msg, /no application protocol/);
  });

  test("what the service is told of protocol, cipher and resumption", async (t) => {
    const rig = await startTls(t);
    for (const [version, name, cipher] of [
      ["TLSv1.2", "-tls1_2", /^ECDHE-ECDSA-\w+-(GCM-SHA\d+|POLY1305)$/],
      ["TLSv1.3", "-tls1_3", /^TLS_(AES|CHACHA20)_/],
    ] as const) {
      const client = new SClient(t, rig.port, [name]);
      const seen = await client.ask<Seen>("tls");
      assert.deepEqual([seen.protocol, seen.resumed, seen.client], [version, false, undefined]);
      assert.match(seen.cipher, cipher);
      await client.close();
    }
  });

  describe("client certificates", () => {
    test("required: who has one is named to the service, the others get an alert", async (t) => {
      const rig = await startTls(t, ({ authority }) => ({
        tls: { ca: authority.certificate, clientCertificate: "required" },
      }));
      const device = rig.authority.issue({
        name: "device-7",
        organization: "Example",
        names: ["DNS:device-7.example", "URI:spiffe://example/device-7"],
      });
      for (const version of ["-tls1_2", "-tls1_3"]) {
        const client = new SClient(t, rig.port, [version, "-cert", device.certificate, "-key", device.key]);
        const { client: seen } = await client.ask<Seen>("tls");
        assert.deepEqual(seen?.subject, { CN: "device-7", O: "Example" });
        assert.deepEqual(seen?.subjectAltNames, ["DNS:device-7.example", "URI:spiffe://example/device-7"]);
        assert.match(seen?.fingerprint256 ?? "", /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
        assert.deepEqual([seen?.verified, seen?.problem], [true, undefined]);
        await client.close();
      }
      const stranger = new Authority(rig.folder, "Somebody else").issue({ name: "device-7" });
      const late = rig.authority.issue({ name: "device-7", days: -1 });
      for (const [who, args, alert] of [
        ["nobody", [], /alert (certificate required|handshake failure)/],
        ["a stranger", ["-cert", stranger.certificate, "-key", stranger.key], /alert (unknown ca|bad certificate)/],
        ["an expired one", ["-cert", late.certificate, "-key", late.key], /alert certificate expired/],
      ] as const) {
        for (const version of ["-tls1_2", "-tls1_3"]) {
          const client = new SClient(t, rig.port, [version, ...args]);
          client.send("tls");
          await client.seen(alert);
          await client.exited;
          assert.ok(!client.text.includes('"worker"'), `${who} is not served`);
        }
      }
      await until("all are counted", async () => (await rig.server.status()).closes["tls-error"] === 6);
      assert.equal((await rig.server.status()).listeners[0]?.opened, 2);
    });

    test("optional: without one is fine, and one that is not believed is shown as such", async (t) => {
      const rig = await startTls(t, ({ authority }) => ({
        tls: { ca: authority.certificate, clientCertificate: "optional" },
      }));
      const good = rig.authority.issue({ name: "good" });
      const stranger = new Authority(rig.folder, "Somebody else").issue({ name: "stranger" });
      for (const version of ["-tls1_2", "-tls1_3"]) {
        const none = new SClient(t, rig.port, [version]);
        assert.equal((await none.ask<Seen>("tls")).client, undefined);
        await none.close();
        const known = new SClient(t, rig.port, [version, "-cert", good.certificate, "-key", good.key]);
        assert.equal((await known.ask<Seen>("tls")).client?.verified, true);
        await known.close();
        const other = new SClient(t, rig.port, [version, "-cert", stranger.certificate, "-key", stranger.key]);
        const { client } = await other.ask<Seen>("tls");
        assert.deepEqual([client?.subject, client?.verified], [{ CN: "stranger" }, false]);
        assert.match(client?.problem ?? "", /unable to (verify the first|get local issuer) certificate/);
        await other.close();
      }
    });

    test("none: nobody is asked, and one that is offered is not looked at", async (t) => {
      const rig = await startTls(t);
      const device = rig.authority.issue({ name: "device" });
      const client = new SClient(t, rig.port, ["-cert", device.certificate, "-key", device.key]);
      assert.equal((await client.ask<Seen>("tls")).client, undefined);
      assert.match(await client.close(), /No client certificate CA names sent/);
    });
  });

  test("a key log is written only where one is asked for, and only its owner can read it", async (t) => {
    const rig = await startTls(t, { tls: { keyLog: "keys.log" } });
    const client = new SClient(t, rig.port, ["-tls1_3"]);
    await client.ask<Seen>("tls");
    await client.close();
    const path = join(rig.folder, "keys.log");
    const text = await until("the secrets are there", () => readFileSync(path, "utf8"));
    assert.match(text, /^CLIENT_TRAFFIC_SECRET_0 [0-9a-f]{64} [0-9a-f]+$/m);
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  test("behind a PROXY header, whether the handshake comes in the same segment or in a later one", async (t) => {
    const rig = await startTls(t, { proxyProtocol: { trust: ["127.0.0.1"] } });
    const header = Buffer.from("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
    for (const together of [true, false]) {
      const socket = connect(rig.port, "127.0.0.1");
      t.after(() => socket.destroy());
      await once(socket, "connect");
      if (!together) {
        socket.write(header);
        await until("the header was read", async () => (await rig.server.status()).totals.bytesReceived > 0);
      }
      const client = await rig.connect({ socket: together ? prefixed(socket, header) : socket });
      const seen = await client.see();
      assert.deepEqual([seen.remote, seen.peer, seen.serverName], ["192.0.2.7", "127.0.0.1", "a.example"]);
      assert.equal(await client.ask("x".repeat(100_000)), "x".repeat(100_000));
      client.tls.destroy();
    }
    const plain = connect(rig.port, "127.0.0.1");
    t.after(() => plain.destroy());
    plain.on("error", () => {});
    plain.write(clientHello({ version: 0x0303, ciphers: [0xc02b] }));
    await until("a handshake without it is refused", async () => {
      return (await rig.server.status()).closes["proxy-invalid"] === 1;
    });
  });

  test("bytes of a service are those of the plaintext one, in whatever pieces they come", async (t) => {
    const rig = await startTls(t, { beside: [{ name: "plain", address: "127.0.0.1:0", service: "echo-line" }] });
    const client = await rig.connect();
    const lines = Array.from({ length: 300 }, (_, index) => `${index}:${"x".repeat((index * 97) % 5_000)}`);
    for (const each of lines) client.send(each);
    for (const each of lines) assert.equal(await client.line(), each);
    const { listeners } = await rig.server.status();
    const [secure, plain] = listeners;
    assert.deepEqual([secure?.requests, secure?.handshakes, plain?.handshakes], [300, 1, 0]);
  });
});

/** `socket` with `header` in front of what is written first, in one piece. */
function prefixed(socket: Socket, header: Buffer): Duplex {
  let first = true;
  const duplex = new Duplex({
    read: () => {},
    write(chunk: Buffer, _encoding, done) {
      socket.write(first ? Buffer.concat([header, chunk]) : chunk, () => done());
      first = false;
    },
    final: (done) => socket.end(done),
  });
  socket.on("data", (chunk: Buffer) => duplex.push(chunk)).on("end", () => duplex.push(null));
  return duplex;
}

describe("before a server is started", { concurrency: 2 }, () => {
  test("check and run refuse files that cannot be used, with exit code 2, line and option; check warns", async (t) => {
    const folder = makeFolder(t);
    const authority = new Authority(folder);
    const files = authority.issue({ name: "a.example" });
    writeService(folder, "export default defineService({ codec: line(), onMessage: (text) => text });");
    const check = (command = "check") =>
      headrace([command, "--config", join(folder, "headrace.yaml")], {
        cwd: folder,
        env: { RUNTIME_DIRECTORY: folder },
      });
    writeTlsConfig(folder, files, {});
    chmodSync(files.key, 0o644);
    const good = await check();
    assert.equal(good.code, 0, good.stderr);
    assert.match(
      good.stderr,
      /^warning: the private key .* can be read by every user of this machine\n {2}chmod o-rwx /,
    );
    assert.match(good.stdout, /certificate: .*\n.*key: /);
    assert.ok(!good.stdout.includes("BEGIN"));
    const doctor = await check("doctor");
    assert.match(doctor.stdout, /hint: the private key .* can be read by every user/);
    copyFileSync(authority.issue({ name: "other" }).key, files.key);
    for (const command of ["check", "run", "doctor"]) {
      const { code, stderr } = await check(command);
      assert.equal(code, 2, stderr);
      assert.match(stderr, /headrace\.yaml:\d+: listeners\[0\]\.tls\.key: .* is not the key of the certificate in/);
    }
  });

  test("a start warns of a key that others can read", async (t) => {
    const rig = await startTls(t, ({ folder, authority }) => {
      const { certificate, key } = authority.issue({ name: "b.example" });
      chmodSync(key, 0o644);
      assert.ok(folder);
      return { tls: { certificate, key } };
    });
    const line = await rig.server.logged("the warning", ({ level, msg }) => level === 40 && /private key/.test(msg));
    assert.match(String(line.repair), /^chmod o-rwx /);
  });
});
