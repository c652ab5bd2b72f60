/** The services that `headrace run` knows by name. They work on bytes: what comes back is what was sent. */
import { frame } from "../codec/frame.ts";
import { line } from "../codec/line.ts";
import { raw } from "../codec/raw.ts";
import { definePool } from "../tasks/define.ts";
import { type AnyService, defineService } from "./define.ts";
import { sha256 } from "./digest.ts";
import { defineRpcService } from "./rpc.ts";
import { type AnyUdpService, defineUdpService } from "./udp.ts";

/** What they answer instead, while the server is overloaded. Raw bytes have no reply: there the connection is closed. */
const busy = (): string => "busy";

/** Each line comes back. */
const echoLine = defineService({
  name: "echo-line",
  codec: line({ as: "borrowed" }),
  onMessage: (bytes) => bytes,
  busy,
});

/** Each length-prefixed frame comes back. */
const echoFrame = defineService({
  name: "echo-frame",
  codec: frame({ as: "borrowed" }),
  onMessage: (bytes) => bytes,
  busy,
});

/** All bytes come back. */
const echoRaw = defineService({ name: "echo-raw", codec: raw({ as: "borrowed" }), onMessage: (bytes) => bytes });

/** SHA-256 of each line is computed, then the line comes back: a fixed amount of work per message. */
const hashLine = defineService({
  name: "hash-line",
  codec: line({ as: "borrowed" }),
  onMessage(bytes) {
    sha256(bytes);
    return bytes;
  },
  busy,
});

const digest = definePool<typeof import("./digest.ts")>({
  name: "digest",
  module: new URL("./digest.js", import.meta.url),
});

/** SHA-256 of each frame is computed in a thread, then the frame comes back. */
const hashFrame = defineService({
  name: "hash-frame",
  codec: frame(),
  concurrency: "ordered",
  pools: [digest],
  async onMessage(bytes, context) {
    await context.run(digest, "sha256", bytes);
    return bytes;
  },
  busy,
});

/** Each request's payload comes back. */
const echoRpc = defineRpcService({ name: "echo-rpc", as: "borrowed", onRequest: (payload) => payload });

/** Each datagram comes back. */
const echoUdp = defineUdpService({ name: "echo-udp", onDatagram: (bytes) => bytes });

/** By name: those for connections, */
export const BUILTIN_SERVICES: ReadonlyMap<string, AnyService> = new Map(
  [echoLine, echoFrame, echoRaw, echoRpc, hashLine, hashFrame].map((service) => [service.name, service]),
);
/** and those for datagrams. */
export const BUILTIN_UDP_SERVICES: ReadonlyMap<string, AnyUdpService> = new Map([[echoUdp.name, echoUdp]]);
