/**
 * Who of this process's clients uses which engine: each engine tells them of its ticks, and of its end. Metrics find
 * their figures here.
 */
import type { Engine } from "../engine/engine.ts";
import { sharedEngine } from "../engine/shared.ts";
import type { ClientStats } from "./pool.ts";

interface Member {
  stats(): ClientStats;
  tick(engine: Engine): void;
  /** The engine has ended; its slots are gone. */
  engineEnded(): void;
}

const members = new Map<Engine, Set<Member>>();

/** The engine for `member` from now on, until it ends or the member leaves. Throws `engine-thread`. */
export function joinEngine(member: Member): Engine {
  const engine = sharedEngine();
  membersOf(engine).add(member);
  return engine;
}

export function leaveEngine(engine: Engine, member: Member): void {
  members.get(engine)?.delete(member);
}

/** Figures of the clients that use `engine`: as many as are defined and not closed, each with its targets. */
export function clientsOf(engine: Engine): ClientStats[] {
  return [...(members.get(engine) ?? [])].map((member) => member.stats());
}

function membersOf(engine: Engine): Set<Member> {
  const known = members.get(engine);
  if (known) return known;
  const joined = new Set<Member>();
  members.set(engine, joined);
  engine.onTick(() => {
    for (const member of joined) member.tick(engine);
  });
  engine.onShutdown(() => {
    members.delete(engine);
    for (const member of joined) member.engineEnded();
  });
  return joined;
}
