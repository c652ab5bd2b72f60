// hash-frame with work that is worth measuring: the digest of each frame, and of that digest, and so on, in the pool. A
// busy reply is the frame with its first byte set, so that a client knows which request it answers.
const { defineService, definePool, frame } = await import(process.env.BENCH_INDEX);

const pool = definePool({
  name: "digest",
  module: new URL("./hash-task.mjs", import.meta.url),
  threads: 1,
  ...(process.env.BENCH_SHEDDING === "off" ? { maxQueueDelay: "off" } : {}),
});
const rounds = Number(process.env.BENCH_ROUNDS);

export default defineService({
  codec: frame(),
  concurrency: "unordered",
  pools: [pool],
  async onMessage(bytes, context) {
    await context.run(pool, "digest", bytes, rounds);
    return bytes;
  },
  busy(bytes) {
    const reply = Buffer.from(bytes);
    reply[0] = 1;
    return reply;
  },
});
