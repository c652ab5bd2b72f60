/** A worker process. The primary forks this file by path; it is of no use by itself. */
import { ignoreSignals } from "./signals.ts";

ignoreSignals();
if (!process.send) {
  process.stderr.write("this file is started by `headrace run`\n");
  process.exit(2);
}
const { runWorker } = await import("./worker.ts");
runWorker();
