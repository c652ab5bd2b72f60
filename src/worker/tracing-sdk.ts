/**
 * The OpenTelemetry SDK that `tracing.endpoint` asks for: made of two packages that the user installs, since most servers
 * need neither. Spans wait in a bounded queue and leave in batches; when the collector is away they are dropped, and the
 * log says so once a minute. It registers no context manager: in Node 20 that makes every promise slower.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Attributes } from "@opentelemetry/api";
import type { SpanExporter, TracerConfig } from "@opentelemetry/sdk-trace-base";
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { TraceApi } from "../connection/request-trace.ts";

/** What traces say of the process that they are from. */
export interface TracingIdentity {
  readonly worker: number;
  readonly generation: number;
  readonly version: string;
}

interface SdkOptions extends TracingIdentity {
  /** URL; "/v1/traces" is added where it is not there. */
  readonly endpoint: string;
  readonly service: string;
  readonly log: Logger;
}

type Resource = NonNullable<TracerConfig["resource"]>;

/** A part of the SDK that it does not give on. */
interface ResourcePackage {
  defaultResource(): Resource;
  resourceFromAttributes(attributes: Attributes): Resource;
}

const SDK = "@opentelemetry/sdk-trace-base";
const EXPORTER = "@opentelemetry/exporter-trace-otlp-http";
/** The versions that run on every Node that this program runs on. */
const INSTALL = `npm install ${SDK}@2 ${EXPORTER}@0.223`;
const TRACES_PATH = "/v1/traces";

/** Spans that wait at most; one more is dropped. */
const QUEUE = 2_048;
const BATCH = 512;
/** Between two batches, ms. */
const BATCH_MS = 1_000;
/** For one batch, with what is tried again, ms. */
const EXPORT_MS = 10_000;
/** Between two lines in the log, ms. */
const SILENCE_MS = 60_000;

/** Found beside this package, or else from the working directory, where a global install's user has them. */
function resolvePackage(name: string): string {
  for (const from of [import.meta.url, join(process.cwd(), "package.json")]) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      // The next one may have it.
    }
  }
  const problem = `tracing.endpoint: the package ${name} is not installed; run: ${INSTALL}`;
  throw new HeadraceError("config-invalid", problem, { option: "tracing.endpoint", allowed: INSTALL });
}

async function importFrom<Module>(path: string): Promise<Module> {
  return (await import(pathToFileURL(path).href)) as Module;
}

/** Throws `config-invalid` when they are not installed, naming the command that does it. */
export function checkSdkPackages(): { readonly sdk: string; readonly exporter: string } {
  return { sdk: resolvePackage(SDK), exporter: resolvePackage(EXPORTER) };
}

function tracesUrl(endpoint: string): string {
  const url = new URL(endpoint);
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = path.endsWith(TRACES_PATH) ? path : path + TRACES_PATH;
  return url.href;
}

/** A dead collector fails again and again: one line a minute says so, and how many there were. */
function sayRarely(log: Logger): (text: string) => void {
  let silentUntil = 0;
  let unsaid = 0;
  return (text) => {
    const now = performance.now();
    if (now < silentUntil) {
      unsaid += 1;
      return;
    }
    log.warn(unsaid === 0 ? {} : { unsaid }, `traces are not taken: ${text.slice(0, 500)}`);
    silentUntil = now + SILENCE_MS;
    unsaid = 0;
  };
}

/** What it gives its error handler is JSON of an Error. */
function readable(message: string): string {
  try {
    const { message: text, code } = JSON.parse(message) as { message?: string; code?: string };
    return [text, code].filter(Boolean).join(", ") || message;
  } catch {
    return message;
  }
}

/** Registers it for the whole process. */
export async function startSdk(
  api: TraceApi,
  { endpoint, service, version, worker, generation, log }: SdkOptions,
): Promise<void> {
  const paths = checkSdkPackages();
  const { BasicTracerProvider, BatchSpanProcessor } = await importFrom<typeof import("@opentelemetry/sdk-trace-base")>(
    paths.sdk,
  );
  const { OTLPTraceExporter } = await importFrom<typeof import("@opentelemetry/exporter-trace-otlp-http")>(
    paths.exporter,
  );
  const say = sayRarely(log);
  const tell = (message: string): void => say(readable(message));
  const quiet = (): void => {};
  api.diag.setLogger(
    { error: tell, warn: tell, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: api.DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const exporter: SpanExporter = new OTLPTraceExporter({ url: tracesUrl(endpoint), timeoutMillis: EXPORT_MS });
  const processor = new BatchSpanProcessor(exporter, {
    maxQueueSize: QUEUE,
    maxExportBatchSize: BATCH,
    scheduledDelayMillis: BATCH_MS,
    exportTimeoutMillis: EXPORT_MS,
  });
  const { resourceFromAttributes, defaultResource } = await importFrom<ResourcePackage>(
    createRequire(paths.sdk).resolve("@opentelemetry/resources"),
  );
  const resource = defaultResource().merge(
    resourceFromAttributes({
      "service.name": service,
      "service.version": version,
      "process.pid": process.pid,
      "headrace.worker": worker,
      "headrace.generation": generation,
    }),
  );
  api.trace.setGlobalTracerProvider(new BasicTracerProvider({ resource, spanProcessors: [processor] }));
}
