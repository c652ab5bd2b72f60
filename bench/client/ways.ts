/** The ways in which a program may ask another server, each with as many callers side by side, every reply checked. */
import { connect } from "node:net";
import { type Client, defineClient, frame } from "headrace";

/** What asks, and what it leaves behind. */
export interface Way {
  readonly name: string;
  /** What the server speaks. */
  readonly speaks: "frame" | "rpc";
  /** A connection for each call: fewer calls, so that the ports last. */
  readonly costly: boolean;
  open(target: string): Asking;
}

interface Asking {
  call(payload: Buffer): Promise<Buffer>;
  /** Connections so far. */
  readonly opened: number;
  close(): Promise<void>;
}

const FRAME_PREFIX_BYTES = 4;

function pooled(client: Client<string | Uint8Array, Buffer>): Asking {
  return {
    call: (payload) => client.call(payload),
    get opened() {
      return client.stats().counts.opened;
    },
    close: () => client.close(),
  };
}

function clientEach(target: string): Asking {
  let opened = 0;
  return {
    async call(payload) {
      const client = defineClient({ name: "each", codec: frame(), targets: [target] });
      const reply = await client.call(payload);
      opened += client.stats().counts.opened;
      await client.close();
      return reply;
    },
    get opened() {
      return opened;
    },
    close: () => Promise.resolve(),
  };
}

/** As programs do it that have no pool. */
function socketEach(target: string): Asking {
  const port = Number(target.split(":").at(-1));
  let opened = 0;
  return {
    call: (payload) =>
      new Promise((resolve, reject) => {
        const chunks: Buffer[] = [];
        let length = 0;
        const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => {
          opened += 1;
          const bytes = Buffer.alloc(FRAME_PREFIX_BYTES + payload.length);
          bytes.writeUInt32BE(payload.length);
          payload.copy(bytes, FRAME_PREFIX_BYTES);
          socket.write(bytes);
        });
        socket.on("error", reject);
        socket.on("data", (chunk) => {
          chunks.push(chunk);
          length += chunk.length;
          if (length < FRAME_PREFIX_BYTES + payload.length) return;
          socket.end();
          resolve(Buffer.concat(chunks).subarray(FRAME_PREFIX_BYTES));
        });
      }),
    get opened() {
      return opened;
    },
    close: () => Promise.resolve(),
  };
}

export const WAYS: readonly Way[] = [
  {
    name: "rpc, pool",
    speaks: "rpc",
    costly: false,
    open: (target) => pooled(defineClient({ name: "bench", rpc: true, targets: [target] })),
  },
  {
    name: "frames, pool",
    speaks: "frame",
    costly: false,
    open: (target) => pooled(defineClient({ name: "bench", codec: frame(), targets: [target] })),
  },
  { name: "frames, a client for each call", speaks: "frame", costly: true, open: clientEach },
  { name: "frames, node:net for each call", speaks: "frame", costly: true, open: socketEach },
];
