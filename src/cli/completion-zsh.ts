/** The completion script for zsh: the same tables as for bash, with what each word means beside it. */
import type { CompletionCommand, CompletionValue } from "./completion-model.ts";
import { caseOf, quote } from "./completion-tables.ts";

/** "name:what it means", as _describe takes it. */
const described = (name: string, description: string): string => quote(`${name.replaceAll(":", "\\:")}:${description}`);
const valueText = ({ kind, words }: CompletionValue): string => ["reply=(", kind, ...words.map(quote), ")"].join(" ");

export function zshScript(commands: readonly CompletionCommand[]): string {
  const meaning = new Map(commands.map(({ path, description }) => [path, description]));
  const below = commands.map(({ path, commands: names }) => {
    const all = names.map((name) => described(name, meaning.get(path === "" ? name : `${path} ${name}`) ?? ""));
    return [[path], `reply=( ${all.join(" ")} )`] as const;
  });
  const options = commands.map(({ path, options: all }) => {
    const texts = all.flatMap(({ names, description }) => names.map((name) => described(name, description)));
    return [[path], `reply=( ${texts.join(" ")} )`] as const;
  });
  const values = commands.flatMap(({ path, options: all, arguments: positions }) => [
    ...all.flatMap(({ names, value }) =>
      value ? [[names.map((name) => `${path}|${name}`), valueText(value)] as const] : [],
    ),
    ...positions.map((value, at) => [[`${path}|${at}`], valueText(value)] as const),
  ]);
  return `#compdef headrace
# Completion of headrace for zsh: source <(headrace completion zsh), or put it as _headrace into a folder of $fpath
_headrace_commands() {
  reply=()
${caseOf("$1", below, "")}
}

_headrace_options() {
  reply=()
${caseOf("$1", options, "")}
}

# What may stand behind an option, or in a place: its kind, and words.
_headrace_value() {
  reply=()
${caseOf("$1|$2", values, "")}
}

_headrace() {
  local cur=$words[CURRENT] command_path="" pending="" word
  local -a reply found
  integer place=0 i
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    if [[ -n $pending ]]; then
      pending=""
    elif [[ $word == -*=* ]]; then
      continue
    elif [[ $word == -* ]]; then
      _headrace_value "$command_path" "$word"
      if (( $#reply )); then pending=$word; fi
    else
      _headrace_commands "$command_path"
      if (( \${reply[(I)$word:*]} )); then
        command_path=\${command_path:+$command_path }$word
      else
        place+=1
      fi
    fi
  done
  if [[ -z $pending && $cur == --*=* ]]; then
    pending=\${cur%%=*}
    compset -P '*='
  fi
  if [[ -z $pending && $cur == -* ]]; then
    _headrace_options "$command_path"
    found=($reply)
    _describe -o option found
    return
  fi
  if [[ -z $pending ]]; then
    _headrace_commands "$command_path"
    found=($reply)
    if (( $#found )); then _describe command found; fi
  fi
  _headrace_value "$command_path" "\${pending:-$place}"
  found=("\${(@)reply[2,-1]}")
  if (( $#found )); then compadd -- $found; fi
  case $reply[1] in
    files) _files ;;
    modules)
      # _files would offer all others where none of these fits.
      _path_files -g '*.(js|mjs|ts)'
      _path_files -/
      ;;
  esac
}

if [[ $funcstack[1] == _headrace ]]; then
  _headrace "$@"
else
  compdef _headrace headrace
fi
`;
}
