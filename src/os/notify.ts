/**
 * What the primary tells the service manager: sd_notify(3), one datagram per call, in the order of the calls. Without
 * NOTIFY_SOCKET every call does nothing. Nothing here throws or waits: a service manager that is slow to read gets
 * its messages later, in order; one that is gone is reported once, and the server serves on.
 * Only the main process is heard (NotifyAccess=main), and a message counts for whoever sends it: the primary alone
 * speaks, its successor only once it is the main process. So the variables are taken out of the environment here,
 * and `environment` is for the successor.
 */
import { constants } from "node:os";
import { messageOf } from "../base/errors.ts";
import { addon } from "./addon.ts";
import { channelUnwatch, channelWatch, closeDescriptor, openChannel } from "./descriptors.ts";
import { errnoName } from "./errno.ts";

/** The part of process.env that is read, and from which variables are taken out. */
export type InheritedEnvironment = Record<string, string | undefined>;

/** Called with one sentence about what is wrong; the server goes on without it. */
export type Report = (problem: string) => void;

/** systemd drops a datagram of more than 4,096 bytes (NOTIFY_BUFFER_MAX); the rest is for the other lines. */
const MAX_STATUS_BYTES = 2_048;
/** fdname_is_valid() of systemd, which drops a descriptor that has another name. */
const DESCRIPTOR_NAME = /^[ -9;-~]{1,255}$/;
const RETRY_MS = 10;
/** More than the descriptor store takes. */
const MAX_WAITING = 1_024;

const { EAGAIN, ENOBUFS, ENOMEM, EMFILE, ENFILE, ETOOMANYREFS } = { ETOOMANYREFS: 109, ...constants.errno };
/** The receiver's queue is full, or the machine is short of something: tried again. */
const PASSING: ReadonlySet<number> = new Set([EAGAIN, ENOBUFS, ENOMEM, EMFILE, ENFILE, ETOOMANYREFS]);

interface Message {
  readonly bytes: Uint8Array;
  /** While it waits, copies of the caller's descriptors. */
  readonly fds: readonly number[];
  /** Given up. */
  lost?: boolean;
}

/** A line break would begin another assignment; systemd drops a datagram that has a NUL in it. */
function oneLine(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, " ");
}

/** At most MAX_STATUS_BYTES of UTF-8, no character cut in two. */
function shorten(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= MAX_STATUS_BYTES) return text;
  let end = MAX_STATUS_BYTES - 3;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return `${bytes.toString("utf8", 0, end)}…`;
}

const statusLine = (text: string): string => `STATUS=${shorten(oneLine(text))}`;

/** CLOCK_MONOTONIC, as systemd compares it with the time of its own request. */
const monotonicUsec = (): bigint => process.hrtime.bigint() / 1_000n;

export class Notifier {
  /** What a successor needs in its environment to be heard. Not WATCHDOG_PID: that names this process. */
  readonly environment: Readonly<Record<string, string>>;
  /** The service manager ends a main process that it has not heard from for so long. Undefined: it does not watch. */
  readonly watchdogMs: number | undefined;
  readonly #path: string | undefined;
  readonly #report: Report;
  readonly #waiting: Message[] = [];
  #retry: NodeJS.Timeout | undefined;
  #failing = false;

  constructor(path: string | undefined, watchdogUsec: number | undefined, report: Report) {
    this.#path = path;
    this.#report = report;
    this.watchdogMs = path === undefined || watchdogUsec === undefined ? undefined : watchdogUsec / 1_000;
    this.environment = {
      ...(path === undefined ? {} : { NOTIFY_SOCKET: path }),
      ...(this.watchdogMs === undefined ? {} : { WATCHDOG_USEC: String(watchdogUsec) }),
    };
  }

  /** Somebody listens. */
  get enabled(): boolean {
    return this.#path !== undefined;
  }

  /** One datagram of lines such as `STATUS=…`. */
  send(lines: readonly string[]): void {
    this.#post(lines, []);
  }

  /** Serves; also ends what `reloading` began, however it went. */
  ready(status: string): void {
    this.send(["READY=1", statusLine(status)]);
  }

  /** Without the time, systemd waits for a `reloading` that comes after its own request (notify-reload, 253). */
  reloading(status: string): void {
    this.send(["RELOADING=1", `MONOTONIC_USEC=${monotonicUsec()}`, statusLine(status)]);
  }

  /** For good: a unit that stops cannot become ready again. */
  stopping(status: string): void {
    this.send(["STOPPING=1", statusLine(status)]);
  }

  status(text: string): void {
    this.send([statusLine(text)]);
  }

  /**
   * Makes `pid` the main process, which ends `reloading` and feeds the watchdog for it. From here on only `pid` is
   * heard. Its parent must be the service manager by now: what systemd takes for another's child is killed at stop.
   */
  mainPid(pid: number, status: string): void {
    this.send([`MAINPID=${pid}`, "READY=1", "WATCHDOG=1", statusLine(status)]);
  }

  /** To be called at half of watchdogMs. */
  watchdog(): void {
    if (this.watchdogMs !== undefined) this.send(["WATCHDOG=1"]);
  }

  /** The current start, reload or stop may take `ms` from now on. */
  extend(ms: number): void {
    this.send([`EXTEND_TIMEOUT_USEC=${Math.ceil(ms) * 1_000}`]);
  }

  /**
   * Has the service manager keep a copy of `fd`, which comes back to the next main process under `name`. Sent again it
   * is not kept twice. `polled` false: keep it whatever poll(2) says of it; a UDP socket shows an error for an ICMP
   * message, and would be dropped.
   */
  store(name: string, fd: number, polled = true): void {
    if (!DESCRIPTOR_NAME.test(name)) this.#report(`${JSON.stringify(name)} cannot be the name of a stored descriptor`);
    else this.#post(["FDSTORE=1", `FDNAME=${name}`, ...(polled ? [] : ["FDPOLL=0"])], [fd]);
  }

  /** Has it close every descriptor of that name. */
  unstore(name: string): void {
    this.send(["FDSTOREREMOVE=1", `FDNAME=${oneLine(name)}`]);
  }

  /**
   * Waits until everything that was sent before has been dealt with: the service manager then closes the descriptor
   * that comes with the message. False when it has not in `timeoutMs`, or when it cannot be reached.
   */
  async barrier(timeoutMs: number): Promise<boolean> {
    if (!this.enabled) return true;
    let own: number | undefined;
    try {
      const [ours, theirs] = openChannel();
      own = ours;
      const message = this.#post(["BARRIER=1"], [theirs]);
      closeDescriptor(theirs);
      return (await closedWithin(own, timeoutMs)) && !message?.lost;
    } catch (error) {
      this.#report(`no barrier could be sent to the service manager: ${messageOf(error)}`);
      return false;
    } finally {
      if (own !== undefined) closeDescriptor(own);
    }
  }

  #post(lines: readonly string[], fds: readonly number[]): Message | undefined {
    if (this.#path === undefined) return undefined;
    const message: Message = { bytes: Buffer.from(lines.map(oneLine).join("\n")), fds };
    if (this.#waiting.length === 0 && this.#attempt(message)) return message;
    return this.#keep(message);
  }

  /** True when it is done with: sent, or lost. */
  #attempt(message: Message): boolean {
    const result = addon().unixSend(this.#path ?? "", message.bytes, message.fds);
    if (PASSING.has(-result)) return false;
    if (result < 0) this.#lose(message, errnoName(result));
    else this.#failing = false;
    return true;
  }

  #keep({ bytes, fds }: Message): Message {
    const copies = fds.map((fd) => addon().fdDuplicate(fd));
    const message: Message = { bytes, fds: copies.filter((fd) => fd >= 0) };
    if (message.fds.length < fds.length || this.#waiting.length >= MAX_WAITING) {
      this.#lose(message, "too much waits for it");
      for (const fd of message.fds) closeDescriptor(fd);
      return message;
    }
    this.#waiting.push(message);
    this.#retry ??= setInterval(() => this.#sendWaiting(), RETRY_MS).unref();
    return message;
  }

  #sendWaiting(): void {
    for (let next = this.#waiting[0]; next && this.#attempt(next); next = this.#waiting[0]) {
      this.#waiting.shift();
      for (const fd of next.fds) closeDescriptor(fd);
    }
    if (this.#waiting.length > 0) return;
    clearInterval(this.#retry);
    this.#retry = undefined;
  }

  #lose(message: Message, why: string): void {
    message.lost = true;
    if (!this.#failing) this.#report(`the service manager at ${this.#path} cannot be told anything: ${why}`);
    this.#failing = true;
  }
}

/** Whether the other end of `channel`, on which nothing is ever sent, is closed in `ms`. */
function closedWithin(channel: number, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const watch = channelWatch(channel, () => done(true));
    const timer = setTimeout(() => done(false), ms);
    const done = (closed: boolean): void => {
      clearTimeout(timer);
      channelUnwatch(watch);
      resolve(closed);
    };
  });
}

/** A whole, positive number that is exact. */
function count(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text) || undefined;
}

/** "/run/systemd/notify", or "@name" in the abstract namespace. */
function socketPath(given: string | undefined, report: Report): string | undefined {
  if (!given) return undefined;
  if (/^[/@]./.test(given)) return given;
  report(
    `NOTIFY_SOCKET=${oneLine(given)} is neither a path nor an abstract address: the service manager is told nothing`,
  );
  return undefined;
}

/**
 * Reads NOTIFY_SOCKET and sd_watchdog_enabled(3)'s two variables, and takes them out of `env`: what a worker starts
 * must not speak for the service. A WATCHDOG_PID that names another process means that the watchdog is that one's.
 */
export function openNotifier(env: InheritedEnvironment, pid: number, report: Report): Notifier {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env;
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete env[name];
  const path = socketPath(NOTIFY_SOCKET, report);
  const watchdogUsec = count(WATCHDOG_USEC);
  if (path !== undefined && WATCHDOG_USEC !== undefined && watchdogUsec === undefined) {
    report(`WATCHDOG_USEC=${oneLine(WATCHDOG_USEC)} is not a number of microseconds: the watchdog is not fed`);
  }
  const watched = WATCHDOG_PID === undefined || WATCHDOG_PID === String(pid);
  return new Notifier(path, watched ? watchdogUsec : undefined, report);
}
