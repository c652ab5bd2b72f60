/** Streams of events with real sockets: slow readers, readers that stopped, and nobody at all. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { PageStreams, type PageStreamsOptions } from "#src/admin/page-streams.js";
import { until, within } from "../support/until.js";

interface Rig {
  readonly streams: PageStreams;
  readonly server: Server;
  watch(): Promise<Socket>;
}

async function serve(t: TestContext, options: PageStreamsOptions): Promise<Rig> {
  const streams = new PageStreams(options);
  const server = createServer((_, response) => streams.add(response)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const watch = async (): Promise<Socket> => {
    const socket = connect(port, "127.0.0.1").on("error", () => {});
    t.after(() => socket.destroy());
    const before = streams.size;
    socket.write("GET /events HTTP/1.1\r\nhost: x\r\n\r\n");
    await until("it watches", () => streams.size > before);
    return socket;
  };
  return { streams, server, watch };
}

/** Counts events until there are so many. */
async function events(socket: Socket, many: number): Promise<void> {
  let [seen, rest] = [0, ""];
  for await (const chunk of socket) {
    rest += String(chunk);
    seen += rest.split("data: ").length - 1;
    rest = rest.slice(-5);
    if (seen >= many) return;
  }
  assert.fail(`the stream ended after ${seen} events`);
}

const LARGE = "x".repeat(1 << 20);

test("who does not read holds up nobody, costs one event at most, and is cut off", async (t) => {
  let made = 0;
  const next = async (): Promise<string> => {
    made++;
    return LARGE;
  };
  const { streams, server, watch } = await serve(t, { next, periodMs: 5, stalledMs: 500 });
  let most = 0;
  const responses: { writableLength: number }[] = [];
  server.on("request", (_, response) => responses.push(response));
  const asleep = await watch();
  asleep.pause();
  const awake = await watch();
  const look = setInterval(() => {
    for (const { writableLength } of responses) most = Math.max(most, writableLength);
  }, 1);
  await within("the other gets its events", events(awake, 30));
  clearInterval(look);
  assert.ok(made >= 30);
  assert.ok(most > 0 && most < 2 * LARGE.length, `${most} bytes waited`);
  await until("it is cut off", () => streams.size <= 1);
});

test("nobody watches: nothing is asked", async (t) => {
  let made = 0;
  const next = async (): Promise<string> => String(made++);
  const { streams, watch } = await serve(t, { next, periodMs: 5 });
  const socket = await watch();
  await until("events are made", () => made > 3);
  socket.destroy();
  await until("it has gone", () => streams.size === 0);
  const then = made;
  const other = await watch();
  await until("and again", () => made > then + 3);
  other.destroy();
  await until("it has gone too", () => streams.size === 0);
  const last = made;
  let ticks = 0;
  const { watch: watchClock } = await serve(t, { next: async () => String(ticks++), periodMs: 5 });
  await watchClock();
  await until("others have had ten events meanwhile", () => ticks > 10);
  // One that was begun may still have ended; no timer begins another.
  assert.ok(made <= last + 1);
});

test("figures that take long are not asked for twice at a time", async (t) => {
  let [now, most, made] = [0, 0, 0];
  const next = async (): Promise<string> => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setTimeout(resolve, 20));
    now--;
    return String(made++);
  };
  const { watch } = await serve(t, { next, periodMs: 2 });
  await watch();
  await until("some were made", () => made > 5);
  // The first of a newcomer, and the one that is due.
  assert.ok(most <= 2, `${most} at a time`);
});

test("after its time a stream ends in order, and its reader comes again", async (t) => {
  const { streams, watch } = await serve(t, { next: async () => "1", periodMs: 5, mostMs: 30 });
  const socket = await watch();
  socket.resume();
  await within("the end", once(socket, "end"));
  assert.equal(streams.size, 0);
});
