/** HAProxy and nginx, with the configurations of deploy/: addresses and paths are a test's own, the rest is as shipped. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "./folder.js";
import { until, within } from "./until.js";

/** Changes to what is shipped: each must be there. */
type Changes = readonly (readonly [from: string, to: string])[];

export interface Balancer {
  readonly port: number;
  readonly pid: number;
  /** What it has printed. */
  readonly lines: string[];
}

/** A port that nobody has at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

function shipped(file: string, changes: Changes): string {
  return changes.reduce(
    (text, [from, to]) => {
      assert.ok(text.includes(from), `deploy/${file} has no ${JSON.stringify(from)}`);
      return text.replaceAll(from, to);
    },
    readFileSync(join(packageRoot(), "deploy", file), "utf8"),
  );
}

/** A certificate of its own for example.org. */
function makeCertificate(folder: string): void {
  const [key, chain] = [join(folder, "key.pem"), join(folder, "chain.pem")];
  const subject = ["-subj", "/CN=example.org", "-days", "2"];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", "-x509", ...kind, ...subject, "-keyout", key, "-out", chain], { stdio: "ignore" });
}

/** Runs it in the foreground until the test ends. */
async function run(t: TestContext, command: string, args: readonly string[], port: number): Promise<Balancer> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on("line", (line) => lines.push(line));
  }
  t.after(async () => {
    // Its own children go with it.
    child.kill("SIGTERM");
    await within(`${command} ends`, exited);
  });
  await until(`${command} listens`, async () => {
    assert.equal(child.exitCode, null, lines.join("\n"));
    return answers(port);
  });
  return { port, pid: child.pid ?? 0, lines };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** deploy/haproxy/haproxy.cfg in front of `server`. */
export async function startHaproxy(t: TestContext, server: number, changes: Changes = []): Promise<Balancer> {
  const folder = makeFolder(t);
  const certificates = join(folder, "certs");
  mkdirSync(certificates);
  makeCertificate(folder);
  const pem = ["chain.pem", "key.pem"].map((file) => readFileSync(join(folder, file), "utf8")).join("");
  writeFileSync(join(certificates, "example.org.pem"), pem);
  const port = await freePort();
  const text = shipped("haproxy/haproxy.cfg", [
    ["maxconn 100000", "maxconn 1000\n    log stdout format raw local0"],
    [":443", `127.0.0.1:${port}`],
    ["/etc/haproxy/certs", certificates],
    ["10.0.0.11:9000", `127.0.0.1:${server}`],
    ["    server two 10.0.0.12:9000\n", ""],
    ["inter 2s", "inter 200ms"],
    ...changes,
  ]);
  const file = join(folder, "haproxy.cfg");
  writeFileSync(file, text);
  return run(t, "haproxy", ["-db", "-f", file], port);
}

/** deploy/nginx/nginx.conf in front of `server`. */
export async function startNginx(t: TestContext, server: number): Promise<Balancer> {
  const folder = makeFolder(t);
  makeCertificate(folder);
  const port = await freePort();
  const text = shipped("nginx/nginx.conf", [
    ["load_module modules/", "load_module /usr/lib/nginx/modules/"],
    ["worker_processes auto;", `worker_processes 1;\ndaemon off;\npid ${folder}/nginx.pid;`],
    ["worker_rlimit_nofile 200000;", ""],
    ["worker_connections 100000", "worker_connections 1000"],
    ["listen 443", `listen 127.0.0.1:${port}`],
    ["/etc/nginx/certs", folder],
    ["10.0.0.11:9000 max_fails=1 fail_timeout=2s", `127.0.0.1:${server}`],
    ["        server 10.0.0.12:9000 max_fails=1 fail_timeout=2s;\n", ""],
  ]);
  const file = join(folder, "nginx.conf");
  writeFileSync(file, text);
  return run(t, "nginx", ["-e", "stderr", "-c", file], port);
}
