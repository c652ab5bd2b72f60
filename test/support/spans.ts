/** Traces of one test: a tracer of the real SDK whose spans stay in memory, and what has to be asked of them. */
import * as api from "@opentelemetry/api";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
  type SpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import type { ServedConnection } from "#src/connection/connection.js";
import type { Endpoint } from "#src/connection/endpoint.js";
import { RequestTracer, type TracerOptions } from "#src/connection/tracer.js";
import type { TracerSource } from "#src/worker/tracing.js";

type Options = Partial<Pick<TracerOptions, "share" | "trustCallers">> & {
  /** Told of each span before it is kept. */
  readonly processor?: SpanProcessor;
};

export class Spans implements TracerSource {
  readonly #exporter = new InMemorySpanExporter();
  readonly #options: TracerOptions;

  /** Default: every request, and callers are trusted. */
  constructor({ processor, ...options }: Options = {}) {
    const spanProcessors = [...(processor ? [processor] : []), new SimpleSpanProcessor(this.#exporter)];
    const provider = new BasicTracerProvider({ spanProcessors });
    this.#options = { api, tracer: provider.getTracer("test"), share: 1, trustCallers: true, ...options };
  }

  /** Those that have ended, in that order. */
  get all(): ReadableSpan[] {
    return this.#exporter.getFinishedSpans();
  }

  tracerFor(endpoint: Endpoint): RequestTracer {
    return new RequestTracer(endpoint, this.#options);
  }

  /** Of a connection that `testConnection` made. */
  trace(connection: unknown): void {
    const { endpoint } = connection as ServedConnection;
    endpoint.tracer = this.tracerFor(endpoint);
  }

  /** Names and outcomes of the requests so far; forgets them. */
  take(): string[] {
    const said = this.all.map(({ name, attributes }) => `${name}: ${attributes["headrace.outcome"]}`);
    this.#exporter.reset();
    return said;
  }
}

/** A caller's trace, as it comes over the wire. */
export const CALLER = { traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "00f067aa0ba902b7" };

export function callerOf(flags: "00" | "01"): string {
  return `00-${CALLER.traceId}-${CALLER.spanId}-${flags}`;
}
