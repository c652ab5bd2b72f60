// A datagram echo on node:dgram, as its documentation has it. With a second argument each datagram costs so many
// SHA-256 first: usage: node-dgram.mjs PORT [ROUNDS]
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";

const rounds = Number(process.argv[3] ?? 0);
const socket = createSocket({ type: "udp4", recvBufferSize: 4 << 20 });
socket.on("message", (bytes, { address, port }) => {
  for (let round = 0; round < rounds; round++) createHash("sha256").update(bytes).digest();
  socket.send(bytes, port, address);
});
socket.bind(Number(process.argv[2]), "127.0.0.1", () => {
  const { address, port } = socket.address();
  console.log(JSON.stringify({ msg: "ready", listeners: [{ name: "echo", address: `udp://${address}:${port}` }] }));
});
