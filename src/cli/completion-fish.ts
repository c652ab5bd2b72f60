/** The completion script for fish: a line for each word, true at the places where it may stand. */
import type { CompletionCommand, CompletionValue } from "./completion-model.ts";
import { quote } from "./completion-tables.ts";

/** What is offered: words, and what fish works out when it is asked. */
function offered({ kind, words }: CompletionValue): string {
  const all = kind === "modules" ? [...words, "(__fish_complete_suffix .js .mjs .ts)"] : words;
  return all.length === 0 ? "" : ` -a ${quote(all.join(" "))}`;
}

function optionLine(path: string, { names, description, value }: CompletionCommand["options"][number]): string {
  const flags = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const more = value ? `${value.kind === "files" ? " -r -F" : " -x"}${offered(value)}` : "";
  return `complete -c headrace -n ${quote(`__headrace_at "${path}"`)} ${flags.join(" ")}${more} -d ${quote(description)}`;
}

function argumentLine(path: string, value: CompletionValue, at: number): string {
  const given = value.kind === "files" ? " -F" : offered(value);
  return given === "" ? "" : `complete -c headrace -n ${quote(`__headrace_at "${path}" ${at}`)}${given}`;
}

export function fishScript(commands: readonly CompletionCommand[]): string {
  const meaning = new Map(commands.map(({ path, description }) => [path, description]));
  const childOf = (path: string, name: string): string => (path === "" ? name : `${path} ${name}`);
  const below = commands.flatMap(({ path, commands: names }) => names.map((name) => childOf(path, name)));
  const valued = commands.flatMap(({ path, options }) =>
    options.flatMap(({ names, value }) => (value ? names.map((name) => `${path}|${name}`) : [])),
  );
  const lines = commands.flatMap(({ path, commands: names, options, arguments: positions }) => [
    ...names.map((name) => {
      const description = quote(meaning.get(childOf(path, name)) ?? "");
      return `complete -c headrace -n ${quote(`__headrace_at "${path}" 0`)} -a ${quote(name)} -d ${description}`;
    }),
    ...options.map((option) => optionLine(path, option)),
    ...positions.map((value, at) => argumentLine(path, value, at)),
  ]);
  return `# Completion of headrace for fish: headrace completion fish | source, or put it into
# ~/.config/fish/completions/headrace.fish
set -g __headrace_commands ${below.map(quote).join(" ")}
set -g __headrace_valued ${valued.map(quote).join(" ")}

# Whether the cursor is in the command of that path; with a number, also in that place of its arguments.
function __headrace_at
    set -l path ''
    set -l pending ''
    set -l place 0
    for word in (commandline -opc)[2..-1]
        if test -n "$pending"
            set pending ''
        else if string match -q -- '-*' $word
            contains -- "$path|$word" $__headrace_valued; and set pending $word
        else if contains -- (string trim -- "$path $word") $__headrace_commands
            set path (string trim -- "$path $word")
        else
            set place (math $place + 1)
        end
    end
    test "$path" = "$argv[1]"; and begin
        test (count $argv) -lt 2; or test "$place" = "$argv[2]"
    end
end

complete -c headrace -f
${lines.filter((line) => line !== "").join("\n")}
`;
}
