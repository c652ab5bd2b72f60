/**
 * Loads services in a process that must not hang on them or end with them unsaid: a module may wait for ever, or
 * call process.exit() while it is loaded.
 */
import { writeSync } from "node:fs";
import { EXIT, HeadraceError } from "../base/errors.ts";
import { within } from "../base/within.ts";
import type { ServiceRef } from "../config/config.ts";
import type { ListenerService } from "../service/udp.ts";
import { loadService } from "../worker/load-service.ts";

const LOADING_MS = 60_000;

/** Throws `service-invalid`, also when the module is not loaded after `withinMs`. */
export async function loadServiceWithin(ref: ServiceRef, withinMs: number = LOADING_MS): Promise<ListenerService> {
  const given = ref.kind === "builtin" ? ref.name : ref.given;
  const onExit = (): void => {
    writeSync(2, `headrace: service ${given}: ended the process while it was loaded\n`);
    process.exitCode = EXIT.usage;
  };
  process.once("exit", onExit);
  try {
    return await within(withinMs, loadService(ref), () => {
      const problem = `service ${given}: is not loaded after ${withinMs / 1000} s (is there an await that never ends?)`;
      throw new HeadraceError("service-invalid", problem, { file: given });
    });
  } finally {
    process.off("exit", onExit);
  }
}
