/** Work for the built-in services: done in place by hash-line, in a thread by hash-frame. */
import { createHash } from "node:crypto";

export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}
