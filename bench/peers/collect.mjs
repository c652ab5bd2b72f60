// Loaded into Node servers of the memory suite, and nowhere else, with NODE_OPTIONS=--import: SIGWINCH, which does
// nothing otherwise, collects the garbage. So what is weighed is what connections need and not what V8 has not yet
// swept. The cost of the handler is the same at 5,000 and at 15,000 connections and falls out of the slope.
//
// The inspector's collection, because it also gives free pages back: after gc() of --expose-gc the same server weighed
// 7 MiB more or less from run to run, after this one 0.1 MiB.
import { Session } from "node:inspector";
import { isMainThread } from "node:worker_threads";

if (isMainThread) {
  const session = new Session();
  session.connect();
  process.on("SIGWINCH", () => session.post("HeapProfiler.collectGarbage"));
}
