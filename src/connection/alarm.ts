/**
 * Requests that are about to be late. The wheel of all deadlines looks at a connection every now and then (wheel.ts);
 * shortly before a request's deadline it hands that over to this one, which has finer ticks and runs only while it
 * has something to wait for. So a request that is answered in good time never comes near a timer.
 */
import { type Due, Wheel } from "./wheel.ts";

/** As coarse as the engine's clock. */
export const ALARM_TICK_MS = 4;

export class Alarm {
  readonly #clock: () => number;
  readonly #wheel: Wheel;
  readonly #timer: NodeJS.Timeout;
  /** The last of what it waits for, on the clock. */
  #until = 0;
  #running = false;

  /** `clock`: that of the engine, read anew, ms. `due` as for a Wheel. */
  constructor(clock: () => number, due: Due) {
    this.#clock = clock;
    this.#wheel = new Wheel(clock(), (slot, now) => this.#awaits(due(slot, now)), ALARM_TICK_MS);
    this.#timer = setTimeout(() => this.#ring(), ALARM_TICK_MS).unref();
  }

  /** Looks at the slot at `at`, or up to a tick later. */
  schedule(slot: number, at: number): void {
    if (!this.#running) {
      this.#running = true;
      this.#wheel.advance(this.#clock());
      this.#timer.refresh();
    }
    this.#wheel.schedule(slot, this.#awaits(at));
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #awaits(at: number): number {
    if (at > this.#until && at !== Number.POSITIVE_INFINITY) this.#until = at;
    return at;
  }

  #ring(): void {
    const now = this.#clock();
    this.#wheel.advance(now);
    this.#running = now < this.#until + ALARM_TICK_MS;
    if (this.#running) this.#timer.refresh();
  }
}
