// The node:net peer: what a good Node programmer writes with the standard library. It has the duties that headrace
// has, so it cuts real lines or frames out of the stream, keeps the incomplete end for the next chunk, hands each
// message to a handler and sends the replies of one chunk in one write. Reading pauses while the peer does not read.
//
// Usage: node node-net.mjs line|frame PORT [CERTIFICATE KEY] (port 0 lets the kernel choose; with a certificate over
// TLS, by node:tls). Prints one line when it listens.
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { createServer as createTlsServer } from "node:tls";

const NEWLINE = 10;
const PREFIX_BYTES = 4;
const MAX_FRAME_BYTES = 1024 * 1024;
const NOTHING = Buffer.alloc(0);

/** The service: a message in, the reply out. */
const echo = (message) => message;

/** Answers every whole line of `input` and returns the incomplete end, or undefined when it is too long. */
function cutLines(input, replies) {
  let start = 0;
  for (let end = input.indexOf(NEWLINE); end !== -1; end = input.indexOf(NEWLINE, start)) {
    replies.push(echo(input.subarray(start, end + 1)));
    start = end + 1;
  }
  return input.length - start > MAX_FRAME_BYTES ? undefined : input.subarray(start);
}

/** The same for frames with a 4-byte big-endian length in front. An empty or oversized frame breaks the protocol. */
function cutFrames(input, replies) {
  let start = 0;
  while (input.length - start >= PREFIX_BYTES) {
    const length = input.readUInt32BE(start);
    if (length === 0 || length > MAX_FRAME_BYTES) return undefined;
    const end = start + PREFIX_BYTES + length;
    if (end > input.length) break;
    replies.push(echo(input.subarray(start, end)));
    start = end;
  }
  return input.subarray(start);
}

function serve(socket, cut) {
  let rest = NOTHING;
  socket.on("data", (chunk) => {
    const replies = [];
    const left = cut(rest.length === 0 ? chunk : Buffer.concat([rest, chunk]), replies);
    if (left === undefined) return socket.destroy();
    // A copy, because a view would keep the whole chunk (64 KiB of the socket's slab) alive while the client is idle.
    rest = left.length === 0 ? NOTHING : Buffer.from(left);
    if (replies.length === 0) return;
    const reply = replies.length === 1 ? replies[0] : Buffer.concat(replies);
    if (!socket.write(reply)) {
      socket.pause();
      socket.once("drain", () => socket.resume());
    }
  });
  socket.on("error", () => socket.destroy());
}

const cut = { line: cutLines, frame: cutFrames }[process.argv[2]];
if (cut === undefined) throw new Error("usage: node-net.mjs line|frame PORT [CERTIFICATE KEY]");

/** The cipher suite that the others agree on too, which is cheaper than Node's first choice. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
const [certificate, key] = process.argv.slice(4);
const server =
  certificate === undefined
    ? createServer({ noDelay: true }, (socket) => serve(socket, cut))
    : createTlsServer(
        { noDelay: true, cert: readFileSync(certificate), key: readFileSync(key), ciphers: CIPHERS },
        (socket) => serve(socket, cut),
      );
server.listen({ host: "127.0.0.1", port: Number(process.argv[3]), backlog: 65_535 }, () => {
  const { address, port } = server.address();
  console.log(JSON.stringify({ msg: "ready", listeners: [{ name: "echo", address: `${address}:${port}` }] }));
});
