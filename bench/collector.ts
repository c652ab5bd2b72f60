/** Somewhere for traces to go: takes whatever comes, in the harness's own process, which has other cores than the server. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** Returns its URL. It ends with the process, and does not keep it. */
export async function openCollector(): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    request.once("end", () => response.setHeader("content-type", "application/json").end("{}"));
  });
  server.unref();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
