/**
 * The admin server: HTTP on a port of its own, for people on call, scrapers and health checks. Invariants: without the
 * token nothing is told but health and readiness; nobody can hold the primary up, since headers, bodies, connections
 * and times are bounded; the token and the cookies never get into a log or an answer.
 *
 * It serves a listening descriptor that the primary made or was handed: an upgrade passes it on, so nobody who connects
 * is ever refused. `leave` ends what is open here, each connection with the answer to its next request.
 */
import { createServer } from "node:http";
import { Server as NetServer } from "node:net";
import { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from "fastify";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { cookieOf, Gatekeeper, type HandedSessions, sessionCookie } from "./auth.ts";
import { hostnameOf, isNotForeign, isOwnHost, isOwnPage } from "./origin.ts";
import { pageRoutes } from "./page.ts";
import { mountRoutes } from "./routes.ts";
import { ACCEPTED_MAX, AdminSockets } from "./sockets.ts";
import type { AdminSource } from "./source.ts";
import { UnauthorizedLog } from "./unauthorized-log.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Needs no token. */
    open?: boolean;
    /** Whatever Host header it comes with: health checks send any. */
    anyHost?: boolean;
    /** Changes something, or costs much: by a cookie only from a page of this server. */
    guarded?: boolean;
  }
  interface FastifyRequest {
    /** It has the token, or a cookie that was traded for it. */
    signedIn: boolean;
  }
}

export interface AdminServerOptions {
  readonly source: AdminSource;
  readonly log: Logger;
  readonly token: string;
  /** Host names, beside addresses and localhost, by which clients may call this server. */
  readonly hosts: readonly string[];
  /** What its socket is bound to. */
  readonly port: number;
  /** Routes beside the built-in ones. */
  readonly mount?: (app: FastifyInstance, source: AdminSource) => void;
}

const MAX_HEADER_BYTES = 8 * 1024;
const MAX_BODY_BYTES = 4 * 1024;
/** For the headers, and for a whole request: whoever is slower is cut off. */
const HEADERS_MS = 5_000;
const REQUEST_MS = 10_000;
/** How often slow clients are looked for. */
const LOOK_MS = 1_000;
/** Between two requests of a connection: longer than a scraper's usual interval. */
const KEEP_ALIVE_MS = 75_000;
/** A client that takes nothing of its answer for so long is cut off. */
const STALL_MS = 60_000;
/** After a stop or an upgrade: for the next request of a connection, and for answers that are under way. */
const LEAVE_MS = 1_000;

const HTTP = {
  maxHeaderSize: MAX_HEADER_BYTES,
  headersTimeout: HEADERS_MS,
  requestTimeout: REQUEST_MS,
  keepAliveTimeout: KEEP_ALIVE_MS,
  connectionsCheckingInterval: LOOK_MS,
} as const;

const HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
};

const STATUS: Readonly<Partial<Record<HeadraceError["code"], number>>> = {
  busy: 409,
  "not-found": 404,
  "control-refused": 403,
  "change-refused": 400,
  "no-answer": 503,
};

export class AdminServer {
  readonly #app: FastifyInstance;
  readonly #keeper: Gatekeeper;
  readonly #unauthorized: UnauthorizedLog;
  readonly #sockets: AdminSockets = new AdminSockets();
  #hosts: readonly string[];
  readonly #cookie: string;
  #left: Promise<void> | undefined;

  private constructor(options: AdminServerOptions) {
    const { source, log, token, hosts, port, mount } = options;
    this.#keeper = new Gatekeeper(token);
    this.#cookie = `headrace-session-${port}`;
    this.#unauthorized = new UnauthorizedLog(log, () => source.unauthorized());
    this.#hosts = hosts;
    this.#app = fastify({
      bodyLimit: MAX_BODY_BYTES,
      forceCloseConnections: false,
      return503OnClosing: false,
      exposeHeadRoutes: true,
      serverFactory: (answer) =>
        createServer(HTTP, (request, response) => {
          if (this.#sockets.begin(request, response)) answer(request, response);
        }),
      routerOptions: { maxParamLength: 200 },
    });
    const app = this.#app;
    app.server.setTimeout(STALL_MS);
    app.server.maxConnections = ACCEPTED_MAX;
    app.server.on("connection", (socket) => this.#sockets.welcome(socket));
    app.decorateRequest("signedIn", false);
    app.addHook("onRequest", async (request, reply) => this.#check(request, reply));
    app.addHook("onSend", async (request, reply) => this.#dress(request, reply));
    app.setErrorHandler<FastifyError>((error, _request, reply) => fail(error, reply, log));
    app.setNotFoundHandler((_request, reply) =>
      reply.code(404).send({ error: "unknown path; /status, /connections, /closed, /metrics" }),
    );
    this.#mountSessions();
    mountRoutes(app, source);
    app.register((child) => pageRoutes(child, source));
    mount?.(app, source);
  }

  /** Ready to answer, once it listens: whatever it is made of has been read. Rejects with what could not be. */
  static async create(options: AdminServerOptions): Promise<AdminServer> {
    const admin = new AdminServer(options);
    await admin.#app.ready();
    return admin;
  }

  /**
   * Serves `descriptor`, a listening TCP socket: the server's own once this resolves. `sessions`: what the one before it
   * has passed on.
   */
  async listen(descriptor: number, sessions?: HandedSessions): Promise<void> {
    const { server } = this.#app;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ fd: descriptor }, () => {
        server.off("error", reject);
        // Running out of descriptors must not end the primary: the client sees its connection refused.
        server.on("error", () => {});
        resolve();
      });
    });
    if (sessions) this.#keeper.adopt(sessions);
  }

  /** Takes over what a reload changed. */
  configure(token: string, hosts: readonly string[]): void {
    this.#keeper.replaceToken(token);
    this.#hosts = hosts;
  }

  /** For the next generation. */
  get sessions(): HandedSessions {
    return this.#keeper.handed;
  }

  /**
   * Accepts no more, here: a successor that has the socket goes on. A connection that is open gets one more answer,
   * and is closed when it asks for none, or takes too long. Resolves when none is left.
   */
  leave(withinMs: number = LEAVE_MS): Promise<void> {
    this.#left ??= this.#leave(withinMs);
    return this.#left;
  }

  async #leave(withinMs: number): Promise<void> {
    const { server } = this.#app;
    // Not http's own: that cuts off who is between two requests, and may just be sending the next.
    const closed = new Promise<void>((resolve) => NetServer.prototype.close.call(server, () => resolve()));
    const cut = setTimeout(() => this.#sockets.cut(), withinMs);
    await closed;
    clearTimeout(cut);
    this.#unauthorized.end();
    await this.#app.close();
  }

  async #check(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> {
    const { config } = request.routeOptions;
    const { headers } = request.raw;
    const { authorization, cookie, host } = headers;
    if (!config.anyHost && !isOwnHost(host, this.#hosts)) {
      return reply.code(421).send({ error: `not this server's name: ${hostnameOf(host) ?? "none"}; see admin.hosts` });
    }
    const bears = this.#keeper.bears(authorization);
    const knows = isNotForeign(headers) && this.#keeper.knows(cookieOf(cookie, this.#cookie));
    const guarded = config.guarded || !["GET", "HEAD"].includes(request.method);
    request.signedIn = bears || (knows && !(guarded && !isOwnPage(headers)));
    if (request.signedIn || config.open) return undefined;
    this.#unauthorized.count(request.ip);
    return this.#refuse(reply);
  }

  #refuse(reply: FastifyReply): FastifyReply {
    return reply.code(401).header("www-authenticate", 'Bearer realm="headrace"').send({ error: "unauthorized" });
  }

  #dress({ signedIn, routeOptions }: FastifyRequest, reply: FastifyReply): void {
    for (const [name, value] of Object.entries(HEADERS)) if (!reply.hasHeader(name)) reply.header(name, value);
    // Only who has the token may keep a connection; on open paths nobody, lest that tell a right token from a wrong one.
    if (this.#left || !signedIn || routeOptions.config.open) reply.header("connection", "close");
  }

  /** `POST /session`: the token, as JSON, as a form's, or as a bearer's, for a cookie. */
  #mountSessions(): void {
    const app = this.#app;
    app.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string" }, (_request, body, done) =>
      done(null, Object.fromEntries(new URLSearchParams(String(body)))),
    );
    app.post("/session", { config: { open: true } }, async (request, reply) => {
      const { headers } = request.raw;
      const { token } = (request.body ?? {}) as { token?: unknown };
      const right =
        typeof token === "string" ? this.#keeper.isToken(token.trim()) : this.#keeper.bears(headers.authorization);
      if (!right || !isNotForeign(headers)) {
        this.#unauthorized.count(request.ip);
        return this.#refuse(reply);
      }
      const { id, ms } = this.#keeper.open();
      return reply
        .code(204)
        .header("set-cookie", sessionCookie(this.#cookie, id, ms))
        .send();
    });
    app.delete("/session", { config: { open: true } }, async (request, reply) => {
      if (isNotForeign(request.raw.headers)) this.#keeper.close(cookieOf(request.headers.cookie, this.#cookie));
      return reply
        .code(204)
        .header("set-cookie", sessionCookie(this.#cookie, "", 0))
        .send();
    });
  }
}

function fail(error: FastifyError | HeadraceError, reply: FastifyReply, log: Logger): FastifyReply {
  const own = error instanceof HeadraceError ? (STATUS[error.code] ?? 500) : undefined;
  const status = own ?? ("statusCode" in error ? (error.statusCode ?? 500) : 500);
  if (status >= 500)
    log.warn({ reason: messageOf(error), url: reply.request.routeOptions.url }, "an admin request failed");
  if (status === 409) reply.header("retry-after", "5");
  return reply.code(status).send({ error: messageOf(error) });
}
