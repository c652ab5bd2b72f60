/** Where the admin server stands: what fails leaves it there. */
import assert from "node:assert/strict";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { parseAddress } from "#src/base/address.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { AdminConfig } from "#src/config/config.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { AdminPort } from "#src/primary/admin-port.js";
import { fakeSource } from "../admin/source.js";
import { makeFolder } from "../support/folder.js";

function rig(t: TestContext): { readonly port: AdminPort; readonly tokenPath: string } {
  const folder = makeFolder(t);
  const port = new AdminPort({
    log: pino({ level: "silent" }),
    source: fakeSource(),
    control: join(folder, "control.sock"),
    uid: process.getuid?.() ?? 0,
    successor: false,
  });
  t.after(() => port.end());
  return { port, tokenPath: join(folder, "admin-token") };
}

function configOf(addressText: string, token?: string): AdminConfig {
  const address = parseAddress(addressText);
  assert.ok(typeof address === "object");
  return { address, addressText, hosts: [], profiles: true, ...(token === undefined ? {} : { token }) };
}

const listening = (): number =>
  check(addon().socketListen("127.0.0.1", 0, true, packSocketOptions(DEFAULT_SOCKET)), "listen");

const status = async (port: AdminPort, token: string): Promise<number> =>
  (await fetch(`http://${port.address}/status`, { headers: { authorization: `Bearer ${token}` } })).status;

test("a socket that cannot be listened on: the server stays where it was, with the token it had", async (t) => {
  const { port, tokenPath } = rig(t);
  await (await port.prepare(configOf("127.0.0.1:0"))).commit();
  const token = readFileSync(tokenPath, "utf8").trim();
  const before = port.address;
  const handed = { key: "127.0.0.2|0", fd: listening() };
  const prepared = await port.prepare(configOf("127.0.0.2:0", "a-token-of-ones-own"), handed);
  // In its place stands what is no socket.
  closeSync(handed.fd);
  assert.equal(openSync("/dev/null", "r"), handed.fd);
  await assert.rejects(prepared.commit());
  assert.equal(port.address, before);
  assert.equal(await status(port, token), 200);
  assert.ok(existsSync(tokenPath));
});

const TOKEN = "a-token-of-ones-own";

test("the port that port 0 has come to is the same place; the next generation knows it by that", async (t) => {
  const { port } = rig(t);
  await (await port.prepare(configOf("127.0.0.1:0", TOKEN))).commit();
  const { address = "" } = port;
  const fd = port.handed?.fd;
  await (await port.prepare(configOf(address, TOKEN))).commit();
  assert.deepEqual(port.handed?.fd, fd);
  assert.equal(port.handed?.key, address.replace(":", "|"));
  assert.equal(await status(port, TOKEN), 200);
});

test("an upgrade takes over the port that port 0 has come to", async (t) => {
  const { port } = rig(t);
  const fd = listening();
  const address = `127.0.0.1:${boundPort(fd)}`;
  await (await port.prepare(configOf(address, TOKEN), { key: "127.0.0.1|0", fd })).commit();
  assert.equal(port.address, address);
  assert.equal(await status(port, TOKEN), 200);
});

test("an address that overlaps where it stands is refused, and the error says that it is its own", async (t) => {
  const { port } = rig(t);
  await (await port.prepare(configOf("127.0.0.1:0", TOKEN))).commit();
  const { address = "" } = port;
  const [, number] = address.split(":");
  for (const wanted of [`0.0.0.0:${number}`, `[::]:${number}`]) {
    await assert.rejects(port.prepare(configOf(wanted, TOKEN)), (error: Error) => {
      assert.match(
        error.message,
        /overlaps 127\.0\.0\.1:\d+, where the admin server is now; choose another port, or restart/,
      );
      return true;
    });
  }
  assert.equal(await status(port, TOKEN), 200);
});
