/**
 * The trace of one request, where it has one (tracer.ts decides): its span, and the spans of what it asks of others.
 * The span ends once, whoever is first: the connection when the reply is given, or the request's flight when it is over
 * before that. Only sampled requests get here, so nothing in this file has to be fast. Whoever takes the spans is the
 * user's code: nothing that it throws leaves this file, or a request would be counted wrong, or the worker die of it.
 */
import type { Attributes, Context, Span, SpanContext, Tracer } from "@opentelemetry/api";
import { messageOf } from "../base/errors.ts";
import type { TraceFaults } from "./trace-faults.ts";

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
  span.recordException(error instanceof Error ? error : messageOf(error));
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
  readonly #faults: TraceFaults;
  /** With the span in it. */
  readonly #context: Context;
  #outcome: RequestOutcome = "ok";
  #ended = false;

  constructor(api: TraceApi, tracer: Tracer, span: Span, faults: TraceFaults) {
    this.#api = api;
    this.#tracer = tracer;
    this.#faults = faults;
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
    this.#outcome = "error";
    this.#guard(() => {
      this.#outcome = FAILED[codeOf(error)] ?? "error";
      blame(this.#api, this.span, error);
    });
  }

  /** It is over before its handler is. */
  cut(error: unknown): void {
    if (this.#ended) return;
    this.#outcome = "closed";
    this.#guard(() => {
      this.#outcome = CUT[codeOf(error)] ?? "closed";
      if (!QUIET.has(this.#outcome)) blame(this.#api, this.span, error);
    });
    this.end();
  }

  /** Its reply is given, or there will be none. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#guard(() => this.span.setAttribute("headrace.outcome", this.#outcome));
    this.#guard(() => this.span.end());
  }

  /** A call of a client. `ask` gets the trace context for the wire, unless the caller gave another one. */
  call<Answered>(
    client: string,
    traceparent: string | undefined,
    ask: (traceparent: string) => Promise<Answered>,
  ): Promise<Answered> {
    const attributes = { "peer.service": client };
    const span = this.#child(`${client} call`, this.#api.SpanKind.CLIENT, attributes);
    return this.#follow(span, ask(traceparent ?? traceparentFor((span ?? this.span).spanContext())));
  }

  /** A task of a pool: from where it is asked for, so that its wait for a thread is part of it. */
  task<Value>(pool: string, name: string, run: () => Promise<Value>): Promise<Value> {
    const attributes = { "headrace.pool": pool, "headrace.task": name };
    return this.#follow(this.#child(`${pool}/${name}`, this.#api.SpanKind.INTERNAL, attributes), run());
  }

  /** None where that fails. */
  #child(name: string, kind: number, attributes: Attributes): Span | undefined {
    let span: Span | undefined;
    this.#guard(() => {
      span = this.#tracer.startSpan(name, { kind, attributes }, this.#context);
    });
    return span;
  }

  #follow<Value>(span: Span | undefined, promise: Promise<Value>): Promise<Value> {
    if (!span) return promise;
    const end = (): void => this.#guard(() => span.end());
    promise.then(end, (error: unknown) => {
      this.#guard(() => blame(this.#api, span, error));
      end();
    });
    return promise;
  }

  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#faults.note(error);
    }
  }
}
