/**
 * Decides for each request of one listener whether it is traced, and begins its trace. The decision comes first and makes
 * nothing: the flag of the caller's trace where there is one, else a random number against a mark. An endpoint whose
 * `tracer` is undefined pays for one comparison.
 */
import type { Attributes, Context, Link, Tracer } from "@opentelemetry/api";
import type { Tracing } from "../base/settings.ts";
import { digitsOf } from "../codec/trace-context.ts";
import type { Endpoint } from "./endpoint.ts";
import type { Request } from "./request.ts";
import { RequestTrace, type TraceApi } from "./request-trace.ts";
import { TraceFaults } from "./trace-faults.ts";

type TracedRequest = Request<unknown, unknown, unknown>;

/** Where a listener is, as traces say it. */
type Traced = Pick<Endpoint, "listener" | "service" | "host" | "port" | "log">;

export interface TracerOptions extends Pick<Tracing, "trustCallers"> {
  readonly api: TraceApi;
  readonly tracer: Tracer;
  /** Of requests whose callers have no trace: 0 to 1. */
  readonly share: number;
}

const NUMBERS = 2 ** 32;
/** Place of the flags' lower digit in a `traceparent`. */
const FLAGS_AT = 54;
const HEXADECIMAL = 16;
const TRACE_WORDS = 4;
const SPAN_WORDS = 2;

function isSampled(traceparent: string): boolean {
  return (Number.parseInt(traceparent.charAt(FLAGS_AT), HEXADECIMAL) & 1) === 1;
}

/** A wrong trace context decides nothing and is not passed on: it counts as absent. */
function soundOf(traceparent: string | undefined): string | undefined {
  return traceparent !== undefined && digitsOf(traceparent) !== undefined ? traceparent : undefined;
}

export class RequestTracer {
  readonly #endpoint: Traced;
  readonly #api: TraceApi;
  readonly #tracer: Tracer;
  /** Of 2^32 numbers so many are traced. */
  readonly #mark: number;
  readonly #trustCallers: boolean;
  readonly #rpc: boolean;
  readonly #faults: TraceFaults;
  #random: number = Math.floor(Math.random() * (NUMBERS - 1)) + 1;

  constructor(endpoint: Traced, { api, tracer, share, trustCallers }: TracerOptions) {
    this.#endpoint = endpoint;
    this.#api = api;
    this.#tracer = tracer;
    this.#mark = share * NUMBERS;
    this.#trustCallers = trustCallers;
    this.#rpc = endpoint.service.codec.name === "rpc";
    this.#faults = new TraceFaults(endpoint.log);
  }

  /** Gives the request a trace, if it is to have one. Throws what the service's `traceparent` throws. */
  begin(request: TracedRequest): void {
    const caller = soundOf(request.traceparent);
    if (caller === undefined || !this.#trustCallers) {
      if (this.#next() >= this.#mark) return;
    } else if (!isSampled(caller)) {
      return;
    }
    const trace = this.#trace(request, caller);
    if (!trace) return;
    request.flight ??= request.connection.endpoint.flight(request.message);
    request.flight.trace = trace;
  }

  /** Calls `act` in the context of no request. */
  outside(act: () => void): void {
    const { context, ROOT_CONTEXT } = this.#api;
    context.with(ROOT_CONTEXT, act);
  }

  /** What a call for a request that is not traced says to its server: the caller's trace, or not to trace it either. */
  passedOn(given: string | undefined): string {
    const caller = this.#trustCallers ? soundOf(given) : undefined;
    if (caller !== undefined) return caller;
    return `00-${this.#digits(TRACE_WORDS)}-${this.#digits(SPAN_WORDS)}-00`;
  }

  /** 1 to 2^32 - 1 (xorshift, Marsaglia 2003). */
  #next(): number {
    let word = this.#random;
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    this.#random = word;
    return word >>> 0;
  }

  #digits(words: number): string {
    let digits = "";
    for (let word = 0; word < words; word++) digits += this.#next().toString(HEXADECIMAL).padStart(8, "0");
    return digits;
  }

  /** None where the user's SDK fails: the request is served all the same. */
  #trace(request: TracedRequest, caller: string | undefined): RequestTrace | undefined {
    const { listener, service } = this.#endpoint;
    const parent = caller === undefined ? undefined : this.#remote(caller);
    const links: Link[] = [];
    const { ROOT_CONTEXT, trace, SpanKind } = this.#api;
    let context: Context = ROOT_CONTEXT;
    if (parent && this.#trustCallers) context = trace.setSpanContext(ROOT_CONTEXT, parent);
    else if (parent) links.push({ context: parent });
    const name = this.#rpc ? `${service.name}/request` : `${listener}/${service.name} message`;
    const options = { kind: SpanKind.SERVER, attributes: this.#attributes(request), links };
    try {
      const span = this.#tracer.startSpan(name, options, context);
      return new RequestTrace(this.#api, this.#tracer, span, this.#faults);
    } catch (error) {
      this.#faults.note(error);
      return undefined;
    }
  }

  #remote(traceparent: string): Link["context"] | undefined {
    const digits = digitsOf(traceparent);
    if (digits === undefined) return undefined;
    const [traceId, spanId, flags] = [digits.slice(2, 34), digits.slice(34, 50), digits.slice(50)];
    return { traceId, spanId, traceFlags: Number.parseInt(flags, HEXADECIMAL), isRemote: true };
  }

  /** Names of the semantic conventions (opentelemetry.io/docs/specs/semconv), and our own under `headrace.`. */
  #attributes({ connection, id }: TracedRequest): Attributes {
    const { listener, service, host, port } = this.#endpoint;
    const { peer, remote } = connection;
    return {
      "network.transport": "tcp",
      "network.peer.address": peer.host,
      "network.peer.port": peer.port,
      "client.address": remote.host,
      "client.port": remote.port,
      "server.address": host,
      "server.port": port,
      ...(this.#rpc ? { "rpc.system": "headrace", "rpc.service": service.name, "rpc.method": "request" } : {}),
      "headrace.listener": listener,
      "headrace.service": service.name,
      "headrace.connection.id": connection.id,
      "headrace.request.id": id,
    };
  }
}
