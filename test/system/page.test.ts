/** The live page in a real Chromium, over a real server under real load. Screenshots go to build/screenshots/. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, describe, type TestContext, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { openBrowser, openPage, screenshot, type WatchedPage } from "../support/browser.js";
import { spawnCommand } from "../support/command.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import { type Rig, startRig } from "../support/under-load.js";
import { until, within } from "../support/until.js";

/** For the load, which wants its lines back as they were. */
const ECHO_LISTENER = { name: "echo", address: "127.0.0.1:0", service: "echo-line" };
const TOKEN = "the-token-of-this-test-0123456789";

let browser: Browser;
const ended: (() => Promise<void>)[] = [];
before(async () => {
  browser = await openBrowser({ after: (end: unknown) => void ended.push(end as () => Promise<void>) });
});
after(async () => {
  for (const end of ended) await end();
});

interface Shown extends WatchedPage {
  readonly rig: Rig;
  readonly origin: string;
}

/** A server with releases, so that it can be upgraded, and its page before anybody has signed in. */
async function open(t: TestContext, timeouts: object = {}): Promise<Shown> {
  const rig = await startRig(t, {
    load: false,
    config: { listeners: [CURRENT_LISTENER, ECHO_LISTENER], admin: { address: "127.0.0.1:0", token: TOKEN }, timeouts },
    prepare(folder) {
      // A request that takes its time keeps its connection from moving.
      const first = 'if (text.startsWith("slow")) return new Promise((done) => setTimeout(done, 12_000, "done"));';
      writeRelease(folder, "1", { first });
      activate(folder, "1");
    },
  });
  const { admin } = await rig.status();
  const origin = `http://${admin}`;
  const watched = await openPage(browser, origin);
  t.after(() => watched.page.context().close());
  await watched.page.goto(`${origin}/`);
  return { ...watched, rig, origin };
}

async function signIn(page: Page): Promise<void> {
  await page.getByLabel("Token").fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#main").waitFor();
}

/** The figure of a tile. */
async function figure(page: Page, title: string): Promise<number> {
  const text = await page.locator(".tile", { hasText: title }).locator("strong").innerText();
  return Number.parseFloat(text.replaceAll(",", "")) * (text.includes("k") ? 1000 : 1);
}

/** `headrace bench` until the test ends. */
async function load(t: TestContext, rig: Rig): Promise<void> {
  const { address = "" } = (await rig.status()).listeners.find(({ name }) => name === "echo") ?? {};
  const flags = ["--connections", "60", "--rate", "800", "--duration", "120s"];
  const child = spawnCommand(["bench", address, ...flags]);
  child.stdout.resume();
  child.stderr.resume();
  t.after(() => child.kill("SIGKILL"));
}

async function idleClient(t: TestContext, port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  t.after(() => socket.destroy());
  await once(socket, "connect");
  socket.write("1 0 hello\n");
  await within("a reply", once(socket, "data"));
  return socket;
}

/** How much wider than the screen the page is. */
async function overflow(page: Page): Promise<number> {
  return Number(await page.evaluate("document.documentElement.scrollWidth - innerWidth"));
}

describe("the live page", () => {
  test("signing in; figures that move under load; light, dark and on a phone", async (t) => {
    const { page, faults, rig } = await open(t);
    await page.getByLabel("Token").fill("a-wrong-token-0123456789");
    await page.keyboard.press("Enter");
    await page.getByText("This is not the token.").waitFor();
    await signIn(page);
    await load(t, rig);
    await until("connections are shown", async () => (await figure(page, "Connections")) >= 60);
    await until("requests are shown", async () => (await figure(page, "Requests")) > 300);
    await until("latencies are shown", async () => (await figure(page, "Latency p99")) > 0);
    await page.getByRole("img", { name: /Latency: p50 \d/ }).waitFor();
    await page.getByRole("row", { name: /^0 accepting 1 / }).waitFor();
    await until("throughput is shown", async () => (await figure(page, "Throughput")) > 0);
    await page.getByRole("button", { name: "Load" }).click();
    await page.locator("#connections tbody tr").first().waitFor();
    // A plot of some length is worth looking at.
    await until("some seconds are drawn", async () => Number(await drawnPoints(page)) > 12);
    await screenshot(page, "page-light");
    await page.emulateMedia({ colorScheme: "dark" });
    await until("it is dark", async () => (await background(page)) === "rgb(16, 19, 23)");
    await screenshot(page, "page-dark");
    await page.setViewportSize({ width: 360, height: 780 });
    assert.equal(await overflow(page), 0);
    await until(
      "plots have shrunk",
      async () => (await page.locator(".uplot").first().boundingBox())?.width ?? 999 < 360,
    );
    await screenshot(page, "page-phone");
    assert.deepEqual(faults, []);
  });

  test("everything by keyboard: signing in, the theme, sorting, and a kill that is thought better of", async (t) => {
    const { page, faults, rig } = await open(t);
    const client = await idleClient(t, rig.port);
    await page.keyboard.type(TOKEN);
    await page.keyboard.press("Enter");
    await page.locator("#main").waitFor();
    const focusOn = async (what: string, text: string): Promise<void> => {
      for (let presses = 0; presses < 60; presses++) {
        await page.keyboard.press("Tab");
        const focused = page.locator("*:focus");
        if ((await focused.count()) > 0 && (await focused.innerText()).startsWith(text)) {
          const outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
          assert.equal(outline, "solid", `${what}: the focus is seen`);
          return;
        }
      }
      assert.fail(`${what} cannot be reached`);
    };
    await focusOn("time shown", "10 min");
    await page.keyboard.press("Space");
    await page.getByRole("button", { name: "10 min", pressed: true }).waitFor();
    await focusOn("loading connections", "Load");
    await page.keyboard.press("Enter");
    await page.locator("#connections tbody tr").waitFor();
    await focusOn("sorting", "Idle");
    await page.keyboard.press("Enter");
    await page.locator('th[aria-sort="descending"]', { hasText: "Idle" }).waitFor();
    await focusOn("killing", "Kill");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.equal((await rig.status()).totals.open, 1);
    assert.equal(client.destroyed, false);
    await page.getByRole("button", { name: "Theme: auto" }).focus();
    for (const theme of ["light", "dark"]) {
      await page.keyboard.press("Enter");
      await page.getByRole("button", { name: `Theme: ${theme}` }).waitFor();
    }
    assert.equal(await background(page), "rgb(16, 19, 23)");
    await page.reload();
    await page.locator("#main").waitFor();
    await page.getByRole("button", { name: "Theme: dark" }).waitFor();
    assert.deepEqual(faults, []);
  });

  test("connections: filter, and a kill that the client feels and the page tells", async (t) => {
    const { page, faults, rig } = await open(t);
    const [client, other] = [await idleClient(t, rig.port), await idleClient(t, rig.port)];
    await signIn(page);
    await page.getByLabel("Address").fill("10.9.");
    await page.keyboard.press("Enter");
    await page.locator("#connections-summary", { hasText: "None at" }).waitFor();
    await page.getByLabel("Address").fill("127.0.0.1");
    await page.keyboard.press("Enter");
    const { localPort } = client;
    const row = page.getByRole("row", { name: `127.0.0.1:${localPort}` });
    const lost = new Promise((resolve) => client.once("close", resolve));
    await row.getByRole("button").click();
    await page.getByRole("dialog").getByText(`127.0.0.1:${localPort} on main`).waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Kill" }).click();
    await within("the client is cut off", lost);
    await page.locator("#connections-summary", { hasText: "was killed" }).waitFor();
    assert.equal(other.destroyed, false);
    await page.getByRole("row", { name: /^admin / }).waitFor();
    await page.getByRole("button", { name: "Refresh" }).click();
    await until("one is left", async () => (await page.locator("#connections tbody tr").count()) === 1);
    assert.deepEqual(faults, []);
  });

  test("a reload and an upgrade are seen, and the page goes on with the next generation", async (t) => {
    const { page, faults, rig } = await open(t, { prove: "2s", drain: "20s" });
    await load(t, rig);
    await signIn(page);
    await until("connections are shown", async () => (await figure(page, "Connections")) >= 60);
    const pids = (): Promise<string[]> => page.locator("#workers tbody tr td:last-child").allInnerTexts();
    const before = await pids();
    await rig.command("reload", "--replace", "--wait");
    await page.locator("#changes .done", { hasText: "reloaded" }).waitFor();
    await until("other processes serve", async () => (await pids()).every((pid) => !before.includes(pid)));
    await page.locator("#changes .process", { hasText: /worker 0: process \d+ → \d+/ }).waitFor();
    writeRelease(rig.folder, "2");
    activate(rig.folder, "2");
    const slow = connect(rig.port, "127.0.0.1").on("error", () => {});
    t.after(() => slow.destroy());
    slow.write("slow\n");
    const answered = once(slow, "data");
    const upgraded = rig.command("upgrade", "--wait");
    await page.locator("#state", { hasText: "upgrading" }).waitFor();
    await page.locator("#notice", { hasText: "upgrade" }).waitFor();
    await screenshot(page, "page-upgrade-begins", false);
    await page.locator("#changes", { hasText: "generation 2 serves" }).waitFor();
    const draining = page.locator("#crew .share", { hasText: /generation 1, process \d+, draining/ });
    await draining.waitFor();
    await until("rates are shown again", async () => (await figure(page, "Requests")) > 300);
    await screenshot(page, "page-upgrade");
    await upgraded;
    await within("the slow request has its answer", answered);
    await draining.waitFor({ state: "detached" });
    await page.locator("#generation", { hasText: "2" }).waitFor();
    await page.getByRole("row", { name: /^0 accepting 2 / }).waitFor();
    await until("the state is calm", async () => (await page.locator("#state").innerText()) === "running");
    assert.equal(await page.locator("#gone").isVisible(), false);
    assert.equal(await page.locator("#sign-in").isVisible(), false, "still signed in");
    assert.deepEqual(faults, []);
  });

  test("a server that is gone: said at once, and nothing old looks new", async (t) => {
    const { page, rig } = await open(t);
    await signIn(page);
    await until("workers are shown", async () => (await page.locator("#workers tbody tr").count()) === 2);
    rig.server.signal("SIGKILL");
    const sign = page.getByRole("alert").filter({ hasText: "No contact with the server." });
    await sign.waitFor();
    assert.match(await sign.innerText(), /Last heard at \d\d:\d\d:\d\d, \d+ s ago/);
    await page.locator("#main.stale").waitFor();
    assert.match(await page.title(), /no contact/);
    await screenshot(page, "page-gone", false);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByText("The server did not answer").waitFor();
    assert.equal(await page.locator("#main").isVisible(), false);
  });

  test("a session that ends leaves the form and no figure", async (t) => {
    const { page, faults, rig } = await open(t);
    await idleClient(t, rig.port);
    await signIn(page);
    await page.getByRole("button", { name: "Load" }).click();
    await page.locator("#connections tbody tr").waitFor();
    await page.context().clearCookies();
    await page.getByRole("button", { name: "Refresh" }).click();
    await page.getByText("The session is over. Sign in again.").waitFor();
    assert.equal(await page.locator("#main").isVisible(), false);
    assert.equal(await page.locator("#connections tbody tr").count(), 0);
    await signIn(page);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByText("Signed out.").waitFor();
    await page.reload();
    await page.getByLabel("Token").waitFor();
    assert.deepEqual(faults, []);
  });
});

function background(page: Page): Promise<string> {
  return page.evaluate("getComputedStyle(document.body).backgroundColor") as Promise<string>;
}

/** Seconds that the page has figures of, as far as it tells: since it is open. */
async function drawnPoints(page: Page): Promise<number> {
  return Number(await page.evaluate("performance.now() / 1000"));
}
