/** The progress bar on a terminal: connections while they are opened, then time. Erased before anything else is printed. */
import type { LoadProgress } from "./run.ts";

const WIDTH = 30;
const ERASE = "\r\u001b[K";

export function showProgress({ phase, done, connections }: LoadProgress): string {
  const filled = Math.round(Math.min(1, done) * WIDTH);
  const bar = "█".repeat(filled) + "░".repeat(WIDTH - filled);
  const count = phase === "connecting" ? `  ${connections} connections` : "";
  return `${ERASE}${phase.padEnd(10)} ${bar} ${String(Math.round(done * 100)).padStart(3)} %${count}`;
}

/** What takes the bar off the screen. */
export const ERASE_PROGRESS: string = ERASE;
