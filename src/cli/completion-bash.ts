/** The completion script for bash (4 or later): three tables, and one walk over the words before the cursor. */
import type { CompletionCommand, CompletionValue } from "./completion-model.ts";
import { caseOf, quote } from "./completion-tables.ts";

const valueText = ({ kind, words }: CompletionValue): string => quote([kind, ...words].join(" "));

export function bashScript(commands: readonly CompletionCommand[]): string {
  const below = commands.map(({ path, commands: names }) => [[path], quote(names.join(" "))] as const);
  const options = commands.map(
    ({ path, options: all }) => [[path], quote(all.flatMap(({ names }) => names).join(" "))] as const,
  );
  const values = commands.flatMap(({ path, options: all, arguments: positions }) => [
    ...all.flatMap(({ names, value }) =>
      value ? [[names.map((name) => `${path}|${name}`), valueText(value)] as const] : [],
    ),
    ...positions.map((value, at) => [[`${path}|${at}`], valueText(value)] as const),
  ]);
  return `# Completion of headrace for bash: source <(headrace completion bash), or put it into
# ~/.local/share/bash-completion/completions/headrace
_headrace_commands() {
${caseOf("$1", below, "printf '%s\\n'")}
}

_headrace_options() {
${caseOf("$1", options, "printf '%s\\n'")}
}

# What may stand behind an option, or in a place: its kind, and words.
_headrace_value() {
${caseOf("$1|$2", values, "printf '%s\\n'")}
}

_headrace() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path="" pending="" at=0 i word kind found
  local -a words
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == "=" && -n $pending ]]; then continue; fi
    if [[ -n $pending ]]; then
      pending=""
    elif [[ $word == -* ]]; then
      if [[ -n $(_headrace_value "$path" "$word") ]]; then pending=$word; fi
    elif [[ " $(_headrace_commands "$path") " == *" $word "* ]]; then
      path=\${path:+$path }$word
    else
      at=$((at + 1))
    fi
  done
  if [[ $cur == "=" ]]; then cur=""; fi
  COMPREPLY=()
  if [[ -z $pending && $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_headrace_options "$path")" -- "$cur")
    return
  fi
  read -r kind found <<<"$(_headrace_value "$path" "\${pending:-$at}")"
  if [[ -z $pending ]]; then found+=" $(_headrace_commands "$path")"; fi
  mapfile -t COMPREPLY < <(compgen -W "$found" -- "$cur")
  if [[ $kind != files && $kind != modules ]]; then return; fi
  compopt -o filenames 2>/dev/null
  mapfile -t words < <(compgen -f -- "$cur")
  for word in "\${words[@]}"; do
    if [[ $kind == files || -d $word || $word == *.js || $word == *.mjs || $word == *.ts ]]; then COMPREPLY+=("$word"); fi
  done
}

complete -F _headrace headrace
`;
}
