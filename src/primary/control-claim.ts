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
import { lockDescriptor, type Peer, peerOf } from "../os/descriptors.ts";

/** sun_path of unix(7), less the final NUL. */
const MAX_PATH_BYTES = 107;

export interface ControlClaim {
  /** Call once the socket exists: remembers which file is ours. */
  listening(): void;
  /** Unlinks the socket and the lock file. */
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

/** Claims `path` for this process. Throws `control-refused` when somebody else has it or something else is there. */
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
  ftruncateSync(fd);
  writeSync(fd, `${process.pid}\n`, 0);
  let own: number | undefined;
  return {
    listening(): void {
      own = inode(path);
    },
    release(): void {
      if (own !== undefined && inode(path) === own) unlinkSync(path);
      if (fstatSync(fd).ino === inode(lockPath)) unlinkSync(lockPath);
      closeSync(fd);
    },
  };
}
