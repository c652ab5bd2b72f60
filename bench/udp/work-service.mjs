// A datagram echo in which each datagram costs BENCH_ROUNDS SHA-256: slow enough to be asked for twice what it can do.
import { createHash } from "node:crypto";

const { defineUdpService } = await import(process.env.BENCH_INDEX);
const rounds = Number(process.env.BENCH_ROUNDS);

export default defineUdpService({
  onDatagram(bytes) {
    for (let round = 0; round < rounds; round++) createHash("sha256").update(bytes).digest();
    return bytes;
  },
});
