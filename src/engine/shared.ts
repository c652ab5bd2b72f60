/**
 * The engine that this process's clients use: the worker's, where there is one, so that their connections are served
 * in the same rounds as those of the service; in any other program one of their own, made when first needed, which
 * does not keep the process alive.
 */
import { descriptorLimit, Engine } from "./engine.ts";

/** Connections of a program's own engine: more than a process has clients for. */
const OWN_SLOTS = 16_384;

let shared: Engine | undefined;

/** Clients use `engine` from now on, until it is shut down. */
export function shareEngine(engine: Engine): void {
  shared = engine;
  engine.onShutdown(() => {
    if (shared === engine) shared = undefined;
  });
}

/** Throws `engine-thread` off the main thread. */
export function sharedEngine(): Engine {
  if (shared) return shared;
  const engine = new Engine({ slots: Math.min(descriptorLimit(), OWN_SLOTS) });
  engine.unref();
  shareEngine(engine);
  return engine;
}
