/** Releases as deployments lay them out: a folder each, and `current`, a link to the one that shall run. */
import { mkdirSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { type SteadyOptions, writeSteadyService } from "./steady-service.js";
import { MAIN_LISTENER } from "./under-load.js";

/** A listener whose service is that of the current release. */
export const CURRENT_LISTENER = { ...MAIN_LISTENER, service: "./current/service.mjs" };

/** A release whose service replies with its name, unless told otherwise. */
export function writeRelease(folder: string, name: string, options: SteadyOptions = {}): void {
  const place = join(folder, "releases", name);
  mkdirSync(place, { recursive: true });
  writeSteadyService(place, { tag: JSON.stringify(name), ...options });
}

/** Lets `current` be that release from now on, in one step. */
export function activate(folder: string, name: string): void {
  const link = join(folder, "current");
  symlinkSync(join("releases", name), `${link}.new`);
  renameSync(`${link}.new`, link);
}
