/**
 * deploy/docker/Dockerfile without Docker: its steps as a shell script that runs each as it stands, every stage in a
 * copy-on-write image of this machine's root (chroot on an overlay), from what .dockerignore leaves of the repository.
 * The base images are the only thing that is not real. Needs root; all of it goes with the script's mount namespace.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DockerfileParser, type ModifiableInstruction } from "dockerfile-ast";
import { packageRoot } from "#src/os/addon.js";

export const DOCKERFILE: string = join(packageRoot(), "deploy", "docker", "Dockerfile");

export interface Step {
  readonly keyword: string;
  /** As written, lines joined. */
  readonly text: string;
  /** Words of a JSON form. */
  readonly words: readonly string[];
  /** Values by name: `from` of COPY, the times of HEALTHCHECK. */
  readonly flags: Readonly<Record<string, string>>;
}

export interface Stage {
  readonly image: string;
  readonly name: string;
  readonly steps: readonly Step[];
}

/** The file as it is read by Docker's own grammar. */
export function readStages(text: string = readFileSync(DOCKERFILE, "utf8")): Stage[] {
  const stages: { image: string; name: string; steps: Step[] }[] = [];
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    const keyword = instruction.getKeyword();
    const content = instruction.getArgumentsContent() ?? "";
    if (keyword === "FROM") {
      const [image = "", , name = String(stages.length)] = content.split(/\s+/);
      stages.push({ image, name, steps: [] });
      continue;
    }
    const { getFlags } = instruction as Partial<ModifiableInstruction>;
    // Of HEALTHCHECK a word stands in front.
    const words = JSON.parse(/\[.*\]$/.exec(content)?.[0] ?? "[]") as string[];
    const flags = getFlags?.call(instruction).map((flag) => [flag.getName(), flag.getValue() ?? ""] as const) ?? [];
    stages.at(-1)?.steps.push({ keyword, text: content, words, flags: Object.fromEntries(flags) });
  }
  return stages;
}

/** The last value of an instruction in a stage. */
export function lastOf(stage: Stage, keyword: string): Step {
  const found = stage.steps.findLast((step) => step.keyword === keyword);
  assert.ok(found, `the Dockerfile has no ${keyword}`);
  return found;
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** What `docker build` would be sent: .dockerignore as this repository writes it, a list of what is let in and globs of what is not. */
function contextLines(): string[] {
  const lines = readFileSync(join(packageRoot(), ".dockerignore"), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  assert.equal(lines[0], "*", ".dockerignore lets in what it names only");
  const allowed = lines.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
  const excluded = lines.slice(1).filter((line) => !line.startsWith("!"));
  return [
    "mkdir $W/context",
    ...allowed.map((name) => `cp -r ${quoted(join(packageRoot(), name))} $W/context/`),
    ...excluded.map((glob) => `for each in $W/context/${glob}; do rm -rf "$each"; done`),
  ];
}

function stepLines(step: Step, root: string, workdir: string): string[] {
  switch (step.keyword) {
    case "RUN":
      return [`chroot ${root} /bin/sh -c ${quoted(`cd ${workdir} && ${step.text}`)} >&2`];
    case "WORKDIR":
      return [`mkdir -p ${root}${step.text}`];
    case "COPY": {
      const words = step.text.split(/\s+/);
      const target = words.at(-1) ?? "";
      const place = `${root}${join(workdir, target)}`;
      const from = step.flags.from === undefined ? "$W/context/" : `$W/${step.flags.from}/root`;
      // A folder's content is copied, not the folder.
      return words
        .slice(0, -1)
        .map(
          (source) =>
            `if [ -d ${from}${source} ]; then mkdir -p ${place}; cp -r ${from}${source}/. ${place}/; else cp ${from}${source} ${place}; fi`,
        );
    }
    default:
      return [];
  }
}

/** A script for bash, to be run by `unshare -m`: builds all stages below $W. The last one's root is $W/NAME/root. */
export function buildScript(stages: readonly Stage[]): string {
  const lines = [
    "set -euo pipefail; shopt -s globstar nullglob",
    "W=$1",
    "mount -t tmpfs stages $W",
    ...contextLines(),
  ];
  for (const { name, steps } of stages) {
    const root = `$W/${name}/root`;
    lines.push(
      `mkdir -p $W/${name}/up $W/${name}/work ${root}`,
      `mount -t overlay overlay -o lowerdir=/,upperdir=$W/${name}/up,workdir=$W/${name}/work ${root}`,
      `mount -t proc proc ${root}/proc; mount --rbind /dev ${root}/dev; mount -t tmpfs tmp ${root}/tmp`,
    );
    let workdir = "/";
    for (const step of steps) {
      lines.push(...stepLines(step, root, workdir));
      if (step.keyword === "WORKDIR") workdir = step.text;
    }
  }
  return lines.join("\n");
}
