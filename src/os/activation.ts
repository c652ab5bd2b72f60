/**
 * Sockets that systemd started the primary with: those of a socket unit, and those that came back from the descriptor
 * store (sd_listen_fds(3)). They stand at descriptor 3 and up. Read once, before anything is spawned: afterwards the
 * descriptors are close-on-exec and non-blocking (a socket unit's are neither), and the variables are gone, because a
 * child would take its own descriptors for sockets. What is not a socket to serve from is not touched.
 */
import { addon } from "./addon.ts";
import { errnoName } from "./errno.ts";
import type { InheritedEnvironment, Report } from "./notify.ts";

export interface InheritedSocket {
  /** FileDescriptorName= of the socket unit, or FDNAME= of what was stored. "unknown" when the names are missing. */
  readonly name: string;
  readonly fd: number;
}

/** SD_LISTEN_FDS_START. */
const FIRST_FD = 3;
const UNKNOWN = "unknown";
const VARIABLES = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/** Why `fd` cannot be served from, if it cannot. */
function unfit(fd: number): string | undefined {
  const kind = addon().socketKind(fd);
  if (typeof kind === "number") return errnoName(kind);
  if (kind.type === "stream" && !kind.listening) return "it does not listen";
  const error = addon().fdInherit(fd);
  return error < 0 ? errnoName(error) : undefined;
}

function namesOf(given: string | undefined, count: number, report: Report): readonly string[] {
  if (given === undefined) return [];
  const names = given.split(":");
  if (names.length === count) return names;
  report(`LISTEN_FDNAMES has ${names.length} names for ${count} descriptors: ignored`);
  return [];
}

/** Takes the sockets that are meant for process `pid`. Whatever does not fit is reported and left out. */
export function inheritedSockets(env: InheritedEnvironment, pid: number, report: Report): InheritedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env;
  for (const name of VARIABLES) delete env[name];
  // Somebody above this process was started with sockets and left the variables behind.
  if (LISTEN_FDS === undefined || LISTEN_PID !== String(pid)) return [];
  if (!/^\d{1,6}$/.test(LISTEN_FDS)) {
    report(`LISTEN_FDS=${JSON.stringify(LISTEN_FDS)} is not a number of descriptors: ignored`);
    return [];
  }
  const count = Number(LISTEN_FDS);
  const names = namesOf(LISTEN_FDNAMES, count, report);
  const sockets: InheritedSocket[] = [];
  for (let index = 0; index < count; index++) {
    const fd = FIRST_FD + index;
    const name = names[index] ?? UNKNOWN;
    const why = unfit(fd);
    if (why === undefined) sockets.push({ name, fd });
    else report(`descriptor ${fd} (${name}) of the service manager is not a listening socket: ${why}`);
    // A wrong count must not become a flood of reports.
    if (why === "EBADF") break;
  }
  return sockets;
}
