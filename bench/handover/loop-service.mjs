/**
 * Echoes lines and watches its own event loop: a timer of 1 ms, and the longest that it was late. "loop" is answered with
 * what was seen since the last time it was asked; a worker that leaves logs what it had seen.
 */
const { defineService, line } = await import(process.env.HEADRACE_INDEX);

const EVERY_MS = 1;

function watchLoop() {
  const watch = { longestMs: 0, over50: 0, last: performance.now(), timer: undefined };
  watch.timer = setInterval(() => {
    const now = performance.now();
    const late = now - watch.last - EVERY_MS;
    watch.longestMs = Math.max(watch.longestMs, late);
    if (late > 50) watch.over50 += 1;
    watch.last = now;
  }, EVERY_MS);
  return watch;
}

function take(watch) {
  const seen = { pid: process.pid, longestMs: watch.longestMs, over50: watch.over50 };
  watch.longestMs = 0;
  watch.over50 = 0;
  return seen;
}

export default defineService({
  codec: line(),
  state: () => ({ lines: 0 }),
  env: (worker) => ({ log: worker.log, watch: watchLoop() }),
  closeEnv({ log, watch }) {
    clearInterval(watch.timer);
    log.info(take(watch), "loop");
  },
  onMessage(text, { connection, env }) {
    if (text === "loop") return JSON.stringify(take(env.watch));
    connection.state.lines += 1;
    return text;
  },
});
