/**
 * Echoes lines and watches its own event loop: a timer of 1 ms, the longest that it was late, and the most CPU time that
 * the main thread used between two of its ticks (schedstat; what is beyond that it waited for the core). "loop" is
 * answered with what was seen since the last time it was asked; a worker that leaves logs what it had seen.
 */
import { openSync, readSync } from "node:fs";

const { defineService, line } = await import(process.env.BENCH_LIBRARY);

const EVERY_MS = 1;
const NS_PER_MS = 1e6;

function watchLoop() {
  const fd = openSync("/proc/self/schedstat", "r");
  const text = Buffer.alloc(64);
  const cpuMs = () =>
    Number(text.toString("latin1", 0, readSync(fd, text, 0, text.length, 0)).split(" ")[0]) / NS_PER_MS;
  const watch = { longestMs: 0, longestCpuMs: 0, last: performance.now(), lastCpu: cpuMs(), timer: undefined };
  watch.timer = setInterval(() => {
    const now = performance.now();
    const cpu = cpuMs();
    watch.longestMs = Math.max(watch.longestMs, now - watch.last - EVERY_MS);
    watch.longestCpuMs = Math.max(watch.longestCpuMs, cpu - watch.lastCpu);
    watch.last = now;
    watch.lastCpu = cpu;
  }, EVERY_MS);
  return watch;
}

function take(watch) {
  const { longestMs, longestCpuMs } = watch;
  watch.longestMs = 0;
  watch.longestCpuMs = 0;
  return { pid: process.pid, longestMs, longestCpuMs };
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
