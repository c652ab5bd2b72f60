// The program as a user runs it, in the Node that runs this file: `node test/smoke.mjs FOLDER`, where FOLDER has
// headrace in its node_modules or is the checkout itself. A ten-line service is written there, started, talked to,
// asked for its status and stopped. Prints one line; exits 1 with what went wrong.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const DEADLINE_MS = 30_000;
const SERVICE = `import { defineService, line } from "headrace";

export default defineService({
  codec: line(),
  state: () => ({ count: 0 }),
  onMessage(text, { connection }) {
    connection.state.count += 1;
    return connection.state.count + ": " + text.toUpperCase();
  },
});
`;
const TYPED = SERVICE.replace("state: () =>", "state: (): { count: number } =>");

const folder = resolve(process.argv[2] ?? ".");
const installed = join(folder, "node_modules", "headrace", "dist", "cli", "main.js");
const entry = existsSync(installed) ? installed : join(folder, "dist", "cli", "main.js");
const [major, minor] = process.versions.node.split(".").map(Number);
const stripsTypes = major > 22 || (major === 22 && minor >= 18);

function deadline(what) {
  return setTimeout(() => {
    console.error(`smoke: ${what} took more than ${DEADLINE_MS} ms`);
    process.exit(1);
  }, DEADLINE_MS);
}

async function talk(port, lines) {
  const socket = connect(port, "127.0.0.1");
  socket.end(lines.map((line) => `${line}\n`).join(""));
  let received = "";
  socket.setEncoding("utf8").on("data", (text) => {
    received += text;
  });
  await once(socket, "close");
  return received;
}

async function serve(service, control) {
  const args = [entry, "run", service, "--listen", "127.0.0.1:0", "--workers", "2", "--control", control];
  const server = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(server, "exit");
  for await (const text of createInterface(server.stdout)) {
    const line = JSON.parse(text);
    if (line.msg === "ready") return { exited, address: line.listeners[0].address };
  }
  throw new Error(`the server ended with ${(await exited)[0]} before it was ready`);
}

const work = mkdtempSync(join(folder, ".smoke-"));
const timer = deadline("the whole test");
try {
  const services = [["service.mjs", SERVICE]];
  if (stripsTypes) services.push(["service.ts", TYPED]);
  for (const [name, source] of services) {
    const path = join(work, name);
    const control = join(work, `${name}.sock`);
    writeFileSync(path, source);
    const { exited, address } = await serve(path, control);
    assert.equal(await talk(Number(address.split(":").at(-1)), ["one", "two"]), "1: ONE\n2: TWO\n");
    const headrace = (...args) => promisify(execFile)(process.execPath, [entry, ...args, "--control", control]);
    assert.equal(JSON.parse((await headrace("status", "--json")).stdout).workers.length, 2);
    await headrace("stop", "--wait");
    assert.deepEqual(await exited, [0, null]);
  }
  console.log(
    `smoke: Node ${process.versions.node}: ${services.map(([name]) => name).join(" and ")} served and stopped`,
  );
} finally {
  clearTimeout(timer);
  rmSync(work, { recursive: true });
}
