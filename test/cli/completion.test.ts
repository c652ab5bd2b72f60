/** `headrace completion`; what the scripts do in their shells is in test/system/completion.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Argument, Command, Option } from "commander";
import { completionModel } from "#src/cli/completion-model.js";
import { addConnections } from "#src/cli/connections.js";
import { headrace } from "../support/command.js";

test("the model is the definition: commands below commands, options with their values, places", () => {
  const program = new Command("tool").version("1", "-V, --version", "print the version");
  const profile = program.command("profile").description("look closer; at length");
  profile
    .command("cpu")
    .addArgument(new Argument("<how>").choices(["wall", "user"]))
    .option("-o, --output <file>", "where to")
    .addOption(new Option("--sort <by>", "order").choices(["age", "idle"]))
    .option("--size <bytes>", "how much");
  const [root, upper, lower] = completionModel(program);
  assert.deepEqual([root?.path, root?.commands], ["", ["profile", "help"]]);
  assert.deepEqual([upper?.path, upper?.description, upper?.commands], ["profile", "look closer", ["cpu", "help"]]);
  assert.equal(lower?.path, "profile cpu");
  assert.deepEqual(lower?.arguments, [{ kind: "words", words: ["wall", "user"] }]);
  assert.deepEqual(
    lower?.options.map(({ names, value }) => [names.join(" "), value?.kind, value?.words.join(" ")]),
    [
      ["-o --output", "files", ""],
      ["--sort", "words", "age idle"],
      ["--size", "any", ""],
      ["-h --help", undefined, undefined],
    ],
  );
});

test("each shell's script names every command", async () => {
  const { stdout: help } = await headrace(["--help"]);
  const commands = [...help.matchAll(/^ {2}([a-z]+) .*/gm)].map(([, name]) => String(name));
  assert.ok(commands.length >= 11, commands.join(" "));
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, stdout } = await headrace(["completion", shell]);
    assert.equal(code, 0);
    for (const command of commands) assert.match(stdout, new RegExp(`\\b${command}\\b`), `${shell}: ${command}`);
  }
});

test("a shell that is not known is one line and exit code 2", async () => {
  const { code, stdout, stderr } = await headrace(["completion", "tcsh"]);
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(stderr, /^headrace: .*'tcsh'.* Allowed choices are bash, zsh, fish.*\n$/);
});

test("what connections are sorted by is offered", () => {
  const program = new Command("headrace");
  addConnections(program);
  const options = completionModel(program).find(({ path }) => path === "connections")?.options ?? [];
  const offered = (name: string): readonly string[] =>
    options.find(({ names }) => names.includes(name))?.value?.words ?? [];
  assert.deepEqual(offered("--sort"), ["buffered", "idle", "age", "bytes"]);
  assert.deepEqual(offered("--order"), ["desc", "asc"]);
});
