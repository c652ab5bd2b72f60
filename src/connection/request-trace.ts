/**
 * The trace of one request, where it has one (tracer.ts decides): its span, and the spans of what it asks of others.
 * The span ends once, whoever is first: the connection when the reply is given, or the request's flight when it is over
 * before that. Only sampled requests get here, so nothing in this file has to be fast.
 */
import type { Attributes, Context, Span, SpanContext, Tracer } from "@opentelemetry/api";
import { messageOf } from "../base/errors.ts";

/** The module, which is loaded where requests may be traced, and nowhere else. */
export type TraceApi = typeof import("@opentelemetry/api");

/** What became of it: `headrace.outcome`. */
type RequestOutcome = "ok" | "error" | "busy" | "late" | "cancelled" | "closed";

/** By the code of the error that has ended it early. */
const CUT: Readonly<Record<string, RequestOutcome>> = {
  "deadline-exceeded": "late",
  "request-cancelled": "cancelled",
};
/** By the code of what its handler has thrown, or why it was not begun. */
const FAILED: Readonly<Record<string, RequestOutcome>> = { "server-busy": "busy", "deadline-exceeded": "late" };
/** Its client does not want it any more, or is not there: nobody's fault. */
const QUIET: ReadonlySet<RequestOutcome> = new Set<RequestOutcome>(["cancelled", "closed"]);

function codeOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { readonly code?: unknown; readonly name?: unknown };
  if (typeof code === "string") return code;
  return typeof name === "string" ? name : "unknown";
}

function blame(api: TraceApi, span: Span, error: unknown): void {
  span.recordException(error instanceof Error ? error : String(error));
  span.setAttribute("error.type", codeOf(error));
  span.setStatus({ code: api.SpanStatusCode.ERROR, message: messageOf(error) });
}

/** As it travels. */
function traceparentFor({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`;
}

export class RequestTrace {
  readonly span: Span;
  readonly #api: TraceApi;
  readonly #tracer: Tracer;
  /** With the span in it. */
  readonly #context: Context;
  #outcome: RequestOutcome = "ok";
  #ended = false;

  constructor(api: TraceApi, tracer: Tracer, span: Span) {
    this.#api = api;
    this.#tracer = tracer;
    this.span = span;
    this.#context = api.trace.setSpan(api.ROOT_CONTEXT, span);
  }

  /** Calls its handler with the span as the active one, for whoever else makes spans there. */
  run<In, Ctx, Result>(handle: (message: In, context: Ctx) => Result, message: In, context: Ctx): Result {
    return this.#api.context.with(this.#context, handle, undefined, message, context);
  }

  /** Its handler failed, or it is not begun at all; its end comes yet, after `onError`. */
  fail(error: unknown): void {
    if (this.#ended || this.#outcome !== "ok") return;
    this.#outcome = FAILED[codeOf(error)] ?? "error";
    blame(this.#api, this.span, error);
  }

  /** It is over before its handler is. */
  cut(error: unknown): void {
    if (this.#ended) return;
    this.#outcome = CUT[codeOf(error)] ?? "closed";
    if (!QUIET.has(this.#outcome)) blame(this.#api, this.span, error);
    this.end();
  }

  /** Its reply is given, or there will be none. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.span.setAttribute("headrace.outcome", this.#outcome);
    this.span.end();
  }

  /** A call of a client. `ask` gets the trace context for the wire, unless the caller gave another one. */
  call<Answered>(
    client: string,
    traceparent: string | undefined,
    ask: (traceparent: string) => Promise<Answered>,
  ): Promise<Answered> {
    const attributes = { "peer.service": client };
    const span = this.#child(`${client} call`, this.#api.SpanKind.CLIENT, attributes);
    return this.#follow(span, ask(traceparent ?? traceparentFor(span.spanContext())));
  }

  /** A task of a pool: from where it is asked for, so that its wait for a thread is part of it. */
  task<Value>(pool: string, name: string, run: () => Promise<Value>): Promise<Value> {
    const attributes = { "headrace.pool": pool, "headrace.task": name };
    return this.#follow(this.#child(`${pool}/${name}`, this.#api.SpanKind.INTERNAL, attributes), run());
  }

  #child(name: string, kind: number, attributes: Attributes): Span {
    return this.#tracer.startSpan(name, { kind, attributes }, this.#context);
  }

  #follow<Value>(span: Span, promise: Promise<Value>): Promise<Value> {
    promise.then(
      () => span.end(),
      (error: unknown) => {
        blame(this.#api, span, error);
        span.end();
      },
    );
    return promise;
  }
}
