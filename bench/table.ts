/** Plain text tables: the first column to the left, figures to the right, as wide as the widest cell. */

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    widths
      .map((width, column) => {
        const cell = cells[column] ?? "";
        return column === 0 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd();
  return [line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

const GROUPED = new Intl.NumberFormat("en-US");

/** 1,234,567 above 100, else with as many decimals as matter at a glance. */
export function figure(value: number): string {
  if (value >= 100) return GROUPED.format(Math.round(value));
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** A share of one core: 97%. */
export function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}
