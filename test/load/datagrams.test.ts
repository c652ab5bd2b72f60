/** `headrace bench udp://…`: every answer is checked, a missing one is lost and not waited for, and nonsense is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { defineUdpService } from "#src/service/udp.js";
import { headrace } from "../support/command.js";
import { openUdpServing } from "../support/udp.js";

const BRIEF = ["--duration", "300ms", "--warmup", "0", "--json"];

async function bench(port: number, ...args: string[]) {
  const { code, stdout, stderr } = await headrace(["bench", `udp://127.0.0.1:${port}`, ...BRIEF, ...args]);
  const result = JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}");
  return { code, stderr, messages: result.messages, connections: result.connections };
}

test("closed and open loop, in two processes: all answered, all right", async (t) => {
  const { port, figures } = await openUdpServing(t, defineUdpService({ onDatagram: (bytes) => bytes }));
  for (const args of [
    ["--pipeline", "4"],
    ["--rate", "500"],
    ["--size", "1400"],
    ["--size", "8"],
  ]) {
    const { code, stderr, messages, connections } = await bench(
      port,
      "--connections",
      "4",
      "--processes",
      "2",
      ...args,
    );
    assert.equal(code, 0, stderr);
    assert.equal(connections.opened, 4);
    assert.ok(messages.received > 50, `${messages.received}`);
    assert.deepEqual([messages.mismatched, messages.outstanding], [0, 0]);
    assert.equal(messages.verified, messages.received);
  }
  assert.equal(figures().received, figures().sent);
});

test("answers that are lost, and answers that are wrong, are counted and make it fail", async (t) => {
  let nth = 0;
  const lossy = defineUdpService({ onDatagram: (bytes) => (nth++ % 10 === 9 ? undefined : bytes) });
  const lost = await bench((await openUdpServing(t, lossy)).port, "--rate", "500", "--connections", "2");
  assert.equal(lost.code, 1);
  assert.match(lost.stderr, /\d+ messages got no reply/);
  assert.ok(lost.messages.outstanding >= 10 && lost.messages.outstanding < 40, `${lost.messages.outstanding}`);
  const wrong = defineUdpService({
    onDatagram(bytes) {
      bytes[40] = 0;
      return bytes;
    },
  });
  const changed = await bench((await openUdpServing(t, wrong)).port, "--rate", "100");
  assert.equal(changed.code, 1);
  assert.ok(changed.messages.mismatched > 10);
  assert.equal(changed.messages.verified, 0);
});

test("what means nothing for datagrams is refused", async () => {
  for (const [args, says] of [
    [["--flood"], /--flood: is not for UDP/],
    [["--codec", "line"], /--codec: means nothing for UDP/],
    [["--size", "7"], /--size: "7" is out of range; allowed: 8 to 65507/],
    [["--connections", "65"], /up to 64 flows in each of --processes/],
  ] as const) {
    const { code, stderr } = await headrace(["bench", "udp://127.0.0.1:9", ...args]);
    assert.equal(code, 2);
    assert.match(stderr, says);
  }
});
