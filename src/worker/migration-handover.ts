/**
 * What a service's connections share in one worker goes to the other before the first of them: `handOff` here,
 * `takeOver` there. Both are the user's code: they may wait, but not for ever, and what they throw is an answer.
 */
import { messageOf } from "../base/errors.ts";
import { within } from "../base/within.ts";
import type { Endpoint } from "../connection/endpoint.ts";
import { closeDescriptor } from "../os/descriptors.ts";
import { readLargeMemory, writeLargeMemory } from "./migration-channel.ts";
import { nextTurn } from "./slices.ts";

/** For `handOff`, and again for `takeOver`, ms. */
const HOOK_MS = 10_000;
const HANDED_BYTES_MAX: number = 64 << 20;

/** What `handOff` gave: `memory` holds it, unless it is empty. Or why there is nothing. */
export type Handed = { readonly bytes: number; readonly memory: number | undefined } | { readonly problem: string };

async function bounded<T>(what: string, call: () => T | PromiseLike<T>): Promise<T> {
  return within(HOOK_MS, Promise.resolve(call()), () => {
    throw new Error(`${what} took more than ${HOOK_MS / 1000} s`);
  });
}

export async function handOff({ service, env, log }: Endpoint): Promise<Handed> {
  try {
    const bytes: unknown = await bounded("handOff", () => service.handOff?.(env));
    if (!(bytes instanceof Uint8Array)) return { problem: `handOff returned ${typeof bytes}; allowed: a Uint8Array` };
    if (bytes.length > HANDED_BYTES_MAX) {
      return { problem: `handOff returned ${bytes.length} bytes; allowed: at most ${HANDED_BYTES_MAX}` };
    }
    return { bytes: bytes.length, memory: bytes.length > 0 ? await writeLargeMemory(bytes) : undefined };
  } catch (err) {
    log.error({ err }, "handOff failed");
    return { problem: messageOf(err) };
  }
}

/** Closes `memory`. Returns why the service did not take over, if so. */
export async function takeOver(
  { service, env, log }: Endpoint,
  handed: { readonly bytes: number; readonly memory: number | undefined; readonly stateVersion: number },
): Promise<string | undefined> {
  const { bytes, memory, stateVersion } = handed;
  try {
    const given = memory === undefined ? new Uint8Array() : await readLargeMemory(memory, bytes);
    await bounded("takeOver", () => service.takeOver?.(env, given, stateVersion));
    return undefined;
  } catch (err) {
    log.error({ err }, "takeOver failed");
    return messageOf(err);
  } finally {
    if (memory !== undefined) closeDescriptor(memory);
    await nextTurn();
  }
}
