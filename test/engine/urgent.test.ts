/** TCP urgent data: recv() stops short of it, so that a short read does not mean an empty socket. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openLoopback } from "../support/loopback.js";
import { runPython } from "../support/script.js";
import { until } from "../support/until.js";

/** Leaves everything in the kernel before the engine looks: one edge announces all of it. */
const SENDER = `
import socket, sys, time
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
peer.sendall(b"before")
peer.send(b"!", socket.MSG_OOB)
peer.sendall(b"after")
peer.settimeout(20)
print(peer.recv(2).decode())
`;

test("bytes behind urgent data are read, not left until more arrive", async (t) => {
  const loopback = openLoopback(t);
  loopback.on = (recorder) => ({
    onOpen: () => recorder.pause(),
    onData: () => {
      if (recorder.text.includes("after")) recorder.send("ok");
    },
  });
  const sender = runPython(t, SENDER, String(loopback.port));
  const served = await loopback.nth(0);
  await until("all bytes in the kernel", () => loopback.engine.unread(served.slot, served.generation) >= 6);
  await new Promise((resolve) => setTimeout(resolve, 100));
  served.resume();
  const outcome = await sender;
  assert.equal(outcome.stdout.trim(), "ok", `the engine got "${served.text}"`);
  assert.match(served.text, /^before!?after$/);
});
