/** A little of every kind of traffic, until the test ends: lines over plain TCP and TLS, connections that come and go, datagrams. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect as connectPlain, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { connect as connectTls } from "node:tls";

const EVERY_MS = 50;

export interface TrafficPorts {
  readonly lines: number;
  readonly secure?: number;
  readonly udp?: number;
}

/** Sends a line, reads the answer and closes. Whatever goes wrong (a worker was killed) is the server's business. */
async function visit(socket: Socket): Promise<void> {
  socket.on("error", () => {});
  socket.write("visit\n");
  await Promise.race([once(socket, "data"), once(socket, "close")]).catch(() => {});
  socket.end();
}

export function startTraffic(t: TestContext, { lines, secure, udp }: TrafficPorts): void {
  const datagrams = createSocket("udp4").on("error", () => {});
  let held: Socket[] = [];
  const timer = setInterval(() => {
    held = held.filter(({ destroyed }) => !destroyed);
    while (held.length < 8) held.push(connectPlain(lines, "127.0.0.1").on("error", () => {}));
    for (const socket of held) {
      socket.resume();
      socket.write("hello\n");
    }
    void visit(connectPlain(lines, "127.0.0.1"));
    if (secure !== undefined) {
      void visit(connectTls({ port: secure, host: "127.0.0.1", rejectUnauthorized: false }));
    }
    if (udp !== undefined) datagrams.send("ping", udp, "127.0.0.1");
  }, EVERY_MS);
  t.after(() => {
    clearInterval(timer);
    datagrams.close();
    for (const socket of held) socket.destroy();
  });
}
