/** What people read in place of a service reference. */
import type { ServiceRef } from "../config/config.ts";

/** A built-in's name, or the module path as the user gave it. */
export function serviceLabel(service: ServiceRef): string {
  return service.kind === "builtin" ? service.name : service.given;
}
