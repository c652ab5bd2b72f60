/**
 * What can be typed, as the shells' completion scripts need it: read from the commander definition, so that a command or
 * an option that is added there is completed without another word. Pure. What a value may be is told by the name of its
 * placeholder, or by its choices.
 */
import type { Argument, Command, Option } from "commander";
import { LOG_LEVELS } from "../base/settings.ts";
import { BUILTIN_SERVICES } from "../config/config.ts";
import { LOAD_CODECS } from "../load/options.ts";

/** Words that may stand there; also paths of modules, of any files; or nothing that is known. */
export interface CompletionValue {
  readonly kind: "words" | "modules" | "files" | "any";
  readonly words: readonly string[];
}

interface CompletionOption {
  /** As typed: "-c", "--config". */
  readonly names: readonly string[];
  readonly description: string;
  /** Absent: it takes none. */
  readonly value?: CompletionValue;
}

/** A command; the first one is the program itself. */
export interface CompletionCommand {
  /** Names of the commands above it and its own, with blanks between; the program's is "". */
  readonly path: string;
  readonly description: string;
  /** Names of those below it. */
  readonly commands: readonly string[];
  readonly options: readonly CompletionOption[];
  /** By position. */
  readonly arguments: readonly CompletionValue[];
}

const ANY: CompletionValue = { kind: "any", words: [] };
const words = (given: readonly string[]): CompletionValue => ({ kind: "words", words: given });

/** By the placeholder in the definition. */
const BY_PLACEHOLDER: Readonly<Record<string, CompletionValue>> = {
  file: { kind: "files", words: [] },
  path: { kind: "files", words: [] },
  service: { kind: "modules", words: BUILTIN_SERVICES },
  level: words(LOG_LEVELS),
  codec: words(LOAD_CODECS),
  how: words(["fin", "reset"]),
};

function valueFor(placeholder: string, choices: readonly string[] | undefined): CompletionValue {
  return choices ? words(choices) : (BY_PLACEHOLDER[placeholder] ?? ANY);
}

/** The first sentence or clause: scripts show it beside the name. */
function brief(text: string): string {
  return text.split(/[;(:]|\. /)[0]?.trim() ?? "";
}

function optionOf(option: Option): CompletionOption {
  const names = [option.short, option.long].filter((name) => name !== undefined);
  const placeholder = /[<[]([\w/:-]+)/.exec(option.flags)?.[1];
  return {
    names,
    description: brief(option.description),
    ...(placeholder === undefined ? {} : { value: valueFor(placeholder, option.argChoices) }),
  };
}

function argumentOf(argument: Argument): CompletionValue {
  return valueFor(argument.name(), argument.argChoices);
}

/** The program and all its commands, the upper ones first. */
export function completionModel(program: Command, above = ""): CompletionCommand[] {
  const help = program.createHelp();
  // The implicit `help` is among them.
  const below = help.visibleCommands(program);
  const names = below.map((command) => command.name());
  const model: CompletionCommand = {
    path: above,
    description: brief(program.description()),
    commands: names,
    options: help.visibleOptions(program).map(optionOf),
    // `help` takes the name of a command, of which its own definition knows nothing.
    arguments: program.registeredArguments.map(argumentOf),
  };
  const commands = below.flatMap((command) => {
    const path = above === "" ? command.name() : `${above} ${command.name()}`;
    if (command.name() !== "help") return completionModel(command, path);
    const others = words(names.filter((name) => name !== "help"));
    return [{ path, description: brief(command.description()), commands: [], options: [], arguments: [others] }];
  });
  return [model, ...commands];
}
