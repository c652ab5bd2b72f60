/**
 * Notices that certificate files have changed, however that is done: written anew, renamed into place, or one of the
 * links on the way to them turned (certbot; the volumes of Kubernetes, where `..data` is turned). The kernel's events
 * make it quick and are not relied upon: they do not come from network file systems, nor from folders behind a link. So
 * every file's identity is looked at too, every ten seconds.
 */
import { type FSWatcher, statSync, watch } from "node:fs";
import { dirname } from "node:path";

export interface CertificateWatchOptions {
  /** What is to be watched, now: it may be other files each time. */
  readonly files: () => readonly string[];
  /** Something has changed. `settled`: and nothing else since the last call. */
  readonly onChange: (settled: boolean) => void;
  readonly pollMs?: number;
}

const POLL_MS = 10_000;
/** Certificate and key are written one after the other. */
const QUIET_MS = 250;
/** What is not right by then was not being written. */
const SETTLED_MS = 2_000;

/** Of a file as it is reached through its links now. */
function identityOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join();
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

export class CertificateWatch {
  readonly #options: CertificateWatchOptions;
  readonly #poll: NodeJS.Timeout;
  readonly #watchers = new Map<string, FSWatcher>();
  #identities = new Map<string, string>();
  #quiet: NodeJS.Timeout | undefined;
  #settled: NodeJS.Timeout | undefined;

  constructor(options: CertificateWatchOptions) {
    this.#options = options;
    this.#poll = setInterval(() => {
      this.#watchFolders();
      this.#look();
    }, options.pollMs ?? POLL_MS);
    this.#poll.unref();
    this.follow();
  }

  /** The files are others now. They may have changed since they were read. */
  follow(): void {
    this.#watchFolders();
    this.#stir();
  }

  #watchFolders(): void {
    const folders = new Set(this.#options.files().map(dirname));
    for (const [folder, watcher] of this.#watchers) if (!folders.has(folder)) this.#unwatch(folder, watcher);
    // Also folders that came late, or came back.
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#watch(folder);
  }

  /** Looks whether a file is another than it was. One that is seen for the first time may be. */
  #look(): void {
    const before = this.#identities;
    this.#identities = new Map(this.#options.files().map((file) => [file, identityOf(file)]));
    const changed = [...this.#identities].some(([file, identity]) => before.get(file) !== identity);
    if (changed) this.#changed();
  }

  end(): void {
    clearInterval(this.#poll);
    clearTimeout(this.#quiet);
    clearTimeout(this.#settled);
    for (const [folder, watcher] of this.#watchers) this.#unwatch(folder, watcher);
  }

  #watch(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#stir());
      watcher.on("error", () => this.#unwatch(folder, watcher));
      this.#watchers.set(folder, watcher);
    } catch {
      // No such folder, or no watches left: then it is looked at now and then.
    }
  }

  #unwatch(folder: string, watcher: FSWatcher): void {
    watcher.close();
    this.#watchers.delete(folder);
  }

  /** Something happens in a folder: looked at once it is quiet. */
  #stir(): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#look(), QUIET_MS).unref();
  }

  #changed(): void {
    this.#options.onChange(false);
    clearTimeout(this.#settled);
    this.#settled = setTimeout(() => this.#options.onChange(true), SETTLED_MS).unref();
  }
}
