/**
 * A service manager's notify socket: a real unix datagram socket (Node has none, so Python holds it) that records what
 * arrives, in order, with the sender's pid as the kernel gives it and what each descriptor is. It deals with a message
 * by closing its descriptors, as systemd does with a barrier.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { EventEmitter, on, once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { TestContext } from "node:test";
import { addon } from "#src/os/addon.js";
import { makeFolder } from "./folder.js";
import { until, within } from "./until.js";

export interface Notification {
  /** SCM_CREDENTIALS. */
  readonly pid: number;
  readonly lines: readonly string[];
  /** "socket:[123]" */
  readonly fds: readonly string[];
}

/** Ends when its input is closed: with the test, whatever becomes of that. */
const RECEIVER = `
import array, json, os, select, socket, struct, sys
path = sys.argv[1]
inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
inbox.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
inbox.bind("\\0" + path[1:] if path[0] == "@" else path)
print("ready", flush=True)
while True:
    if sys.stdin in select.select([inbox, sys.stdin], [], [])[0]: break
    data, control, flags, sender = inbox.recvmsg(8192, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * 253))
    pid, fds = 0, array.array("i")
    for level, kind, value in control:
        if kind == socket.SCM_RIGHTS: fds.frombytes(value)
        elif kind == socket.SCM_CREDENTIALS: pid = struct.unpack("3i", value)[0]
    links = [os.readlink("/proc/self/fd/%d" % fd) for fd in fds]
    for fd in fds: os.close(fd)
    print(json.dumps({"pid": pid, "lines": data.decode().split("\\n"), "fds": links}), flush=True)
`;

const MARK = "TEST_MARK=";

export class NotifySocket {
  /** As in NOTIFY_SOCKET. */
  readonly path: string;
  /** All that arrived. */
  readonly messages: Notification[] = [];
  readonly #receiver: ChildProcessByStdio<Writable, Readable, null>;
  readonly #news = new EventEmitter();
  readonly #marks = new Set<string>();

  constructor(path: string) {
    this.path = path;
    this.#receiver = spawn("python3", ["-c", RECEIVER, path], { stdio: ["pipe", "pipe", "inherit"] });
  }

  async open(): Promise<void> {
    const lines = createInterface(this.#receiver.stdout);
    await within("the notify socket is open", once(lines, "line"));
    lines.on("line", (line) => {
      const message = JSON.parse(line) as Notification;
      const [first = ""] = message.lines;
      if (first.startsWith(MARK)) this.#marks.add(first);
      else this.messages.push(message);
      this.#news.emit("message");
    });
  }

  /** Stops reading: messages queue in the kernel, until its queue is full. */
  pause(): void {
    this.#receiver.kill("SIGSTOP");
  }

  resume(): void {
    this.#receiver.kill("SIGCONT");
  }

  async close(): Promise<void> {
    if (this.#receiver.exitCode !== null || this.#receiver.signalCode !== null) return;
    const gone = once(this.#receiver, "exit");
    this.#receiver.kill("SIGKILL");
    await gone;
  }

  /** The messages so far, once all that were sent before this call have been read. */
  async caughtUp(): Promise<readonly Notification[]> {
    const mark = MARK + randomUUID();
    await until("the notify socket has room", () => addon().unixSend(this.path, Buffer.from(mark), []) === 0);
    return this.#when("all messages", () => this.#marks.has(mark));
  }

  /** The messages so far, once there are `count`. */
  received(count: number): Promise<readonly Notification[]> {
    return this.#when(`${count} messages`, () => this.messages.length >= count);
  }

  /** The messages so far, once one has a line that fits. `from`: how many to pass over. */
  said(line: RegExp, from = 0): Promise<readonly Notification[]> {
    const fits = (message: Notification): boolean => message.lines.some((each) => line.test(each));
    return this.#when(`a message with ${line}`, () => this.messages.slice(from).some(fits));
  }

  async #when(what: string, fits: () => boolean): Promise<readonly Notification[]> {
    const search = async (): Promise<void> => {
      if (fits()) return;
      for await (const _ of on(this.#news, "message")) if (fits()) return;
    };
    await within(what, search()).catch((error) => {
      throw new Error(`${error.message}; came: ${JSON.stringify(this.messages.map(({ lines }) => lines))}`);
    });
    return this.messages;
  }
}

/** Opens one at a path of its own. `path`: "@name" for one in the abstract namespace. */
export async function openNotifySocket(t: TestContext, path = join(makeFolder(t), "notify")): Promise<NotifySocket> {
  const socket = new NotifySocket(path);
  t.after(() => socket.close());
  await socket.open();
  return socket;
}
