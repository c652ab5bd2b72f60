/**
 * Which slots this worker serves beside its own. A socket that nobody accepts from would hang a share of all new
 * clients, so a slot whose owner is dead, stuck or not there yet is served by one sibling, and given back when its
 * owner runs. Every worker decides by itself from the scoreboard and comes to the same answer; should two disagree
 * for a moment, both accept from the slot, which harms nobody.
 */
import { NO_SEAT, type Scoreboard } from "../os/scoreboard.ts";

/** An owner whose clock is older does not serve: it ticks every 50 ms when it runs. */
export const OWNER_LATE_MS = 250;

/** True when the slot's owner accepts and its event loop runs. */
function served(scoreboard: Scoreboard, slot: number, now: number): boolean {
  const seat = scoreboard.owners[slot] ?? NO_SEAT;
  if (seat === NO_SEAT) return false;
  const block = scoreboard.block(seat);
  return block.get("accepting") === 1 && now - block.get("clock") <= OWNER_LATE_MS;
}

/** The slot whose owner looks after `slot`: the next one that is served. */
function guardianOf(scoreboard: Scoreboard, slot: number, slots: readonly number[], now: number): number | undefined {
  const at = slots.indexOf(slot);
  for (let step = 1; step < slots.length; step++) {
    const next = slots[(at + step) % slots.length];
    if (next !== undefined && served(scoreboard, next, now)) return next;
  }
  return undefined;
}

/** The siblings' slots that the owner of slot `own`, at `seat`, has to serve now. `slots`: all there are, ascending. */
export function slotsToServe(
  scoreboard: Scoreboard,
  own: { readonly slot: number; readonly seat: number },
  slots: readonly number[],
  now: number,
): number[] {
  if (scoreboard.owners[own.slot] !== own.seat) return [];
  return slots.filter(
    (slot) =>
      slot !== own.slot && !served(scoreboard, slot, now) && guardianOf(scoreboard, slot, slots, now) === own.slot,
  );
}
