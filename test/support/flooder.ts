/** A process that connects again and again, as fast as it is told or can, and asks each server that lets it in for a line. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { moduleUrl } from "./script.js";
import { within } from "./until.js";

/** Arguments: port, own address, connects in all, connects a second. */
const FLOODER = `
import { Engine } from ${moduleUrl("#src/engine/engine.js")};
import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
const [port, , all, perSecond] = process.argv.slice(1).map(Number);
const host = process.argv[2];
const AT_ONCE = 1_000;
const options = packSocketOptions(DEFAULT_SOCKET);
const engine = new Engine({ slots: 4096 });
const figures = { attempts: 0, refused: 0, served: 0, ms: 0 };
const began = performance.now();
let open = 0;
function attempt() {
  figures.attempts++;
  open++;
  let slot, generation;
  const end = (counter) => {
    figures[counter]++;
    open--;
    engine.reset(slot, generation);
  };
  const owner = {
    onOpen() {
      const at = engine.reserve(2);
      engine.output.write("?\\n", at);
      engine.submit(slot, generation, at, 2, true);
    },
    onData: () => end("served"),
    onEnd: () => end("refused"),
    onError: () => end("refused"),
    onWritable() {},
    onBlocked() {},
  };
  slot = engine.connect("127.0.0.1", port, host, options, owner);
  if (slot < 0) throw new Error("connect: " + slot);
  generation = engine.generation(slot);
}
const timer = setInterval(() => {
  const due = Math.min(all, Math.ceil(((performance.now() - began) / 1000) * perSecond));
  while (figures.attempts < due && open < AT_ONCE) attempt();
  engine.flush();
  if (figures.attempts < all || open > 0) return;
  clearInterval(timer);
  figures.ms = performance.now() - began;
  engine.shutdown();
  process.stdout.write(JSON.stringify(figures));
}, 2);
`;

export interface Flood {
  readonly port: number;
  /** Connects in all, at most ten thousand of them a second unless told. */
  readonly connects: number;
  readonly perSecond?: number;
  readonly from?: string;
}

export interface FloodReport {
  readonly attempts: number;
  /** Turned away: RST or FIN. */
  readonly refused: number;
  /** Got a reply. */
  readonly served: number;
  readonly ms: number;
}

/** Resolves when every connect has had its answer. */
export async function flood(
  t: TestContext,
  { port, connects, perSecond = 10_000, from = "127.0.0.1" }: Flood,
): Promise<FloodReport> {
  const script = ["--input-type=module", "--eval", FLOODER, port, from, connects, perSecond].map(String);
  const child = spawn(process.execPath, script, { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  let report = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    report += text;
  });
  await within("the flood to end", once(child, "close"), 60_000);
  return JSON.parse(report) as FloodReport;
}
