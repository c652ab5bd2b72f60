// Each payload comes back.
const { defineRpcService } = await import(process.env.BENCH_INDEX);

export default defineRpcService({ onRequest: (payload) => payload });
