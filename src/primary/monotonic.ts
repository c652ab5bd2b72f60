/** CLOCK_MONOTONIC, ms: what the workers' clocks in the scoreboard are compared with. */
export const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000n) / 1_000;
