/**
 * The live page: `GET /` and its files, which tell nothing of the server and need no token, and `GET /events`, which
 * does. The page gets its figures as server-sent events, and what else it shows from the routes that scripts use too.
 * A fastify plugin; the server around it decides who may ask what.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import type { ServerStatus } from "../control/status.ts";
import { pageEvent } from "./page-events.ts";
import { type PageFile, readPageFiles } from "./page-files.ts";
import { MAX_STREAMS, PageStreams } from "./page-streams.ts";

/** What the page shows; read once a second while somebody watches. */
export interface PageSource {
  /** Aborted when this process answers no more: streams end, and the page finds the next generation. */
  readonly ending: AbortSignal;
  status(): Promise<ServerStatus>;
  snapshot(): MetricsSnapshot;
}

/** Everything from here, nothing from elsewhere, no script and no style within the document. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

const SECURITY = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;

function answer(file: PageFile, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  // Kept by the browser, and asked for anew with its ETag: after an upgrade the page is that of the new release.
  reply.headers({ ...SECURITY, "cache-control": "no-cache", etag: file.etag });
  if (request.headers["if-none-match"] === file.etag) return reply.code(304).send();
  return reply.type(file.type).send(file.body);
}

/** Adds the page's routes to the admin server. */
export async function pageRoutes(app: FastifyInstance, source: PageSource): Promise<void> {
  for (const file of readPageFiles()) {
    app.get(file.path, { config: { open: true } }, (request, reply) => answer(file, request, reply));
  }
  const next = async (): Promise<string | undefined> => {
    try {
      return JSON.stringify(pageEvent(await source.status(), source.snapshot(), Date.now()));
    } catch {
      // A server that is about to end has no figures; the stream's own end tells the page.
      return undefined;
    }
  };
  const streams = new PageStreams({ next });
  app.get("/events", { exposeHeadRoute: false }, (_request, reply) => {
    if (source.ending.aborted || streams.full) {
      const error = streams.full ? `${MAX_STREAMS} pages watch already; close one of them` : "the server is leaving";
      return reply.code(503).header("retry-after", "5").send({ error });
    }
    reply.hijack();
    streams.add(reply.raw, SECURITY);
    return reply;
  });
  source.ending.addEventListener("abort", () => streams.end(), { once: true });
  app.addHook("preClose", async () => streams.end());
}
