/** The admin server over a fake source: who is let in, what is refused, and the bounds that protect the primary. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import type { ServerStatus } from "#src/control/status.js";
import { until } from "../support/until.js";
import { serveAdmin, TOKEN } from "./source.js";

/** fetch() sets Host and Cookie as it likes; this does not. */
function get(port: number, path: string, headers: Record<string, string>, method = "GET"): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, headers, method, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    });
    asked.once("error", reject);
    asked.end();
  });
}

test("health and readiness are open to anybody, whatever the Host; all else needs the token", async (t) => {
  const { port, url, ask } = await serveAdmin(t);
  assert.equal(await get(port, "/healthz", { host: "probe.example" }), 200);
  assert.equal(await get(port, "/readyz", { host: "probe.example" }), 200);
  for (const path of [
    "/metrics",
    "/status",
    "/connections",
    "/closed",
    "/profile/cpu",
    "/profile/heap",
    "/log-level",
  ]) {
    const answer = await fetch(url + path);
    assert.equal(answer.status, 401, path);
    assert.deepEqual(await answer.json(), { error: "unauthorized" });
    assert.equal(answer.headers.get("content-security-policy")?.includes("default-src 'none'"), true);
    assert.equal(answer.headers.get("cache-control"), "no-store");
    assert.equal((await ask(path)).status, 200, path);
  }
  assert.equal((await ask("/nowhere")).status, 404);
  assert.equal((await fetch(`${url}/nowhere`)).status, 401);
});

test("not ready: 503 says why", async (t) => {
  const { url } = await serveAdmin(t, { readiness: () => ({ ready: false, reason: "draining" }) });
  const answer = await fetch(`${url}/readyz`);
  assert.equal(answer.status, 503);
  assert.deepEqual(await answer.json(), { ready: false, reason: "draining" });
});

test("a foreign Host is refused even with the token, a configured name is not", async (t) => {
  const { port } = await serveAdmin(t, { hosts: ["box.example"] });
  const authorization = `Bearer ${TOKEN}`;
  assert.equal(await get(port, "/status", { authorization, host: "evil.example" }), 421);
  assert.equal(await get(port, "/status", { authorization, host: "box.example:80" }), 200);
  assert.equal(await get(port, "/status", { authorization, host: "localhost" }), 200);
});

async function signIn(url: string): Promise<string> {
  const answer = await fetch(`${url}/session`, {
    method: "POST",
    body: JSON.stringify({ token: TOKEN }),
    headers: { "content-type": "application/json" },
  });
  assert.equal(answer.status, 204);
  const cookie = answer.headers.get("set-cookie") ?? "";
  assert.match(cookie, /HttpOnly; SameSite=Strict/);
  return cookie.split(";")[0] ?? "";
}

test("the token is traded for a cookie, which reads; to change something the page has to be this server's", async (t) => {
  const { port, url } = await serveAdmin(t, { kill: async () => {} });
  const cookie = await signIn(url);
  assert.equal(await get(port, "/status", { cookie }), 200);
  assert.equal(await get(port, "/status", { cookie, "sec-fetch-site": "same-site" }), 401);
  assert.equal(await get(port, "/connections/1", { cookie }, "DELETE"), 401);
  assert.equal(await get(port, "/profile/cpu", { cookie }), 401);
  const own = { cookie, "sec-fetch-site": "same-origin" };
  assert.equal(await get(port, "/connections/1", own, "DELETE"), 204);
  assert.equal(await get(port, "/profile/cpu", own), 200);
  assert.equal(await get(port, "/connections/1", { ...own, origin: "http://localhost:1" }, "DELETE"), 401);
  assert.equal(await get(port, "/session", { cookie }, "DELETE"), 204);
  assert.equal(await get(port, "/status", { cookie }), 401);
});

test("wrong tokens are counted each, logged once a second, and never shown", async (t) => {
  let counted = 0;
  const { url, lines } = await serveAdmin(t, {
    unauthorized: () => {
      counted += 1;
    },
  });
  const before = performance.now();
  for (let at = 0; at < 100; at++) {
    const headers = { authorization: `Bearer wrong-${at}-secret` };
    assert.equal((await fetch(`${url}/status`, { headers })).status, 401);
  }
  assert.equal(
    (await fetch(`${url}/session`, { method: "POST", body: new URLSearchParams({ token: "wrong" }) })).status,
    401,
  );
  const headers = { authorization: "Bearer wrong-at-nowhere" };
  assert.equal((await fetch(`${url}/nowhere`, { headers })).status, 401);
  assert.equal((await fetch(`${url}/healthz`, { headers, method: "DELETE" })).status, 401);
  const seconds = Math.ceil((performance.now() - before) / 1_000);
  assert.equal(counted, 103);
  assert.ok(lines.length >= 1 && lines.length <= 1 + seconds, `${lines.length} lines in ${seconds} s`);
  assert.ok(!JSON.stringify(lines).includes("wrong"));
});

test("on open paths, where nobody is counted, a right token is answered like a wrong one", async (t) => {
  const { url } = await serveAdmin(t);
  for (const path of ["/healthz", "/readyz", "/page/page.css"]) {
    const answers = await Promise.all(
      [TOKEN, "wrong"].map(async (token) => {
        const answer = await fetch(url + path, { headers: { authorization: `Bearer ${token}` } });
        const headers = [...answer.headers].filter(([name]) => name !== "date");
        return [answer.status, headers, await answer.text()];
      }),
    );
    assert.deepEqual(answers[0], answers[1], path);
  }
});

test("parameters: what is unknown or out of range is named", async (t) => {
  const { ask } = await serveAdmin(t);
  for (const [path, said] of [
    ["/connections?limit=1001", "limit"],
    ["/connections?sort=size", "buffered, idle, age, bytes"],
    ["/connections?colour=red", "colour"],
    ["/connections?limit=1&limit=2", "limit"],
    ["/closed?limit=0", "limit"],
    ["/profile/cpu?seconds=61", "seconds"],
    ["/profile/cpu?worker=first", "worker"],
  ] as const) {
    const answer = await ask(path);
    assert.equal(answer.status, 400, path);
    assert.ok(((await answer.json()) as { error: string }).error.includes(said), path);
  }
  const level = await ask("/log-level", {
    method: "PUT",
    body: '{"level":"loud"}',
    headers: { "content-type": "application/json" },
  });
  assert.equal(level.status, 400);
});

test("errors of the source: busy 409, unknown 404, no answer 503", async (t) => {
  const errors = { busy: 409, "not-found": 404, "no-answer": 503, "worker-failed": 500 } as const;
  for (const [code, status] of Object.entries(errors) as [keyof typeof errors, number][]) {
    const profile = async (): Promise<never> => {
      throw new HeadraceError(code, "because");
    };
    const { ask } = await serveAdmin(t, { profile });
    const answer = await ask("/profile/cpu");
    assert.equal(answer.status, status);
    assert.deepEqual(await answer.json(), { error: "because" });
  }
});

function open(t: TestContext, port: number, count: number): Socket[] {
  return Array.from({ length: count }, () => {
    const socket = connect(port, "127.0.0.1").on("error", () => {});
    t.after(() => socket.destroy());
    return socket;
  });
}

test("who sends headers slowly is cut off, and meanwhile others are answered", async (t) => {
  const { port, url } = await serveAdmin(t);
  const slow = open(t, port, 20);
  const ends = slow.map((socket) => once(socket.resume(), "close"));
  const dribble = setInterval(() => {
    for (const socket of slow) socket.write("G");
  }, 500);
  t.after(() => clearInterval(dribble));
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  await Promise.all(ends);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});

test("what is too long is refused: headers, bodies", async (t) => {
  const { url, ask } = await serveAdmin(t);
  assert.equal((await fetch(`${url}/healthz`, { headers: { "x-long": "x".repeat(10_000) } })).status, 431);
  const body = JSON.stringify({ token: "x".repeat(5_000) });
  const headers = { "content-type": "application/json" };
  assert.equal((await ask("/session", { method: "POST", body, headers })).status, 413);
});

test("no more than 128 connections at once; whoever comes then is hung up on", async (t) => {
  const { port } = await serveAdmin(t);
  const all = open(t, port, 140);
  let closed = 0;
  for (const socket of all) {
    socket.resume().once("close", () => {
      closed += 1;
    });
  }
  await until("those beyond the bound have gone", () => closed === 12);
});

test("leaving: a connection that is open gets one more answer, which says that it ends", async (t) => {
  const { admin, port } = await serveAdmin(t);
  const socket = connect(port, "127.0.0.1");
  const ask = `GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`;
  socket.write(ask);
  const [first] = (await once(socket, "data")) as [Buffer];
  assert.match(first.toString(), /200 OK/);
  const left = admin.leave(60_000);
  socket.write(ask);
  assert.match(await text(socket), /200 OK[\s\S]*connection: close/i);
  await left;
  await assert.rejects(once(connect(port, "127.0.0.1"), "connect"));
});

const asking = (path: string, token = ""): string =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${token && `Authorization: Bearer ${token}\r\n`}\r\n`;

test("without the token no connection is kept: 200 of them keep nobody out", async (t) => {
  const { port, url } = await serveAdmin(t);
  for (const path of ["/healthz", "/page/page.css", "/status", "/nowhere"]) {
    const socket = connect(port, "127.0.0.1");
    socket.write(asking(path));
    assert.match(await text(socket), /connection: close/i, path);
  }
  const idle = open(t, port, 200);
  await Promise.all(idle.slice(0, 100).map((socket) => once(socket, "connect")));
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});

test("128 connections of those who have the token: the one that was idle longest makes room", async (t) => {
  const { port, url } = await serveAdmin(t);
  const ask = asking("/status", TOKEN);
  const all: Socket[] = [];
  for (let at = 0; at < 128; at++) {
    const [socket] = open(t, port, 1) as [Socket];
    socket.write(ask);
    await once(socket, "data");
    all.push(socket);
  }
  const [first, second, last] = [all[0], all[1], all[127]] as [Socket, Socket, Socket];
  first.write(ask);
  await once(first, "data");
  const gone = new Promise((resolve) => second.resume().once("close", resolve));
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  await gone;
  for (const socket of [first, last]) {
    socket.write(ask);
    assert.match(String((await once(socket, "data"))[0]), /200 OK/);
  }
});

test("a request before the last one was answered ends the connection, and nothing piles up", async (t) => {
  let asked = 0;
  const { port } = await serveAdmin(t, {
    status: async () => {
      asked += 1;
      return { pid: 42 } as ServerStatus;
    },
  });
  for (const token of [TOKEN, "wrong"]) {
    const [socket] = open(t, port, 1) as [Socket];
    socket.write(asking("/status", token).repeat(1_000));
    await new Promise((resolve) => socket.resume().once("close", resolve));
  }
  assert.ok(asked <= 1, `${asked} were answered`);
});

test("profiles asked for on one connection leave nothing on it", async (t) => {
  const signals: AbortSignal[] = [];
  let theirs: Socket | undefined;
  const { port } = await serveAdmin(t, {
    mount: (app) => {
      app.server.once("connection", (socket) => {
        theirs = socket;
      });
    },
    profile: async (_request, signal) => {
      signals.push(signal);
      throw new HeadraceError("busy", "because");
    },
  });
  const [socket] = open(t, port, 1) as [Socket];
  const listeners: number[] = [];
  for (let at = 0; at < 20; at++) {
    socket.write(asking("/profile/cpu?seconds=60", TOKEN));
    assert.match(String((await once(socket, "data"))[0]), /409/);
    listeners.push(theirs?.listenerCount("close") ?? 0);
  }
  assert.equal(listeners.at(-1), listeners[0]);
  assert.ok((theirs?.timeout ?? 0) <= 80_000, String(theirs?.timeout));
});
