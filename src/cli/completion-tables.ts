/** Tables in shell scripts. */

/** One word, in a way that bash, zsh and fish read alike. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A `case` of bash and zsh: whatever is one of the words runs `command` with the rest of the row. */
export function caseOf(
  subject: string,
  rows: readonly (readonly [readonly string[], string])[],
  command: string,
): string {
  const lines = rows.map(([words, value]) => `    ${words.map(quote).join(" | ")}) ${command} ${value} ;;`);
  return [`  case "${subject}" in`, ...lines, "  esac"].join("\n");
}
