/** Messages between processes: what sender and receiver are told, and the waiting for them in the event loop. */
import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { addon, type ChannelWatch } from "#src/os/addon.js";
import {
  channelUnwatch,
  channelWatch,
  closeDescriptor,
  openChannel,
  receiveMessage,
  sendMessage,
} from "#src/os/descriptors.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

const NOBODY = 65_534;

const bytes = (text: string): Buffer => Buffer.from(text);

/** Collects everything that comes over a channel until it is gone. */
function collect(t: TestContext, channel: number): { readonly texts: string[]; readonly fds: number[]; gone: boolean } {
  const heard = { texts: [] as string[], fds: [] as number[], gone: false };
  const into = Buffer.alloc(1_000);
  const watch: ChannelWatch = channelWatch(channel, () => {
    const message = receiveMessage(channel, into);
    assert.notEqual(message, "empty", "called though nothing was there");
    if (message === "gone") {
      heard.gone = true;
      channelUnwatch(watch);
    } else if (message !== "empty") {
      heard.texts.push(into.toString("utf8", 0, message.length));
      heard.fds.push(...message.fds);
    }
  });
  t.after(() => channelUnwatch(watch));
  return heard;
}

test("sent, received, empty; then gone, in either direction", async () => {
  const before = openDescriptors();
  const [a, b] = openChannel();
  const into = Buffer.alloc(100);
  assert.equal(receiveMessage(b, into), "empty");
  const file = openSync("/dev/null", "r");
  assert.equal(sendMessage(a, bytes("one"), [file, file]), "sent");
  assert.equal(sendMessage(a, bytes("two"), []), "sent");
  const first = receiveMessage(b, into);
  assert.ok(typeof first !== "string");
  assert.equal(into.toString("utf8", 0, first.length), "one");
  assert.equal(first.fds.length, 2);
  for (const fd of [file, ...first.fds]) closeDescriptor(fd);
  closeDescriptor(a);
  assert.deepEqual(receiveMessage(b, into), { length: 3, fds: [] });
  assert.equal(receiveMessage(b, into), "gone");
  assert.equal(receiveMessage(b, into), "gone");
  assert.equal(sendMessage(b, bytes("x"), []), "gone");
  closeDescriptor(b);
  await sameDescriptors(before);
});

test("what left is received also when the sender closed without having read our messages", () => {
  const [a, b] = openChannel();
  sendMessage(b, bytes("never read"), []);
  sendMessage(a, bytes("acknowledged"), []);
  closeDescriptor(a);
  const into = Buffer.alloc(100);
  assert.deepEqual(receiveMessage(b, into), { length: 12, fds: [] });
  assert.equal(receiveMessage(b, into), "gone");
  closeDescriptor(b);
  // The other way round: the sender hears of it first.
  const [c, d] = openChannel();
  sendMessage(d, bytes("never read"), []);
  sendMessage(c, bytes("acknowledged"), []);
  closeDescriptor(c);
  assert.equal(sendMessage(d, bytes("x"), []), "gone");
  assert.deepEqual(receiveMessage(d, into), { length: 12, fds: [] });
  closeDescriptor(d);
});

test("full: nothing was sent, and there is room again once the receiver has read", () => {
  const [a, b] = openChannel();
  const large = Buffer.alloc(60_000);
  let sent = 0;
  while (sendMessage(a, large, []) === "sent") sent += 1;
  assert.ok(sent > 0);
  assert.equal(sendMessage(a, large, []), "full");
  const into = Buffer.alloc(60_000);
  for (let i = 0; i < sent; i++) assert.ok(typeof receiveMessage(b, into) !== "string");
  assert.equal(receiveMessage(b, into), "empty");
  assert.equal(sendMessage(a, large, []), "sent");
  for (const fd of [a, b]) closeDescriptor(fd);
});

test("what no later try could send throws", () => {
  const [a, b] = openChannel();
  const errno = (name: string) => ({ code: "system", fields: { errno: name } });
  assert.throws(() => sendMessage(a, Buffer.alloc(64 * 1024 + 1), []), errno("EMSGSIZE"));
  assert.throws(() => sendMessage(a, Buffer.alloc(0), []), errno("EINVAL"));
  assert.throws(() => sendMessage(a, bytes("x"), [9_999]), errno("EBADF"));
  sendMessage(a, bytes("longer"), []);
  assert.throws(() => receiveMessage(b, Buffer.alloc(3)), errno("EMSGSIZE"));
  for (const fd of [a, b]) closeDescriptor(fd);
});

test("watched: each message is announced, those that were there before too, and then the end", async (t) => {
  const before = openDescriptors();
  const [a, b] = openChannel();
  sendMessage(a, bytes("early"), [a]);
  const heard = collect(t, b);
  await until("the early one", () => heard.texts.length === 1);
  for (let i = 0; i < 50; i++) sendMessage(a, bytes(String(i)), []);
  await until("all", () => heard.texts.length === 51);
  assert.deepEqual(heard.texts, ["early", ...Array.from({ length: 50 }, (_, i) => String(i))]);
  assert.equal(heard.gone, false);
  for (const fd of [a, ...heard.fds]) closeDescriptor(fd);
  await until("the end", () => heard.gone);
  closeDescriptor(b);
  await sameDescriptors(before);
});

test("watched: a peer that closed without reading is announced once its last words were taken", async (t) => {
  const [a, b] = openChannel();
  const heard = collect(t, b);
  sendMessage(b, bytes("never read"), []);
  for (const word of ["last", "words"]) sendMessage(a, bytes(word), []);
  closeDescriptor(a);
  await until("the end", () => heard.gone);
  assert.deepEqual(heard.texts, ["last", "words"]);
  closeDescriptor(b);
});

test("a message that is not taken is announced again in each turn of the loop", async (t) => {
  const [a, b] = openChannel();
  let calls = 0;
  const watch = channelWatch(b, () => {
    calls += 1;
  });
  t.after(() => channelUnwatch(watch));
  sendMessage(a, bytes("x"), []);
  await until("three calls", () => calls >= 3);
  receiveMessage(b, Buffer.alloc(1));
  const then = calls;
  for (let i = 0; i < 10; i++) await turn();
  assert.ok(calls <= then + 1);
  channelUnwatch(watch);
  for (const fd of [a, b]) closeDescriptor(fd);
});

test("unwatched: nothing is heard any more, and the descriptor may be closed and its number used again", async () => {
  const [a, b] = openChannel();
  let calls = 0;
  const watch = channelWatch(b, () => {
    calls += 1;
    channelUnwatch(watch);
    channelUnwatch(watch);
    closeDescriptor(b);
  });
  sendMessage(a, bytes("x"), []);
  await until("a call", () => calls === 1);
  closeDescriptor(a);
  const [c, d] = openChannel();
  assert.ok([c, d].includes(b), "the same number");
  sendMessage(c, bytes("y"), []);
  sendMessage(d, bytes("y"), []);
  for (let i = 0; i < 10; i++) await turn();
  assert.equal(calls, 1);
  for (const fd of [c, d]) closeDescriptor(fd);
});

test("one watch for a descriptor, and none for what cannot be watched", () => {
  const [a, b] = openChannel();
  const watch = channelWatch(a, () => {});
  assert.throws(() => channelWatch(a, () => {}), { code: "system" });
  assert.throws(() => channelWatch(-1, () => {}), { code: "system" });
  const file = openSync("/proc/self/stat", "r");
  assert.throws(() => channelWatch(file, () => {}), { code: "system" });
  assert.throws(() => addon().channelWatch(b, "no" as never), TypeError);
  channelUnwatch(watch);
  for (const fd of [a, b, file]) closeDescriptor(fd);
});

for (const [what, script, expected] of [
  [
    "keeps the process alive until it is ended",
    "setTimeout(() => { channelUnwatch(watch); console.log('end'); }, 50);",
    "end\n",
  ],
  ["does not keep process.exit() from ending it", "setTimeout(() => process.exit(0), 5);", ""],
  [
    "is not collected with its handle",
    "watch = undefined; gc(); setTimeout(() => { gc(); sendMessage(b, Buffer.from('x'), []); }, 5);",
    "heard\n",
  ],
] as const) {
  test(`a watch ${what}`, async (t) => {
    const outcome = await runScript(
      t,
      `
      import v8 from "node:v8";
      import vm from "node:vm";
      import { channelUnwatch, channelWatch, openChannel, sendMessage } from ${moduleUrl("#src/os/descriptors.js")};
      v8.setFlagsFromString("--expose-gc");
      const gc = vm.runInNewContext("gc");
      const [a, b] = openChannel();
      let watch = channelWatch(a, () => { console.log("heard"); process.exit(0); });
      ${script}
      `,
    );
    assert.deepEqual(outcome, { code: 0, signal: null, stdout: expected, stderr: "" });
  });
}

test("an error thrown by a listener is uncaught, not swallowed", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { channelWatch, openChannel, sendMessage } from ${moduleUrl("#src/os/descriptors.js")};
    const [a, b] = openChannel();
    channelWatch(a, () => { throw new Error("a bug"); });
    sendMessage(b, Buffer.from("x"), []);
    `,
  );
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /Error: a bug/);
});

test("more descriptors on their way than a user may have: full, until the receiver has taken some", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { closeDescriptor, openChannel, receiveMessage, sendMessage } from ${moduleUrl("#src/os/descriptors.js")};
    const [a, b] = openChannel();
    // The limit is not for root (unix(7), ETOOMANYREFS).
    if (process.getuid() === 0) process.setuid(${NOBODY});
    const fds = new Array(50).fill(0);
    let sent = 0;
    let answer;
    while ((answer = sendMessage(a, Buffer.from("x"), fds)) === "sent") sent++;
    const { fds: received } = receiveMessage(b, Buffer.alloc(10));
    for (const fd of received) closeDescriptor(fd);
    console.log(answer, sent, received.length, sendMessage(a, Buffer.from("x"), fds));
    `,
    "ulimit -n 128",
  );
  assert.equal(outcome.stdout, "full 3 50 sent\n", outcome.stderr);
});
