/** A source that knows little, and an admin server over it on a port of its own. */
import { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { pino } from "pino";
import { AdminServer, type AdminServerOptions } from "#src/admin/server.js";
import type { AdminSource } from "#src/admin/source.js";
import { HeadraceError } from "#src/base/errors.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { ServerStatus } from "#src/control/status.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { metricsSnapshot } from "./figures.js";

export const TOKEN = "a-token-that-is-long-enough";

export function fakeSource(own: Partial<AdminSource> = {}): AdminSource {
  return {
    ending: new AbortController().signal,
    status: async () => ({ pid: 42 }) as ServerStatus,
    snapshot: () => metricsSnapshot(),
    readiness: () => ({ ready: true, reason: "ready" }),
    metrics: async () => ({ contentType: "text/plain", body: "headrace_up 1\n" }),
    connections: async ({ offset }) => ({ total: 0, offset, rows: [], missing: [] }),
    kill: async (id) => {
      throw new HeadraceError("not-found", `there is no connection ${id}`);
    },
    closed: async () => [],
    profile: async () => ({ name: "x.cpuprofile", bytes: 2, content: Readable.from(["{}"]) }),
    logLevel: () => "info",
    setLogLevel: async () => {},
    unauthorized: () => {},
    ...own,
  };
}

export interface ServedAdmin {
  readonly admin: AdminServer;
  readonly port: number;
  readonly url: string;
  /** What it has logged. */
  readonly lines: Record<string, unknown>[];
  /** A request with the token. */
  ask(path: string, init?: RequestInit): Promise<Response>;
}

export async function serveAdmin(
  t: TestContext,
  own: Partial<AdminSource & AdminServerOptions> = {},
): Promise<ServedAdmin> {
  const { log: _, token = TOKEN, hosts = [], port: _port, mount, ...source } = own;
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const fd = check(addon().socketListen("127.0.0.1", 0, true, packSocketOptions(DEFAULT_SOCKET)), "listen");
  const port = boundPort(fd);
  const options = {
    source: fakeSource(source),
    log,
    token,
    hosts,
    port,
    ...(mount ? { mount } : {}),
  };
  const admin = await AdminServer.create(options);
  await admin.listen(fd);
  t.after(() => admin.leave(0));
  const url = `http://127.0.0.1:${port}`;
  const ask = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(`${url}${path}`, { ...init, headers: { authorization: `Bearer ${TOKEN}`, ...init.headers } });
  return { admin, port, url, lines, ask };
}
