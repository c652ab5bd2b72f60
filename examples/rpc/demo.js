/**
 * Shows the example with one command, `npm run example:rpc`: starts the three back services (one of them slow), the front
 * service, and asks it a few times for answers within 500 ms. Prints how long each answer took, what was in it, and
 * what each back service had been told. Exit code 1 when an answer took longer than the budget and 20 ms.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { defineClient } from "headrace";

const BUDGET_MS = 500;
const TOLERANCE_MS = 20;
const CALLS = Number(process.argv[2] ?? 5);
const BACKS = { users: 80, orders: 120, offers: 2_000 };

const folder = mkdtempSync(join(tmpdir(), "headrace-rpc-"));
const here = dirname(fileURLToPath(import.meta.url));
const headrace = join(dirname(createRequire(import.meta.url).resolve("headrace/package.json")), "dist/cli/main.js");
const servers = [];
/** By back service: what it was told, call by call. */
const told = {};

/** Starts `headrace run` and resolves with its address when it is ready. */
function start(module, name, env) {
  const args = [headrace, "run", join(here, module), "--listen", "127.0.0.1:0", "--workers", "1"];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env, RUNTIME_DIRECTORY: join(folder, name) },
    stdio: ["ignore", "pipe", "inherit"],
  });
  servers.push(child);
  told[name] = [];
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`${name} has ended (${code})`)));
    createInterface(child.stdout).on("line", (text) => {
      const line = JSON.parse(text);
      if (line.msg === "ready") resolve(line.listeners[0].address);
      if (line.msg === "asked") told[name].push(line.told);
    });
  });
}

async function show() {
  const addresses = await Promise.all(
    Object.entries(BACKS).map(([name, ms]) => start("back.js", name, { BACK_NAME: name, BACK_MS: String(ms) })),
  );
  const [USERS, ORDERS, OFFERS] = addresses;
  const front = defineClient({
    name: "front",
    rpc: true,
    targets: [await start("front.js", "front", { USERS, ORDERS, OFFERS })],
  });
  for (const [name, ms] of Object.entries(BACKS)) console.log(`${name} takes ${ms} ms`);
  console.log(`budget ${BUDGET_MS} ms\n`);
  let longest = 0;
  for (let call = 1; call <= CALLS; call++) {
    const begun = performance.now();
    const reply = await front.call(`user ${call}`, { timeoutMs: BUDGET_MS }).catch(({ code }) => code);
    const ms = performance.now() - begun;
    longest = Math.max(longest, ms);
    console.log(`call ${call}: ${Math.round(ms)} ms: ${reply}`);
  }
  await front.close();
  console.log("");
  for (const name of Object.keys(BACKS)) console.log(`${name} was told: ${told[name].join(", ")} ms`);
  const kept = longest <= BUDGET_MS + TOLERANCE_MS;
  console.log(`longest: ${Math.round(longest)} ms; the budget of ${BUDGET_MS} ms was ${kept ? "kept" : "NOT kept"}`);
  return kept;
}

async function stop() {
  for (const child of servers) {
    if (child.exitCode === null && child.kill("SIGTERM")) await once(child, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
}

try {
  process.exitCode = (await show()) ? 0 : 1;
} finally {
  await stop();
}
