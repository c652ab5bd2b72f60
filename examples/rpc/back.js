/**
 * One of the three back services: it takes its time (BACK_MS) and answers with its name. What it is told, the
 * milliseconds that are left for the request, it writes into its log before it begins.
 */
import { setTimeout as pause } from "node:timers/promises";
import { defineRpcService } from "headrace";

const { BACK_NAME: name = "back", BACK_MS: ms = "10" } = process.env;

export default defineRpcService({
  name,
  async onRequest(payload, context) {
    context.log.info({ told: Math.round(context.remainingMs()) }, "asked");
    // Aborted when the time is up, or when the front service gives the call up: no work is done for nobody.
    await pause(Number(ms), undefined, { signal: context.signal });
    return `${name} of ${payload}`;
  },
});
