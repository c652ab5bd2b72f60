/** Plain text for terminals: columns, durations, sizes. */

/** Lines with aligned columns. A column of numbers is aligned to the right, heading included. */
export function table(rows: readonly (readonly (string | number)[])[]): string[] {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, at) =>
    Math.max(...rows.map((row) => String(row[at] ?? "").length)),
  );
  const numeric = widths.map(
    (_, at) => rows.length > 1 && rows.slice(1).every((row) => /^[\d.,]/.test(String(row[at]))),
  );
  const pad = (cell: string | number | undefined, at: number): string => {
    const text = String(cell ?? "");
    return numeric[at] && typeof rows[1]?.[at] === "number"
      ? text.padStart(widths[at] ?? 0)
      : text.padEnd(widths[at] ?? 0);
  };
  return rows.map((row) => row.map(pad).join("  ").trimEnd());
}

/** "3h 12m", "12s": the two largest units. */
export function showDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3_600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0s";
  return parts
    .slice(first, first + 2)
    .map(([count, unit]) => `${count}${unit}`)
    .join(" ");
}

/** "1.4 MiB". */
export function showBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
