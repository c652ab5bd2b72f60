/**
 * Which files the services are, for as long as this primary lives. A release is often a symbolic link that is turned
 * to the next one: the link is followed once, when a path is first seen, so that workers which are replaced later
 * still run the release that the others run. An upgrade starts a new primary, and that follows it anew.
 */
import { realpathSync } from "node:fs";
import type { Config, ServiceRef } from "../config/config.ts";

export class PinnedPaths {
  /** By path as configured. */
  readonly #pins: Map<string, string> = new Map();

  /**
   * `config` with every module (of services, of tracing) at the path it was first seen at. A path that leads nowhere stays as it is,
   * and is not pinned: loading it says what is wrong, and the file may be there the next time.
   */
  pin(config: Config): Config {
    const listeners = config.listeners.map((listener) => ({ ...listener, service: this.#pinned(listener.service) }));
    const { module, ...tracing } = config.tracing;
    return { ...config, listeners, tracing: module ? { ...tracing, module: this.#pinnedFile(module) } : tracing };
  }

  #pinned(service: ServiceRef): ServiceRef {
    return service.kind === "builtin" ? service : this.#pinnedFile(service);
  }

  #pinnedFile<File extends { readonly path: string }>(file: File): File {
    const path = this.#pins.get(file.path) ?? this.#resolve(file.path);
    return path === undefined ? file : { ...file, path };
  }

  #resolve(given: string): string | undefined {
    let path: string;
    try {
      path = realpathSync(given);
    } catch {
      return undefined;
    }
    this.#pins.set(given, path);
    return path;
  }
}
