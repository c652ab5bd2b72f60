/** A real Chromium, and pages in it that note whatever a visitor should never see: errors, and requests to elsewhere. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { packageRoot } from "#src/os/addon.js";

const CHROMIUM = "/usr/bin/chromium";
const ARGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  ...["--disable-component-update", "--disable-sync"],
];

/** Ends with the test. */
export async function openBrowser(t: Pick<TestContext, "after">): Promise<Browser> {
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing: .ci/packages installs it`);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
  t.after(() => browser.close());
  return browser;
}

export interface WatchedPage {
  readonly page: Page;
  /** Errors of scripts and of the console, and requests that went anywhere but to `origin`. */
  readonly faults: string[];
}

/** A page of a visitor of its own: no cookie of another's. That nobody answers, or says that it leaves, is no fault. */
export async function openPage(
  browser: Browser,
  origin: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const expected = /Failed to load resource: (net::ERR_|the server responded with a status of (401|503))/;
    if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`)) faults.push(`request to ${request.url()}`);
  });
  return { page, faults };
}

/** Writes what is on the screen to build/screenshots/, for people to look at. */
export async function screenshot(page: Page, name: string, fullPage: boolean = true): Promise<void> {
  const folder = join(packageRoot(), "build", "screenshots");
  mkdirSync(folder, { recursive: true });
  await page.evaluate("scrollTo(0, 0)");
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage, animations: "disabled" });
}
