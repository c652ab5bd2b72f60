/**
 * The files of the live page, and no others: each is named here, read once, and answered from memory, so that no path
 * ever comes from a request, and a page keeps fitting its server while another release is put in its place on disk.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

export interface PageFile {
  /** Where it is asked for. */
  readonly path: string;
  readonly type: string;
  readonly etag: string;
  readonly body: Buffer;
}

const HTML = "text/html; charset=utf-8";
const CSS = "text/css; charset=utf-8";
const SCRIPT = "text/javascript; charset=utf-8";

/** Modules of the page; built by a tsconfig.json of its own, since they run in a browser. */
const PAGE_SCRIPTS = [
  "changes",
  "connections",
  "elements",
  "figures",
  "format",
  "history",
  "latency",
  "listeners",
  "main",
  "plots",
  "reasons",
  "session",
  "stream",
  "theme",
  "workers",
] as const;

const require = createRequire(import.meta.url);

function fileAt(path: string, type: string, from: string | URL): PageFile {
  const body = readFileSync(from);
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`;
  return { path, type, etag, body };
}

/** Reads all of them; throws when one is missing, which means that the package was not built. */
export function readPageFiles(): PageFile[] {
  const own = (path: string, type: string, name: string): PageFile =>
    fileAt(path, type, new URL(`./page/${name}`, import.meta.url));
  return [
    own("/", HTML, "index.html"),
    own("/page/page.css", CSS, "page.css"),
    own("/page/icon.svg", "image/svg+xml", "icon.svg"),
    ...PAGE_SCRIPTS.map((name) => own(`/page/${name}.js`, SCRIPT, `${name}.js`)),
    fileAt("/page/uplot.js", SCRIPT, require.resolve("uplot/dist/uPlot.iife.min.js")),
    fileAt("/page/uplot.css", CSS, require.resolve("uplot/dist/uPlot.min.css")),
  ];
}
