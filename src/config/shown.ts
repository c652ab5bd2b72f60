/** Values and option paths as an error message shows them: one line, short, control characters escaped. */

/** Keys and list positions from the top of the configuration: ["listeners", 0, "limits"]. */
export type Path = readonly (string | number)[];

const LONGEST = 60;

/** JSON's escapes, and those that a terminal needs too: DEL, the C1 controls and Unicode's line ends. */
function quoted(text: string): string {
  const json = JSON.stringify(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
  return json.replace(/[\u007f-\u009f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** What was given: `"10 parsecs"`, `10`, `a list`. */
export function shown(given: unknown): string {
  if (typeof given === "string") return quoted(given);
  if (given === null || given === undefined) return "nothing";
  if (Array.isArray(given)) return "a list";
  return typeof given === "object" ? "a group of options" : String(given);
}

/** `listeners[0].limits.frame`. */
export function formatPath(path: Path): string {
  return path
    .map((key, index) => {
      if (typeof key === "number") return `[${key}]`;
      const name = /^[\w<-]{1,60}$/.test(key) ? key : quoted(key);
      return index === 0 ? name : `.${name}`;
    })
    .join("");
}
