/** Figures as people read them: three significant digits, units always. */

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const NOTHING = "–";

type Figure = number | null | undefined;

/** Whole: 12,345. */
export function count(value: Figure): string {
  return value === null || value === undefined ? NOTHING : NUMBER.format(value);
}

function significant(value: number): string {
  if (value >= 100) return NUMBER.format(value);
  return value >= 10 ? value.toFixed(1) : value.toFixed(value === 0 ? 0 : 2);
}

/** Short: 950, 12.3k, 1.23M. */
export function short(value: Figure): string {
  if (value === null || value === undefined) return NOTHING;
  if (value < 1) return value === 0 ? "0" : value.toFixed(1);
  if (value < 10) return Number.isInteger(value) ? String(value) : value.toFixed(1);
  if (value < 9999.5) return NUMBER.format(value);
  return value < 999_500 ? `${significant(value / 1e3)}k` : `${significant(value / 1e6)}M`;
}

/** 12.3 MiB. */
export function bytes(value: Figure): string {
  if (value === null || value === undefined) return NOTHING;
  let [rest, unit] = [value, 0];
  while (rest >= 1023.5 && unit < 4) [rest, unit] = [rest / 1024, unit + 1];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  return `${unit === 0 ? NUMBER.format(rest) : significant(rest)} ${units[unit]}`;
}

export function bytesPerSecond(value: Figure): string {
  return value === null || value === undefined ? NOTHING : `${bytes(value)}/s`;
}

/** A short time: 85 µs, 1.25 ms, 2.50 s. */
export function milliseconds(value: Figure): string {
  if (value === null || value === undefined) return NOTHING;
  if (value === 0) return "0 ms";
  if (value < 0.9995) return `${NUMBER.format(value * 1000)} µs`;
  return value < 999.5 ? `${significant(value)} ms` : `${significant(value / 1000)} s`;
}

/** A long time: 45 s, 12 min, 3 h 5 min, 12 d 4 h. */
export function duration(ms: Figure): string {
  if (ms === null || ms === undefined) return NOTHING;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function percent(value: Figure): string {
  return value === null || value === undefined ? NOTHING : `${value < 10 ? value.toFixed(1) : NUMBER.format(value)} %`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** 22:14:05, by the clock of who looks. */
export function clock(atMs: number): string {
  return CLOCK.format(atMs);
}
