/** The span of a request that is not traced: takes everything, keeps nothing. One for all, and without OpenTelemetry. */
import type { Span, SpanContext } from "@opentelemetry/api";

const NO_CONTEXT: SpanContext = { traceId: "0".repeat(32), spanId: "0".repeat(16), traceFlags: 0 };

class NoSpan implements Span {
  spanContext(): SpanContext {
    return NO_CONTEXT;
  }
  setAttribute(): this {
    return this;
  }
  setAttributes(): this {
    return this;
  }
  addEvent(): this {
    return this;
  }
  addLink(): this {
    return this;
  }
  addLinks(): this {
    return this;
  }
  setStatus(): this {
    return this;
  }
  updateName(): this {
    return this;
  }
  end(): void {}
  isRecording(): boolean {
    return false;
  }
  recordException(): void {}
}

export const NO_SPAN: Span = new NoSpan();
