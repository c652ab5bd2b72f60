/**
 * Echoes lines, and makes objects for each as a service does that parses, looks things up and keeps a little: some forty
 * live for as long as their connection sends 32 more lines, two hundred die at once. The line "gc?" asks what the
 * collector has cost so far.
 */
import { PerformanceObserver } from "node:perf_hooks";
import { defineService, line } from "headrace";

const KEPT_LINES = 32;
const KEPT_OBJECTS = 40;
const PASSING_OBJECTS = 200;

const total = { minor: 0, minorMs: 0, major: 0, majorMs: 0, worstMs: 0 };
/** perf_hooks constants: NODE_PERFORMANCE_GC_MINOR is 1. */
const MINOR = 1;
new PerformanceObserver((list) => {
  for (const { duration, detail } of list.getEntries()) {
    const minor = detail.kind === MINOR;
    total[minor ? "minor" : "major"] += 1;
    total[minor ? "minorMs" : "majorMs"] += duration;
    total.worstMs = Math.max(total.worstMs, duration);
  }
}).observe({ entryTypes: ["gc"] });

function objects(count, text) {
  const made = [];
  for (let i = 0; i < count; i++) made.push({ index: i, text, next: undefined });
  return made;
}

export default defineService({
  codec: line(),
  state: () => ({ kept: [], at: 0 }),
  onMessage(message, { connection: { state } }) {
    if (message === "gc?") return JSON.stringify(total);
    objects(PASSING_OBJECTS, message);
    state.kept[state.at] = objects(KEPT_OBJECTS, message);
    state.at = (state.at + 1) % KEPT_LINES;
    return message;
  },
});
