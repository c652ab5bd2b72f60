/**
 * One server per control socket. The claim is a lock on a file beside the socket, which the kernel drops with the
 * process, however it ends; so a socket file whose lock is free is stale and may be replaced. The lock file holds
 * the owner's pid. Only the owner unlinks, and only what is still its own.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { connect } from "node:net";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { addon } from "../os/addon.ts";
import { lockDescriptor, type Peer, peerOf } from "../os/descriptors.ts";
import { errnoName } from "../os/errno.ts";

/** sun_path of unix(7), less the final NUL. */
const MAX_PATH_BYTES = 107;

export interface ControlClaim {
  readonly path: string;
  /** The listening socket. */
  readonly descriptor: number;
  /** The locked file. */
  readonly lock: number;
  /** Unlinks the socket and the lock file, each if it is still this one. */
  release(): void;
}

function inode(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.ino;
}

function taken(path: string, pid: string | number): HeadraceError {
  const advice = "stop that one, or pass --control PATH to run a second server beside it";
  return new HeadraceError("control-refused", `another headrace, process ${pid}, already uses ${path}; ${advice}`, {
    file: path,
  });
}

/** Opens and locks the file; again, when its last owner unlinked it between the two. */
function lock(path: string, control: string): number {
  for (;;) {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
    const fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    const text = readFileSync(fd, "utf8");
    if (!/^\d*\n?$/.test(text)) {
      closeSync(fd);
      throw new HeadraceError(
        "control-refused",
        `${path} exists and is not a lock file of headrace; pass --control PATH`,
      );
    }
    if (!lockDescriptor(fd)) {
      closeSync(fd);
      throw taken(control, text.trim() || "unknown");
    }
    if (fstatSync(fd).ino === inode(path)) return fd;
    closeSync(fd);
  }
}

/** Who answers at `path`, if anybody: a server can be alive although its lock file was cleaned away. */
function serverAt(path: string): Promise<Peer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("error", () => resolve(undefined));
    socket.once("connect", () => {
      resolve(peerOf(socket));
      socket.destroy();
    });
  });
}

/** Removes a socket that nobody serves. Throws `control-refused` for anything else that is there. */
async function clearStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  const server = found.isSocket() ? await serverAt(path) : undefined;
  if (server) throw taken(path, server.pid);
  if (!found.isSocket()) {
    throw new HeadraceError("control-refused", `${path} exists and is not a socket; pass --control PATH`, {
      file: path,
    });
  }
  unlinkSync(path);
}

/** Claims `path` for this process and listens there (0600). Throws `control-refused` when somebody else has it or something else is there. */
export async function claimControl(path: string): Promise<ControlClaim> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new HeadraceError(
      "config-invalid",
      `the control socket's path is longer than ${MAX_PATH_BYTES} bytes: ${path}`,
      {
        option: "control",
        given: path,
      },
    );
  }
  const lockPath = `${path}.lock`;
  let fd: number;
  try {
    fd = lock(lockPath, path);
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    throw new HeadraceError(
      "control-refused",
      `cannot lock ${lockPath}: ${messageOf(error)}`,
      { file: path },
      { cause: error },
    );
  }
  try {
    await clearStale(path);
  } catch (error) {
    unlinkSync(lockPath);
    closeSync(fd);
    throw error;
  }
  const descriptor = addon().unixListen(path);
  if (descriptor < 0) {
    unlinkSync(lockPath);
    closeSync(fd);
    const message = `the control socket ${path} cannot be opened: ${errnoName(descriptor)}`;
    throw new HeadraceError("control-refused", message, { file: path });
  }
  return own(path, descriptor, fd);
}

/** Takes over the claim that the generation before has handed on. It stays locked all the while. */
export function adoptControl(path: string, descriptor: number, lockFd: number): ControlClaim {
  return own(path, descriptor, lockFd);
}

function own(path: string, descriptor: number, lockFd: number): ControlClaim {
  try {
    ftruncateSync(lockFd);
    writeSync(lockFd, `${process.pid}\n`, 0);
  } catch {
    // A full disk: the lock holds all the same, and only the error for a second server does without our pid.
  }
  const socket = inode(path);
  const lockPath = `${path}.lock`;
  return {
    path,
    descriptor,
    lock: lockFd,
    release(): void {
      if (socket !== undefined && inode(path) === socket) unlinkSync(path);
      if (fstatSync(lockFd).ino === inode(lockPath)) unlinkSync(lockPath);
      closeSync(lockFd);
    },
  };
}
