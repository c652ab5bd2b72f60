/** The services that `headrace run` knows by name. They work on bytes: what comes back is what was sent. */
import { createHash } from "node:crypto";
import { frame } from "../codec/frame.ts";
import { line } from "../codec/line.ts";
import { raw } from "../codec/raw.ts";
import { type AnyService, defineService } from "./define.ts";

/** Each line comes back. */
const echoLine = defineService({ name: "echo-line", codec: line({ as: "borrowed" }), onMessage: (bytes) => bytes });

/** Each length-prefixed frame comes back. */
const echoFrame = defineService({ name: "echo-frame", codec: frame({ as: "borrowed" }), onMessage: (bytes) => bytes });

/** All bytes come back. */
const echoRaw = defineService({ name: "echo-raw", codec: raw({ as: "borrowed" }), onMessage: (bytes) => bytes });

/** SHA-256 of each line is computed, then the line comes back: a fixed amount of work per message. */
const hashLine = defineService({
  name: "hash-line",
  codec: line({ as: "borrowed" }),
  onMessage(bytes) {
    createHash("sha256").update(bytes).digest();
    return bytes;
  },
});

/** By name. */
export const BUILTIN_SERVICES: ReadonlyMap<string, AnyService> = new Map(
  [echoLine, echoFrame, echoRaw, hashLine].map((service) => [service.name, service]),
);
