/**
 * The live page. Events come in, once a second; what is drawn is drawn at most once a frame, and not at all while nobody
 * sees it. Nothing here grows with time: the history, the log and the table each have a most.
 */
import type { PageEvent } from "#src/admin/page-events.js";
import { Changes } from "./changes.js";
import { Connections } from "./connections.js";
import { byId, setData, setHidden, setText } from "./elements.js";
import { Figures } from "./figures.js";
import { clock, count, duration } from "./format.js";
import { History, type Sample } from "./history.js";
import { Listeners } from "./listeners.js";
import { Plots } from "./plots.js";
import { Reasons } from "./reasons.js";
import { Session } from "./session.js";
import { PageStream } from "./stream.js";
import { startTheme } from "./theme.js";
import { Workers } from "./workers.js";

/** Without a word for so long, the server is said to be gone. An upgrade's change of hands takes less. */
const GONE_MS = 3500;
const LOOK_MS = 500;
/** How long a failed change is shown on top; it stays in the list of changes. */
const FAILURE_MS = 15 * 60_000;
/** A page that nobody has seen for as long as its history gives its stream to others. */
const UNSEEN_MS = 10 * 60_000;

const history = new History();
const changes = new Changes();
const plots = new Plots(history, changes.marks);
const figures = new Figures();
const workers = new Workers();
const listeners = new Listeners();
const reasons = new Reasons();

const main = byId("main", HTMLElement);
const contact = byId("contact", HTMLElement);

let signedIn = false;
let gone = false;
let refused = "";
/** By this page's clock, which is not the server's. */
let heardMs = 0;
let shown: { readonly event: PageEvent; readonly sample: Sample } | undefined;
let frame = 0;
let unseen = 0;

const session = new Session({
  onSignedIn() {
    signedIn = true;
    heardMs = Date.now();
    stream.start();
    look();
  },
  onSignedOut() {
    signedIn = false;
    stream.stop();
    connections.clear();
    for (const id of ["live-facts", "main", "contact", "sign-out", "gone", "notice"])
      setHidden(byId(id, HTMLElement), true);
    document.title = "headrace";
  },
});
const signOut = (): void => session.ask("The session is over. Sign in again.");
const connections = new Connections(signOut);
const stream = new PageStream({
  onEvent(event) {
    heardMs = Date.now();
    refused = "";
    if (gone) changes.add({ atMs: event.atMs, kind: "contact", text: "the server answers again" });
    setGone(false);
    const sample = history.push(event);
    if (!sample) return;
    changes.show(event, history.previous);
    shown = { event, sample };
    if (frame === 0) frame = requestAnimationFrame(draw);
  },
  onSignedOut: signOut,
  onRefused(why) {
    refused = why;
  },
});

function draw(): void {
  frame = 0;
  if (!shown || !signedIn) return;
  const { event, sample } = shown;
  const first = main.hidden;
  for (const id of ["live-facts", "main", "contact", "sign-out"]) setHidden(byId(id, HTMLElement), false);
  showFacts(event);
  figures.show(sample, event);
  workers.show(event, history.previous);
  listeners.show(event, history.previous);
  reasons.show(event, history.previous);
  connections.choices(event);
  if (first) plots.rebuild();
  else plots.draw();
}

function showFacts({
  state,
  health,
  generation,
  configVersion,
  source,
  uptimeMs,
  pid,
  version,
  lastChange,
  atMs,
}: PageEvent): void {
  const text = (id: string, value: string): void => setText(byId(id, HTMLElement), value);
  text("state", state);
  setData(byId("state", HTMLElement), "state", state);
  text("health", health);
  setData(byId("health", HTMLElement), "state", health);
  text("generation", String(generation));
  text("configuration", String(configVersion));
  byId("configuration", HTMLElement).title = source;
  text("uptime", duration(uptimeMs));
  text("primary", String(pid));
  text("version", version);
  showNotice(lastChange, atMs);
  document.title = health === "ok" ? `headrace: ${count(shown?.sample.open)} open` : `▲ headrace: ${health}`;
}

/** A change that goes on, or one that failed a while ago. */
function showNotice(change: PageEvent["lastChange"], atMs: number): void {
  const notice = byId("notice", HTMLElement);
  const began = Date.parse(change?.at ?? "");
  const outcome = change?.outcome ?? "done";
  const told = outcome === "running" || (outcome === "failed" && atMs - began < FAILURE_MS);
  setHidden(notice, !told);
  setData(notice, "kind", outcome);
  if (change && told) setText(notice, `${clock(began)} ${change.message}${outcome === "running" ? "…" : ""}`);
}

function setGone(now: boolean): void {
  if (now !== gone) {
    gone = now;
    setHidden(byId("gone", HTMLElement), !gone);
    main.classList.toggle("stale", gone);
    byId("live-facts", HTMLElement).classList.toggle("stale", gone);
    contact.classList.toggle("lost", gone);
    if (gone) changes.add({ atMs: heardMs, kind: "contact", text: "no contact from here on" });
  }
  if (!gone) setText(byId("contact-text", HTMLElement), "Live");
}

/** Whether the server is still there. */
function look(): void {
  if (!signedIn) return;
  const silentMs = Date.now() - heardMs;
  if (silentMs < GONE_MS) return;
  setGone(true);
  setText(byId("gone-what", HTMLElement), refused ? `No figures: ${refused}.` : "No contact with the server.");
  const since = shown ? `Last heard at ${clock(heardMs)}, ${duration(silentMs)} ago: what is shown is of then. ` : "";
  setText(byId("gone-since", HTMLElement), `${since}Trying again.`);
  setText(byId("contact-text", HTMLElement), `No contact for ${duration(silentMs)}`);
  document.title = "✕ headrace: no contact";
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(() => stream.stop(), UNSEEN_MS);
  else if (signedIn && Date.now() - heardMs > GONE_MS) {
    heardMs = Date.now();
    stream.start();
  }
});

setInterval(look, LOOK_MS);
startTheme(() => plots.rebuild());
session.start();
