/** Who echoes datagrams: headrace, C with recvmmsg and sendmmsg, node:dgram; each also with work to do for one. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { buildProgram, HEADRACE_MAIN, type Peer, ROOT, SOURCES } from "../peers.ts";

const INDEX = pathToFileURL(join(ROOT, "dist", "index.js")).href;

function headrace(service: string, env: Readonly<Record<string, string>>): Peer {
  const address = ["--listen", "udp://127.0.0.1:0", "--workers", "1"];
  return {
    id: "headrace",
    name: "headrace",
    argv: () => [process.execPath, HEADRACE_MAIN, "run", service, ...address],
    env,
    runsNode: true,
  };
}

function nodeDgram(rounds: number): Peer {
  const script = join(SOURCES, "node-dgram.mjs");
  return {
    id: "node-dgram",
    name: "node:dgram",
    argv: () => [process.execPath, script, "0", String(rounds)],
    env: {},
    runsNode: true,
  };
}

/** The echo. Without a compiler there is no C peer. */
export function echoPeers(): Peer[] {
  const binary = buildProgram("echo-udp");
  const c: Peer[] =
    binary === undefined
      ? []
      : [{ id: "c-udp", name: "C recvmmsg", argv: () => [binary, "0"], env: {}, runsNode: false }];
  return [headrace("echo-udp", {}), ...c, nodeDgram(0)];
}

/** The same with so many SHA-256 for each datagram. */
export function workPeers(rounds: number): Peer[] {
  const service = join(ROOT, "bench", "udp", "work-service.mjs");
  return [headrace(service, { BENCH_INDEX: INDEX, BENCH_ROUNDS: String(rounds) }), nodeDgram(rounds)];
}
