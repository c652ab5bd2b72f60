/**
 * Entry of a load process: does what run.ts says over IPC, in the order of its messages, and leaves when told, or when
 * the process that started it is gone. Ctrl-C reaches the whole process group; only run.ts acts on it.
 */
import { HeadraceError, messageOf } from "../base/errors.ts";
import { DatagramGenerator } from "./datagrams.ts";
import { Generator } from "./generator.ts";
import type { FromLoad, ToLoad } from "./report.ts";

const PROGRESS_MS = 100;

let generator: Generator | DatagramGenerator | undefined;
let stopping = false;

function say(message: FromLoad): void {
  process.send?.(message);
}

function fail(error: unknown): void {
  const code = error instanceof HeadraceError ? error.code : "system";
  say({ type: "failed", code, message: messageOf(error) });
}

async function act(message: ToLoad): Promise<void> {
  switch (message.type) {
    case "begin": {
      const { share } = message;
      generator = share.udp ? new DatagramGenerator(share) : new Generator(share);
      const { tally } = generator;
      const progress = setInterval(() => say({ type: "progress", decided: generator?.decided ?? 0 }), PROGRESS_MS);
      await generator.connect();
      clearInterval(progress);
      say({ type: "connected", opened: tally.opened });
      break;
    }
    case "go":
      generator?.go();
      break;
    case "measure":
      generator?.measure();
      break;
    case "stop":
      if (stopping || !generator) return;
      stopping = true;
      say({ type: "report", report: await generator.stop() });
      break;
    case "leave":
      await generator?.leave();
      process.exit(0);
  }
}

process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(1));
process.on("message", (message: ToLoad) => {
  act(message).catch(fail);
});
