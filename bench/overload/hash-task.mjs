import { createHash } from "node:crypto";

export function digest(bytes, rounds) {
  for (let round = 0; round < rounds; round++) bytes = createHash("sha256").update(bytes).digest();
  return bytes;
}
