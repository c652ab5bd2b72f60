/** A service with metrics of its own. */
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder, writeService } from "./folder.js";

/** A service that counts its messages by a prom-client of its own, not headrace's copy. */
export function writeCountingService(t: TestContext, body = ""): string {
  const folder = makeFolder(t);
  const modules = join(folder, "node_modules");
  mkdirSync(modules);
  for (const name of ["prom-client", "tdigest", "bintrees", "@opentelemetry/api"]) {
    cpSync(join(packageRoot(), "node_modules", name), join(modules, name), { recursive: true });
  }
  writeService(
    folder,
    `import client from "prom-client";
     const messages = new client.Counter({ name: "game_messages_total", help: "Messages", labelNames: ["kind"] });
     new client.Gauge({ name: "game_workers", help: "Workers" }).set(1);
     new client.Gauge({ name: "game_highest", help: "Highest", aggregator: "max" }).set(process.pid);
     const sizes = new client.Histogram({ name: "game_size", help: "Sizes", buckets: [2, 4] });
     ${body}
     export default defineService({
       codec: line(),
       onMessage(text) { messages.inc({ kind: text }); sizes.observe(text.length); return String(process.pid); },
     });`,
  );
  return folder;
}

/** A configuration for it. */
export const COUNTING: object = {
  workers: 2,
  listeners: [{ name: "game", address: "127.0.0.1:0", service: "./service.mjs" }],
};
