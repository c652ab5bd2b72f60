/** Echoes lines with the worker's pid in front: a client that is cut off knows whose it was. */
const { defineService, line } = await import(process.env.BENCH_LIBRARY);

export default defineService({ codec: line(), onMessage: (text) => `${process.pid} ${text}` });
