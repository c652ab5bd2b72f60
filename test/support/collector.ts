/** A collector of traces for one test: an HTTP server that takes OTLP as JSON, fails, or never answers. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { until } from "./until.js";

interface CollectedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  /** As OTLP numbers them: 1 internal, 2 server, 3 client. */
  readonly kind: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Of the process. */
  readonly resource: Readonly<Record<string, unknown>>;
}

interface Attribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface Export {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Omit<CollectedSpan, "attributes"> & { readonly attributes: readonly Attribute[] })[];
    }[];
  }[];
}

function record(attributes: readonly Attribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}

function spansIn({ resourceSpans }: Export): CollectedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        ...span,
        attributes: record(span.attributes),
        resource: record(resource.attributes),
      })),
    ),
  );
}

export interface Collector {
  /** For `tracing.endpoint`. */
  readonly url: string;
  readonly spans: CollectedSpan[];
  /** How it answers from now on. `silent`: never. */
  behaviour: "takes" | "fails" | "silent";
  /** Requests so far. */
  exports: number;
  /** The first span of this name, past or future. */
  span(name: string): Promise<CollectedSpan>;
}

export async function openCollector(t: TestContext): Promise<Collector> {
  const sockets = new Set<Socket>();
  const server = createServer(async (request, response) => {
    const body = await text(request);
    collector.exports += 1;
    if (collector.behaviour === "silent") return;
    const known = request.method === "POST" && request.url === "/v1/traces";
    response.statusCode = !known ? 404 : collector.behaviour === "fails" ? 500 : 200;
    if (response.statusCode === 200) collector.spans.push(...spansIn(JSON.parse(body) as Export));
    response.setHeader("content-type", "application/json").end("{}");
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const collector: Collector = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: [],
    behaviour: "takes",
    exports: 0,
    span: (name) => until(`span ${name}`, () => collector.spans.find((span) => span.name === name)),
  };
  return collector;
}
