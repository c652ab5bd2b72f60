/**
 * Finds the service that a listener names: a built-in, or the default export of the user's module. What can be
 * wrong with a module is told apart here, in one sentence each; what it threw is kept as the error's `cause`.
 */
import { statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { ListenerConfig, ServiceRef, TracingConfig } from "../config/config.ts";
import { importCode, importProblem } from "../os/import-problem.ts";
import { BUILTIN_SERVICES, BUILTIN_UDP_SERVICES } from "../service/builtins.ts";
import { isListenerService, isUdpService, type ListenerService } from "../service/udp.ts";

function invalid(given: string, problem: string, cause?: unknown, what = "service"): HeadraceError {
  const options = cause === undefined ? {} : { cause };
  return new HeadraceError("service-invalid", `${what} ${given}: ${problem}`, { file: given }, options);
}

function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "a plain object";
  return typeof value === "function" && /^class\b/.test(String(value)) ? "a class" : `a ${typeof value}`;
}

function checkFile(path: string, given: string, what: string): void {
  try {
    if (!statSync(path).isFile()) throw invalid(given, "is not a file", undefined, what);
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    const problem = code === "ENOENT" ? "the file does not exist" : `cannot be read: ${messageOf(error)}`;
    throw invalid(given, problem, error, what);
  }
}

/** `what` begins the message of what can be wrong with it. */
async function importModule(path: string, given: string, what: string): Promise<{ readonly default?: unknown }> {
  checkFile(path, given, what);
  try {
    return await import(pathToFileURL(path).href);
  } catch (error) {
    const problem = importProblem(path, given, error);
    throw new HeadraceError(importCode(problem), `${what} ${given}: ${problem}`, { file: given }, { cause: error });
  }
}

const TRACING_MODULE = "tracing.module";
type GivenModule = NonNullable<TracingConfig["module"]>;

/** Runs it, for what it registers. Throws as `loadService` does. */
export async function loadTracingModule({ path, given }: GivenModule): Promise<void> {
  await importModule(path, given, TRACING_MODULE);
}

/** Throws `service-invalid` when there is no such file. Does not run it: an SDK begins to work at once. */
export function checkTracingModule({ path, given }: GivenModule): void {
  checkFile(path, given, TRACING_MODULE);
}

/** Throws `service-invalid`, or `service-failed` when the module itself throws. */
export async function loadService(ref: ServiceRef): Promise<ListenerService> {
  if (ref.kind === "builtin") {
    const service = BUILTIN_SERVICES.get(ref.name) ?? BUILTIN_UDP_SERVICES.get(ref.name);
    if (service) return service;
    const names = [...BUILTIN_SERVICES.keys(), ...BUILTIN_UDP_SERVICES.keys()];
    throw invalid(ref.name, `no such built-in; there are ${names.join(", ")}`);
  }
  const { path, given } = ref;
  const { default: service } = await importModule(path, given, "service");
  if (isListenerService(service)) return service;
  const allowed = "export default defineService({ … })";
  if (service === undefined) throw invalid(given, `has no default export; expected: ${allowed}`);
  throw invalid(given, `its default export is ${describe(service)}, not made by defineService; expected: ${allowed}`);
}

/** Throws `service-invalid` for a service of connections on a UDP address, and the reverse. */
export function checkProtocol({ address, addressText, service: ref }: ListenerConfig, service: ListenerService): void {
  const udp = isUdpService(service);
  if (udp === (address.protocol === "udp")) return;
  const given = ref.kind === "builtin" ? ref.name : ref.given;
  throw udp
    ? invalid(given, `is made by defineUdpService and serves datagrams: udp://${addressText}`)
    : invalid(given, `serves connections; ${addressText} is for what defineUdpService makes`);
}
