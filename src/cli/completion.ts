/** `headrace completion`: a script by which a shell completes headrace's commands, options and their values. */
import { Argument, type Command } from "commander";

const SHELLS = ["bash", "zsh", "fish"] as const;

const HELP = `
Prints a script. It completes commands, options, values that are one of a few, services and files.

Examples:
  $ source <(headrace completion bash)     in ~/.bashrc, or for this shell alone
  $ source <(headrace completion zsh)      in ~/.zshrc, after compinit
  $ headrace completion fish > ~/.config/fish/completions/headrace.fish`;

export function addCompletion(program: Command): void {
  program
    .command("completion")
    .description("print a completion script for your shell")
    .addArgument(new Argument("<shell>", "which shell it is for").choices(SHELLS))
    .addHelpText("after", HELP)
    .action(async (shell: (typeof SHELLS)[number]) => {
      process.stdout.write(await scriptFor(shell, program));
    });
}

async function scriptFor(shell: (typeof SHELLS)[number], program: Command): Promise<string> {
  const { completionModel } = await import("./completion-model.ts");
  const commands = completionModel(program);
  switch (shell) {
    case "bash":
      return (await import("./completion-bash.ts")).bashScript(commands);
    case "zsh":
      return (await import("./completion-zsh.ts")).zshScript(commands);
    case "fish":
      return (await import("./completion-fish.ts")).fishScript(commands);
  }
}
