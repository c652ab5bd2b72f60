/**
 * A listener's complete limits and timeouts. The worker calls this once it has loaded the service, whose own
 * values stand between the defaults and the configuration.
 */
import {
  DEFAULT_LIMITS,
  DEFAULT_SERVER_LIMITS,
  DEFAULT_TIMEOUTS,
  type Limits,
  type ServerLimits,
  type Timeouts,
} from "../base/settings.ts";
import { LIMIT_KINDS, SERVER_LIMIT_KINDS, TIMEOUT_KINDS } from "./bounds.ts";
import type { ListenerConfig } from "./config.ts";
import { limitConflicts } from "./conflicts.ts";
import { refuse } from "./finding.ts";
import { type CheckedKind, Wrong } from "./kinds.ts";

/** What a service declares for itself, in ms and bytes. */
export interface ServiceDefaults {
  readonly limits?: Partial<Limits>;
  readonly timeouts?: Partial<Timeouts>;
}

export interface Settings {
  readonly limits: Limits;
  readonly timeouts: Timeouts;
}

/** The service as the user named it. */
function serviceName({ service }: Pick<ListenerConfig, "service">): string {
  return service.kind === "builtin" ? service.name : service.given;
}

/** A service is code and may be plain JavaScript: names and numbers are checked as a file's are. */
function checkDeclared(
  service: string,
  group: keyof Settings,
  declared: object | undefined,
  kinds: Readonly<Record<string, Pick<CheckedKind<unknown>, "check">>>,
): void {
  for (const [name, value] of Object.entries(declared ?? {})) {
    const option = `${group}.${name}`;
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    const wrong = kind ? kind.check(value) : new Wrong("unknown option", Object.keys(kinds).join(", "));
    if (!wrong) continue;
    const place = { label: `service ${service}: ${option}`, code: "service-invalid", option } as const;
    refuse([{ place, ...wrong }]);
  }
}

/** Where the value of `option` is from, in the order of precedence. */
function originOf(option: keyof Limits, listener: ListenerConfig, service: ServiceDefaults): string {
  if (listener.limits[option] !== undefined) return "configured";
  return service.limits?.[option] === undefined ? "default" : "the service's own";
}

/** Throws for the first pair of limits that do not fit, naming where each is from. */
function checkTogether(
  limits: Limits,
  { bufferMemory }: Pick<ServerLimits, "bufferMemory">,
  listener: ListenerConfig,
  service: ServiceDefaults,
): void {
  const isSet = (name: keyof Limits | "bufferMemory"): boolean =>
    name === "bufferMemory" ? bufferMemory !== DEFAULT_SERVER_LIMITS.bufferMemory : listener.limits[name] !== undefined;
  for (const { option, relation, other } of limitConflicts({ ...limits, bufferMemory })) {
    const described = (name: typeof other): string =>
      name === "bufferMemory"
        ? SERVER_LIMIT_KINDS[name].write(bufferMemory)
        : `${LIMIT_KINDS[name].write(limits[name])} (${originOf(name, listener, service)})`;
    const configured = isSet(option) || isSet(other);
    const place = {
      label: `listener ${listener.name}, service ${serviceName(listener)}: limits.${option}`,
      code: configured ? "config-invalid" : "service-invalid",
      option: `limits.${option}`,
    } as const;
    refuse([{ place, problem: `${described(option)} ${relation} limits.${other}, ${described(other)}` }]);
  }
}

/**
 * Defaults, over them the service's own, over those what the user set.
 * Throws `service-invalid` or `config-invalid`, whoever is at fault, naming service and option.
 */
export function resolveSettings(
  listener: ListenerConfig,
  service: ServiceDefaults,
  server: Pick<ServerLimits, "bufferMemory"> = DEFAULT_SERVER_LIMITS,
): Settings {
  const name = serviceName(listener);
  checkDeclared(name, "limits", service.limits, LIMIT_KINDS);
  checkDeclared(name, "timeouts", service.timeouts, TIMEOUT_KINDS);
  const limits = { ...DEFAULT_LIMITS, ...service.limits, ...listener.limits };
  checkTogether(limits, server, listener, service);
  return { limits, timeouts: { ...DEFAULT_TIMEOUTS, ...service.timeouts, ...listener.timeouts } };
}
