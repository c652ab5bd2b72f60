/** The runbook keeps up: every alert has its page, every command and option in it exists, every link leads somewhere. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "#src/os/addon.js";
import { headrace } from "../support/command.js";
import { RUNBOOK } from "../support/runbook.js";

const FILE = join(RUNBOOK, "RUNBOOK.md");
const TEXT = readFileSync(FILE, "utf8");
const RULES = join(packageRoot(), "deploy", "prometheus");
/** Alerts that people have been promised, whatever the rules are. */
const ALERTS = [
  "Down NotReady Degraded ConnectionsLeak ConnectionsNearLimit DescriptorsNearLimit AcceptErrors ListenOverflows",
  "ListenQueueLong Rejecting Shedding QueueLong LoopDelay SlowRequests MemoryPressure WorkerRestarts DeadlineTimeouts",
  "TimeWait GcPauses CertificateExpiry DatagramsDropped LogsDropped Unauthorized",
].flatMap((line) => line.split(" ").map((name) => `Headrace${name}`));
const PROCEDURES = ["Deploy", "Roll back", "Scale", "Drain a host", "Certificates", "Log level", "A leak"];
/** Programs of a Debian machine that the runbook asks for. */
const TOOLS =
  "awk cat cd cp df dmesg export grep head install journalctl node openssl ps pgrep sort ss sudo systemctl tail uniq".split(
    " ",
  );

/** Text below a heading, up to the next. */
function sectionOf(heading: string): string {
  const [, rest] = TEXT.split(new RegExp(`^## ${heading}$`, "m"));
  assert.ok(rest, `RUNBOOK.md has no section "## ${heading}"`);
  return rest.split(/^#{1,2} /m)[0] ?? "";
}

function alertsOfRules(): string[] {
  if (!existsSync(RULES)) return [];
  const files = readdirSync(RULES).filter((name) => name.endsWith(".yml"));
  return files.flatMap((name) => {
    const { groups = [] } = parse(readFileSync(join(RULES, name), "utf8")) as {
      groups?: readonly { readonly rules?: readonly { readonly alert?: string }[] }[];
    };
    return groups.flatMap(({ rules = [] }) => rules.flatMap(({ alert }) => alert ?? []));
  });
}

/** Lines of the sh blocks, each cut into its simple commands. Quotes are kept together. */
function commands(): string[][] {
  const blocks = [...TEXT.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = ""]) => block);
  const inline = [...TEXT.matchAll(/`((?:headrace|\.\/)[^`]*)`/g)].map(([, words = ""]) => words);
  return [...blocks.flatMap((block) => block.split("\n")), ...inline]
    .map((line) => line.replace(/(^|\s)#.*$/, ""))
    .flatMap((line) => (line.match(/(?:'[^']*'|"[^"]*"|[^|'"])+/g) ?? []).filter((each) => each.trim() !== ""))
    .map((line) => line.match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g) ?? []);
}

test("every alert has a section that says what it means, how to look, what to do, whom to wake", () => {
  for (const alert of new Set([...ALERTS, ...alertsOfRules()])) {
    const section = sectionOf(alert);
    for (const part of ["**Means.**", "**Look.**", "```sh", "**Do.**", "**Wake**"]) {
      assert.ok(section.includes(part), `${alert} has no ${part}`);
    }
  }
  for (const procedure of PROCEDURES) assert.match(sectionOf(procedure), /```sh/);
});

test("every script is in it, and helps", () => {
  for (const name of readdirSync(RUNBOOK).filter((each) => /\.(sh|mjs)$/.test(each) && each !== "lib.sh")) {
    assert.ok(TEXT.includes(name), `${name} is not in the runbook`);
  }
});

test("every command in it exists, with its options", async () => {
  const helps = new Map<string, string>();
  const helpOf = async (program: string, first: string): Promise<string> => {
    const key = program === "headrace" ? `headrace ${first}` : program;
    const known = helps.get(key);
    if (known !== undefined) return known;
    const help =
      program === "headrace"
        ? (await headrace([first, "--help"])).stdout
        : execFileSync(join(RUNBOOK, program), ["--help"], { encoding: "utf8" });
    helps.set(key, help);
    return help;
  };
  const { stdout: main } = await headrace(["--help"]);
  let seen = 0;
  for (const [program = "", first = "", ...rest] of commands()) {
    const options = [first, ...rest].filter((word) => /^--[a-z]/.test(word));
    if (program === "headrace") {
      assert.match(main, new RegExp(`^  ${first} `, "m"), `headrace ${first}`);
    } else if (program.startsWith("./")) {
      assert.ok(existsSync(join(RUNBOOK, program)), program);
    } else {
      assert.ok(TOOLS.includes(program), `${program}: a program that the runbook has not asked for so far`);
      continue;
    }
    // Without, it would judge whatever is in the folder of whoever asks.
    if (program === "headrace" && first === "doctor")
      assert.ok(options.includes("--config"), "headrace doctor --config");
    seen++;
    for (const option of options) {
      const help = await helpOf(program, first);
      assert.ok(help.includes(option), `${program} ${first} knows no ${option}`);
    }
  }
  assert.ok(seen > 50, `${seen} commands`);
});

test("every link leads somewhere", () => {
  const anchorsOf = (text: string): string[] =>
    [...text.matchAll(/^#{1,4} (.+)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, "")
        .replaceAll(" ", "-"),
    );
  for (const [, link = ""] of TEXT.matchAll(/\]\(([^)]+)\)/g)) {
    if (/^https?:/.test(link)) continue;
    const [path = "", anchor] = link.split("#");
    const target = path === "" ? FILE : join(dirname(FILE), path);
    assert.ok(existsSync(target), link);
    if (anchor !== undefined) assert.ok(anchorsOf(readFileSync(target, "utf8")).includes(anchor), link);
  }
});

test("what it looks for in the log is what the log says", () => {
  const source = readdirSync(join(packageRoot(), "src"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => readFileSync(join(packageRoot(), "src", name), "utf8"))
    .join("\n")
    .toLowerCase();
  const looked = [...TEXT.matchAll(/journalctl[^|\n]*\| grep -i(E?) ('[^']+'|\w+)/g)];
  assert.ok(looked.length >= 4);
  for (const [, extended, quotedWords = ""] of looked) {
    const words = quotedWords.replaceAll("'", "").toLowerCase();
    for (const phrase of extended ? words.split("|") : [words]) assert.ok(source.includes(phrase), phrase);
  }
});
