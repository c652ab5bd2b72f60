/** The live page's routes on a real admin server: what is served to whom, with which headers, and nothing else. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { PageSource } from "#src/admin/page.js";
import type { PageEvent } from "#src/admin/page-events.js";
import { readPageFiles } from "#src/admin/page-files.js";
import { MAX_STREAMS } from "#src/admin/page-streams.js";
import { packageRoot } from "#src/os/addon.js";
import { within } from "../support/until.js";
import { pageSource, serverStatus } from "./figures.js";
import { type ServedAdmin, serveAdmin } from "./source.js";

function servePage(t: TestContext, own: Partial<PageSource> = {}): Promise<ServedAdmin> {
  return serveAdmin(t, pageSource(own));
}

/** Whatever came in `response` until it ended, or had `enough`. */
async function read(response: Response, enough: (text: string) => boolean): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body ?? assert.fail("no body")) {
    text += decoder.decode(chunk, { stream: true });
    if (enough(text)) break;
  }
  return text;
}

test("the page and its files need no token, and may do nothing but ask this server", async (t) => {
  const { url } = await servePage(t);
  for (const { path, type } of readPageFiles()) {
    const response = await fetch(url + path);
    await response.arrayBuffer();
    assert.equal(response.status, 200, path);
    assert.equal(response.headers.get("content-type"), type);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    assert.equal(response.headers.get("cache-control"), "no-cache");
    const policy = response.headers.get("content-security-policy") ?? "";
    for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]) {
      assert.ok(policy.split("; ").includes(part), `${path}: ${policy}`);
    }
    assert.doesNotMatch(policy, /unsafe|http|\*|data:/);
  }
});

test("what the browser has is not sent again", async (t) => {
  const { url } = await servePage(t);
  const etag = (await fetch(`${url}/page/main.js`)).headers.get("etag") ?? assert.fail();
  const again = await fetch(`${url}/page/main.js`, { headers: { "if-none-match": etag } });
  assert.deepEqual([again.status, await again.text()], [304, ""]);
  const other = await fetch(`${url}/page/main.js`, { headers: { "if-none-match": '"another"' } });
  assert.equal(other.status, 200);
  await other.arrayBuffer();
});

test("no other file can be had", async (t) => {
  const { ask } = await servePage(t);
  for (const path of [
    "/page/",
    "/page/tsconfig.json",
    "/page/main.d.ts",
    "/page/../page.js",
    "/page/..%2fpage.js",
    "/page/%2e%2e/server.js",
    "/page//etc/passwd",
    "/page/main.js%00",
  ]) {
    const response = await ask(path);
    await response.arrayBuffer();
    assert.ok([400, 404].includes(response.status), `${path}: ${response.status}`);
  }
});

test("what the page loads is served, and comes from nowhere else", () => {
  const files = readPageFiles();
  const served = new Set(files.map(({ path }) => path));
  const text = (path: string): string => String(files.find((file) => file.path === path)?.body);
  const html = text("/");
  const loaded = [...html.matchAll(/\b(?:src|href)="([^"#]+)"/g)].map(([, address]) => address ?? "");
  for (const address of loaded) assert.ok(served.has(address), address);
  assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)/);
  const modules = [...served].filter((path) => /^\/page\/(?!uplot)\w+\.js$/.test(path));
  for (const path of modules) {
    for (const [, from] of text(path).matchAll(/(?:from|import)\s*\(?"([^"]+)"/g)) {
      assert.ok(served.has(`/page/${from?.replace("./", "")}`), `${path} imports ${from}`);
    }
    assert.doesNotMatch(text(path), /innerHTML|insertAdjacentHTML|document\.write|\beval\(|https?:\/\//, path);
  }
  const built = readdirSync(join(packageRoot(), "dist", "admin", "page")).filter((name) => name.endsWith(".js"));
  const sources = new Set(readdirSync(join(packageRoot(), "src", "admin", "page")));
  const living = built.filter((name) => sources.has(name.replace(/\.js$/, ".ts")));
  assert.deepEqual(living.map((name) => `/page/${name}`).sort(), modules.sort(), "each module is in the list");
});

test("events are for those who are signed in", async (t) => {
  let asked = 0;
  const { url } = await servePage(t, {
    status: async () => {
      asked++;
      return serverStatus();
    },
  });
  const response = await fetch(`${url}/events`);
  assert.equal(response.status, 401);
  assert.doesNotMatch(await response.text(), /pid|workers/);
  assert.equal(asked, 0, "nothing is read for them");
});

test("an event at once, and then one after the other", async (t) => {
  const { ask } = await servePage(t, { status: async () => serverStatus({ pid: 4711 }) });
  const response = await ask("/events");
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assert.equal(response.headers.get("cache-control"), "no-store");
  const text = await within(
    "three events",
    read(response, (each) => each.split("\n\n").length > 3),
  );
  const events = text.split("\n\n").slice(0, 3);
  for (const event of events) {
    assert.match(event, /^data: \{.*\}$/);
    assert.equal((JSON.parse(event.slice(6)) as PageEvent).pid, 4711);
  }
});

test("a server that has no figures just now is still there", async (t) => {
  const { ask } = await servePage(t, { status: async () => Promise.reject(new Error("stopping")) });
  const text = await within(
    "two heartbeats",
    read(await ask("/events"), (each) => each.split("\n\n").length > 2),
  );
  assert.match(text, /^: [^\n]+\n\n: /);
});

test(`no more than ${MAX_STREAMS} watch; when one leaves there is room again`, async (t) => {
  const { ask } = await servePage(t);
  const leave = new AbortController();
  const one = await ask("/events", { signal: leave.signal });
  const others = await Promise.all(Array.from({ length: MAX_STREAMS - 1 }, () => ask("/events")));
  assert.ok([one, ...others].every(({ status }) => status === 200));
  const refused = await ask("/events");
  assert.equal(refused.status, 503);
  assert.ok(refused.headers.get("retry-after"));
  assert.match(((await refused.json()) as { error: string }).error, /20 pages watch already/);
  leave.abort();
  await within(
    "room",
    (async () => {
      for (;;) {
        const response = await ask("/events");
        if (response.status === 200) return response.body?.cancel();
        await response.arrayBuffer();
      }
    })(),
  );
  for (const { body } of others) await body?.cancel();
});

test("streams end when the server leaves, and nobody new begins", async (t) => {
  const ending = new AbortController();
  const { ask, admin } = await servePage(t, { ending: ending.signal });
  const text = read(await ask("/events"), () => false);
  ending.abort();
  assert.match(await within("the end", text), /event: end\ndata: "stopping"\n\n$/);
  assert.equal((await ask("/events")).status, 503);
  await within("no connection is left", admin.leave());
});
