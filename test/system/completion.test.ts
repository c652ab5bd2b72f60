/** The completion scripts in real shells: what is completed when the words before the cursor are these. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";

/** What is typed, and the only word that completes it, if there is one. */
const CASES = [
  ["re", "reload"],
  ["run hash-l", "hash-line"],
  ["run ga", "game.js"],
  ["run not", ""],
  ["run --log-level w", "warn"],
  ["run --config hea", "headrace.yaml"],
  ["run -c not", "notes.txt"],
  ["run --listen 127.0.0.1:0 hash-l", "hash-line"],
  ["run game.js ga", ""],
  ["status --j", "--json"],
  ["status hash-l", ""],
  ["bench --codec fr", "frame"],
  ["bench --close re", "reset"],
  ["help sc", "scale"],
  ["completion f", "fish"],
  ["--vers", "--version"],
] as const;

/** A folder with the script and some files. */
async function prepare(t: TestContext, shell: string): Promise<string> {
  const folder = makeFolder(t);
  const { code, stdout } = await headrace(["completion", shell]);
  assert.equal(code, 0);
  writeFileSync(join(folder, "script"), stdout);
  for (const name of ["headrace.yaml", "game.js", "notes.txt"]) writeFileSync(join(folder, name), "");
  return folder;
}

function shell(cwd: string, command: string, ...args: string[]): string {
  const env = { PATH: process.env.PATH, HOME: cwd, TERM: "dumb" };
  return execFileSync(command, args, { cwd, env, encoding: "utf8", timeout: 60_000 });
}

const wordOf = (line: string): string => line.slice(line.lastIndexOf(" ") + 1);

test("bash", async (t) => {
  const folder = await prepare(t, "bash");
  const ask = `source ./script
for line in "$@"; do
  COMP_WORDS=(headrace $line) COMP_CWORD=$(set -- $line; echo $#)
  _headrace
  echo "\${COMPREPLY[*]}"
done
complete -p headrace`;
  const answers = shell(folder, "bash", "--norc", "-uc", ask, "bash", ...CASES.map(([line]) => line)).split("\n");
  assert.deepEqual(
    CASES.map(([line], at) => [line, answers[at]]),
    CASES.map(([line, word]) => [line, word]),
  );
  assert.equal(answers[CASES.length], "complete -F _headrace headrace");
  // As readline splits it.
  const equals = `source ./script; COMP_WORDS=(headrace run --config = hea) COMP_CWORD=4; _headrace; echo "\${COMPREPLY[*]}"`;
  assert.equal(shell(folder, "bash", "--norc", "-uc", equals), "headrace.yaml\n");
  assert.equal(shell(folder, "shellcheck", "--shell=bash", "script"), "");
});

test("zsh", async (t) => {
  const folder = await prepare(t, "zsh");
  // A zsh with a terminal: the tabulator completes, ^T tells what is on the line then, ^U clears it.
  const ask = `mkfifo answers
exec {answers}<>answers
zmodload zsh/zpty
zpty inner "zsh -f -i"
zpty -w inner "PS1=; unsetopt beep; autoload -Uz compinit; compinit -D -u; source ./script"
zpty -w inner 'report() { print -r -- "$BUFFER" >answers }; zle -N report; bindkey "^T" report; print ready >answers'
read -u $answers answer
for line in "$@"; do
  zpty -w -n inner "headrace $line"$'\\t\\x14\\x15'
  IFS= read -u $answers -r answer
  print -r -- "$answer"
done
zpty -d inner`;
  const answers = shell(folder, "zsh", "-f", "-c", ask, "zsh", ...CASES.map(([line]) => line)).split("\n");
  const completed = (line: string, word: string): string =>
    word === "" ? `headrace ${line}` : `headrace ${line.slice(0, line.length - wordOf(line).length)}${word} `;
  assert.deepEqual(
    CASES.map(([line], at) => [line, answers[at]]),
    CASES.map(([line, word]) => [line, completed(line, word)]),
  );
});

test("fish", async (t) => {
  const folder = await prepare(t, "fish");
  const ask = 'source ./script; for line in $argv; echo "line:$line"; complete -C "headrace $line"; end';
  const answers = shell(folder, "fish", "--no-config", "-c", ask, ...CASES.map(([line]) => line))
    .split("line:")
    .slice(1);
  assert.deepEqual(
    CASES.map(([line], at) => [
      line,
      answers[at]
        ?.split("\n")
        .slice(1, -1)
        .map((one) => one.split("\t")[0])
        .join(" "),
    ]),
    CASES.map(([line, word]) => [line, word]),
  );
});
