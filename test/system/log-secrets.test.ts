/**
 * Secrets never get into the log, at whatever level, over a server's whole life: private keys of TLS, the secrets of its
 * sessions that a key log holds, the token of the admin server, and what connections say.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { Authority } from "../support/authority.js";
import { makeFolder } from "../support/folder.js";
import { startServer } from "../support/server.js";
import { until, within } from "../support/until.js";

/** The payload of a PEM file, line by line: none of it may be seen. */
const bodyOf = (pem: string): string[] =>
  pem.split("\n").filter((line) => line.length >= 32 && !line.includes("-----"));

test("keys, session secrets and what is said are in no line, from the start to the stop", async (t) => {
  const folder = makeFolder(t);
  const authority = new Authority(folder);
  const [one, other] = [authority.identity({ name: "localhost" }), authority.identity({ name: "localhost" })];
  const at = (name: string): string => join(folder, name);
  const install = ({ chain, key }: { readonly chain: string; readonly key: string }): void => {
    writeFileSync(at("c.pem"), chain);
    writeFileSync(at("k.pem"), key, { mode: 0o600 });
  };
  install(one);
  const write = (more = ""): void =>
    writeFileSync(
      at("headrace.yaml"),
      `workers: 1
log: { level: trace }
admin: { address: "127.0.0.1:0" }
listeners:
  - { name: s, address: "127.0.0.1:0", service: echo-line, tls: { certificate: c.pem, key: k.pem, keyLog: keys.log } }
${more}`,
    );
  write();
  const token = "a-token-that-nobody-may-read";
  const server = startServer(t, ["--config", at("headrace.yaml")], { env: { HEADRACE_ADMIN_TOKEN: token } });
  const [port = 0] = await server.ready();
  const said = "the-word-that-nobody-may-read";
  const speak = async (): Promise<void> => {
    const socket = connect({ port, host: "127.0.0.1", servername: "localhost", ca: authority.text });
    await within("the handshake", once(socket, "secureConnect"));
    socket.write(`${said}\n`);
    await within("the echo", once(socket, "data"));
    socket.end();
    await within("the end", once(socket, "close"));
  };
  await speak();
  await server.logged("its end", ({ msg }) => msg === "connection closed");

  const { admin = "" } = await server.status();
  const asAdmin = (authorization: string): Promise<Response> =>
    fetch(`http://${admin}/status`, { headers: { authorization } });
  assert.equal((await asAdmin(`Bearer ${token}`)).status, 200);
  assert.equal((await asAdmin(`Bearer ${token}x`)).status, 401);

  // Another certificate; then one that does not fit its key; then a file that is no configuration.
  install(other);
  assert.equal((await server.command("reload", "--wait")).code, 0);
  await speak();
  writeFileSync(at("k.pem"), one.key);
  await server.command("reload", "--wait");
  writeFileSync(at("headrace.yaml"), `key: |\n${one.key.replaceAll(/^/gm, "  ")}\n`);
  assert.equal((await server.command("reload", "--wait")).code, 1);
  install(other);
  write();
  // New workers get the keys anew, and so does one that replaces a dead one.
  assert.equal((await server.command("reload", "--replace", "--wait")).code, 0);
  const { workers } = await server.status();
  process.kill(workers[0]?.pid ?? 0, "SIGKILL");
  await until("it is replaced", async () => (await server.status()).workers.some(({ restarts }) => restarts > 0));
  await until("it serves", () =>
    speak().then(
      () => true,
      () => false,
    ),
  );
  server.signal("SIGTERM");
  await server.exit();

  const log = JSON.stringify(server.lines) + (await server.stderr);
  const sessions = readFileSync(at("keys.log"), "utf8");
  assert.match(sessions, /^SERVER_HANDSHAKE_TRAFFIC_SECRET /m);
  const secrets = [
    ...[one, other].flatMap(({ key }) => bodyOf(key)),
    ...sessions.split("\n").flatMap((line) => line.split(" ")[2] ?? []),
    said,
    token,
  ];
  assert.ok(secrets.length > 6);
  for (const secret of secrets) assert.ok(!log.includes(secret), `${secret.slice(0, 12)}… is in the log`);
});
