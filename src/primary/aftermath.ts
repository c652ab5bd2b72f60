/**
 * After a generation has ended, and before the next upgrade: its workers may outlive it for a moment, finish what
 * they have, and count it in the half of the admission table that the next one needs.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { AdmissionTable, Half } from "../os/admission-table.ts";

/** An ended generation's workers leave at once, and are killed after 6 s at the latest. */
const GONE_MS = 7_000;
const LOOK_MS = 50;

export class Aftermath {
  #over: Promise<void> = Promise.resolve();

  begin(admission: AdmissionTable, half: Half): void {
    this.#over = this.#watch(admission, half);
  }

  /** Resolves when the half is free: GONE_MS after the failure at the latest. */
  over(): Promise<void> {
    return this.#over;
  }

  async #watch(admission: AdmissionTable, half: Half): Promise<void> {
    // At least once later: one may have been accepted in the moment in which they learned of it.
    for (let waited = 0; waited < GONE_MS; waited += LOOK_MS) {
      await pause(LOOK_MS, undefined, { ref: false });
      if (admission.countHalf(half, 0) === 0) break;
    }
    // A worker that was killed gives nothing back by itself.
    admission.clearHalf(half);
    admission.setHighWater(half, 0);
  }
}
