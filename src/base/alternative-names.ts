/**
 * The alternative names of a certificate, out of the text that node:crypto makes of them. A value with characters of
 * that text's own is quoted there as JSON, so that no certificate can pass off one name as two.
 */

export interface AlternativeName {
  /** "DNS", "IP Address", "URI", "email", … */
  readonly type: string;
  readonly value: string;
}

const NAME = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/y;

export function alternativeNames(text: string | undefined): AlternativeName[] {
  const names: AlternativeName[] = [];
  NAME.lastIndex = 0;
  for (let match = NAME.exec(text ?? ""); match; match = NAME.exec(text ?? "")) {
    const [, type = "", value = ""] = match;
    names.push({ type, value: value.startsWith('"') ? String(JSON.parse(value)) : value });
  }
  return names;
}
