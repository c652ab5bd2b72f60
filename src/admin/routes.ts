/** What the admin server answers, but for the page: each route reads its parameters and asks the source. */
import type { FastifyInstance } from "fastify";
import { HeadraceError } from "../base/errors.ts";
import { LOG_LEVELS, type LogLevel } from "../base/settings.ts";
import type { ProfileKind } from "../control/inspection.ts";
import { readClosedLimit, readConnectionQuery, readProfileRequest } from "./query.ts";
import type { AdminSource } from "./source.ts";

/** Of a profile, beyond its own seconds: until the answer begins. */
const PROFILE_GRACE_MS = 120_000;
const OPEN = { config: { open: true, anyHost: true } } as const;
const GUARDED = { config: { guarded: true }, exposeHeadRoute: false } as const;

export function mountRoutes(app: FastifyInstance, source: AdminSource): void {
  app.get("/healthz", OPEN, async () => ({ status: "ok" }));
  app.get("/readyz", OPEN, async (_request, reply) => {
    const { ready, reason } = source.readiness();
    return reply.code(ready ? 200 : 503).send({ ready, reason });
  });
  app.get("/metrics", async (_request, reply) => {
    const { contentType, body } = await source.metrics();
    return reply.header("content-type", contentType).send(body);
  });
  app.get("/status", async () => source.status());
  app.get("/connections", async (request) => source.connections(readConnectionQuery(request.query)));
  app.delete<{ Params: { id: string } }>("/connections/:id", async (request, reply) => {
    await source.kill(request.params.id);
    return reply.code(204).send();
  });
  app.get("/closed", async (request) => ({ rows: await source.closed(readClosedLimit(request.query)) }));
  for (const kind of ["cpu", "heap"] as const) mountProfile(app, source, kind);
  app.get("/log-level", async () => ({ level: source.logLevel() }));
  app.put("/log-level", async (request) => {
    const level = readLevel(request.body);
    await source.setLogLevel(level);
    return { level };
  });
}

function mountProfile(app: FastifyInstance, source: AdminSource, kind: ProfileKind): void {
  app.get(`/profile/${kind}`, GUARDED, async (request, reply) => {
    const asked = readProfileRequest(kind, request.query);
    const gone = new AbortController();
    const { socket } = request.raw;
    // Nobody waits for it any more. Not on the socket, which may ask for many.
    reply.raw.once("close", () => gone.abort());
    socket.setTimeout(asked.seconds * 1_000 + PROFILE_GRACE_MS);
    const taken = source.profile(asked, gone.signal);
    const { name, bytes, content } = await taken.finally(() => socket.setTimeout(app.server.timeout));
    return reply
      .header("content-type", "application/json")
      .header("content-length", bytes)
      .header("content-disposition", `attachment; filename="${name}"`)
      .send(content);
  });
}

/** `{"level": "debug"}` */
function readLevel(body: unknown): LogLevel {
  const given = (body as { level?: unknown } | null | undefined)?.level;
  const level = LOG_LEVELS.find((each) => each === given);
  if (level !== undefined) return level;
  throw new HeadraceError("change-refused", `the body is {"level": …}, one of ${LOG_LEVELS.join(", ")}`);
}
