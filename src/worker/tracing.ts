/**
 * Tracing in a worker: finds out who takes the spans (the user's module, or an SDK that is made here for `endpoint`), and
 * gives each listener the tracer that its requests ask. OpenTelemetry is loaded only where the configuration names it.
 * Nothing here may hold up the server: the queue of spans is bounded, and so is the time that a stop waits for it.
 */
import type { Tracer } from "@opentelemetry/api";
import type { Logger } from "../base/log.ts";
import { within } from "../base/within.ts";
import type { TracingConfig } from "../config/config.ts";
import type { Endpoint } from "../connection/endpoint.ts";
import type { TraceApi } from "../connection/request-trace.ts";
import { RequestTracer } from "../connection/tracer.ts";
import { checkTracingModule, loadTracingModule } from "./load-service.ts";
import { checkSdkPackages, startSdk, type TracingIdentity } from "./tracing-sdk.ts";

/** A provider of spans, as far as its end concerns us. */
interface Flushing {
  forceFlush?(): Promise<void>;
}

/** Who gives the listeners of a server their tracers. */
export interface TracerSource {
  /** Undefined while no request is traced. */
  tracerFor(endpoint: Endpoint): RequestTracer | undefined;
}

const isConfigured = ({ sample, module, endpoint }: TracingConfig): boolean =>
  sample !== "off" || module !== undefined || endpoint !== undefined;

/** What can be seen to be wrong without starting anything. Throws as `WorkerTracing.start`. */
export function checkTracing({ module, endpoint }: TracingConfig): void {
  if (module) checkTracingModule(module);
  if (endpoint !== undefined) checkSdkPackages();
}

export class WorkerTracing implements TracerSource {
  readonly #log: Logger;
  readonly #identity: TracingIdentity;
  #config: TracingConfig | undefined;
  #api: TraceApi | undefined;
  #tracer: Tracer | undefined;

  constructor(log: Logger, identity: TracingIdentity) {
    this.#log = log;
    this.#identity = identity;
  }

  /**
   * Before the services are loaded: what the module or the SDK registers is there for them. Throws `service-invalid` or
   * `service-failed` for the module, `config-invalid` when the packages for `endpoint` are missing.
   */
  async start(config: TracingConfig): Promise<void> {
    if (!isConfigured(config)) return;
    const api = await this.#load();
    if (config.module) await loadTracingModule(config.module);
    if (config.endpoint !== undefined) {
      await startSdk(api, { ...this.#identity, endpoint: config.endpoint, service: config.service, log: this.#log });
    }
  }

  /** What holds from now on. `tracerFor` goes by it. */
  async configure(config: TracingConfig): Promise<void> {
    this.#config = config;
    if (config.sample === "off") return;
    const api = await this.#load();
    // The services have been loaded by now, and one of them may have registered an SDK itself.
    if (this.#provider(api) === undefined) {
      this.#log.warn("tracing.sample is set, but nobody takes the traces: set tracing.endpoint or tracing.module");
    }
  }

  tracerFor(endpoint: Endpoint): RequestTracer | undefined {
    const { sample, trustCallers } = this.#config ?? { sample: "off", trustCallers: false };
    if (sample === "off" || !this.#api || !this.#tracer) return undefined;
    const share = sample === "parent" ? 0 : sample;
    return new RequestTracer(endpoint, { api: this.#api, tracer: this.#tracer, share, trustCallers });
  }

  /** The worker ends: what is queued goes out, for so long at most. Never rejects. */
  async flush(withinMs: number): Promise<void> {
    const provider = this.#api && this.#provider(this.#api);
    if (!provider?.forceFlush) return;
    const flushed = provider.forceFlush().catch((err: unknown) => {
      this.#log.debug({ err }, "the last traces were not taken");
    });
    await within(withinMs, flushed, () => {
      this.#log.warn(`the last traces were not taken within ${withinMs} ms`);
    });
  }

  async #load(): Promise<TraceApi> {
    this.#api ??= await import("@opentelemetry/api");
    // Asks whatever provider is registered, now or later.
    this.#tracer ??= this.#api.trace.getTracer("headrace", this.#identity.version);
    return this.#api;
  }

  /** Who takes the spans, if anybody does. */
  #provider({ trace, ProxyTracerProvider }: TraceApi): Flushing | undefined {
    const provider = trace.getTracerProvider();
    if (!(provider instanceof ProxyTracerProvider)) return provider as Flushing;
    const taker = provider.getDelegate();
    // Without one it delegates to a provider that the interface has no name for.
    return taker.constructor.name === "NoopTracerProvider" ? undefined : (taker as Flushing);
  }
}
