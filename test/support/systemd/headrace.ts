/** headrace installed in a rig as deploy/systemd/README.md says: the units as they are, a release in /opt, its file. */
import { createServer } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { ServerStatus } from "#src/control/status.js";
import { packageRoot } from "#src/os/addon.js";
import { until } from "../until.js";
import { type Rig, type RigOptions, startRig } from "./rig.js";

const UNITS = join(packageRoot(), "deploy", "systemd");
const MAIN = "/opt/headrace/dist/cli/main.js";
const FILE = "/etc/headrace/headrace.yaml";
const CONTROL = "/run/headrace/control.sock";

export interface InstallOptions extends RigOptions {
  /** `[Service]` lines of a drop-in. */
  readonly service?: string;
  readonly workers?: number;
  /** Instead of echo-line: a module's text; `defineService` and `line` are in scope. */
  readonly body?: string;
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address ? address.port : 0;
}

export class InstalledHeadrace {
  readonly rig: Rig;
  readonly port: number;
  readonly #options: InstallOptions;
  #releases = 1;

  constructor(rig: Rig, port: number, options: InstallOptions) {
    this.rig = rig;
    this.port = port;
    this.#options = options;
  }

  /** Writes the configuration. `more`: further options; `listeners`: further lines of the list. */
  async configure(more = "", { workers = this.#options.workers ?? 2, listeners = "" } = {}): Promise<void> {
    const { body } = this.#options;
    const service = body === undefined ? "echo-line" : "/etc/headrace/service.mjs";
    const imports = 'import { defineService, line } from "/opt/headrace/dist/index.js";\n';
    if (body !== undefined) await this.rig.write("/etc/headrace/service.mjs", imports + body);
    await this.rig.write(
      FILE,
      `workers: ${workers}
timeouts: { drain: 10s, prove: 500ms, firstByte: off, idle: off }
${more}
listeners:
  - { name: lines, address: "127.0.0.1:${this.port}", service: ${service} }
${listeners}
`,
    );
  }

  /** Drop-in for the service. */
  async dropIn(lines: string): Promise<void> {
    await this.rig.write("/etc/systemd/system/headrace.service.d/test.conf", `[Service]\n${lines}\n`);
    await this.rig.ok("systemctl", "daemon-reload");
  }

  /** Puts another release in the place of the one that /opt/headrace names. Returns its version. */
  async release(edit = "true"): Promise<string> {
    this.#releases += 1;
    const version = `0.0.${this.#releases}`;
    const script = `
      set -e
      cd /opt/releases; mkdir "$1"; cd "$1"
      cp -r ../1/dist ../1/native ../1/package.json .; ln -s ../1/node_modules node_modules
      sed -i 's/"version": "[^"]*"/"version": "'"$2"'"/' package.json
      ${edit}
      ln -sfn "/opt/releases/$1" /opt/headrace`;
    await this.rig.ok("sh", "-c", script, "sh", String(this.#releases), version);
    return version;
  }

  systemctl(...args: string[]): Promise<string> {
    return this.rig.ok("systemctl", ...args);
  }

  /** A property of the service, as `systemctl show` has it. */
  property(name: string): Promise<string> {
    return this.systemctl("show", "-P", name, "headrace.service");
  }

  async mainPid(): Promise<number> {
    return Number(await this.property("MainPID"));
  }

  /** By root, from outside of the service. */
  command(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    return this.rig.run(["node", MAIN, ...args, "--control", CONTROL]);
  }

  async status(): Promise<ServerStatus> {
    const { stdout } = await this.command("status", "--json");
    return JSON.parse(stdout);
  }

  /** To the main process. */
  signal(signal: string): Promise<string> {
    return this.systemctl("kill", "--kill-whom=main", "-s", signal, "headrace.service");
  }

  /** Everything it and systemd wrote about it. */
  journal(): Promise<string> {
    return this.rig.ok("journalctl", "--no-pager", "-o", "cat", "-u", "headrace.service");
  }

  /** Waits until the journal has a line that fits. */
  async logged(line: RegExp): Promise<void> {
    let journal = "";
    const found = async (): Promise<boolean> => {
      journal = await this.journal();
      return line.test(journal);
    };
    await until(`${line} in the journal`, found).catch((error) => {
      throw new Error(`${error.message}\n${journal}`);
    });
  }

  /** Processes in the service's control group. */
  async processes(): Promise<number[]> {
    const group = await this.property("ControlGroup");
    if (group === "") return [];
    const { stdout } = await this.rig.run(["cat", `/sys/fs/cgroup${group}/cgroup.procs`]);
    return stdout.split("\n").filter(Boolean).map(Number);
  }
}

/** A rig with headrace installed, not started. */
export async function installHeadrace(t: TestContext, options: InstallOptions = {}): Promise<InstalledHeadrace> {
  const binds = [
    `${packageRoot()}=/opt/releases/1`,
    `${process.execPath}=/usr/local/bin/node`,
    `${UNITS}=/usr/share/headrace`,
    ...(options.binds ?? []),
  ];
  const rig = await startRig(t, { ...options, binds });
  const server = new InstalledHeadrace(rig, await freePort(), options);
  await rig.ok("ln", "-s", "/opt/releases/1", "/opt/headrace");
  await rig.ok("cp", "/usr/share/headrace/headrace.service", "/etc/systemd/system/");
  await server.configure();
  await server.dropIn(options.service ?? "");
  // As in production; and systemd forgets how a unit ended that nothing refers to.
  await server.systemctl("enable", "headrace");
  return server;
}
