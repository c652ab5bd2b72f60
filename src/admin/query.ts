/** Reads the parameters of a URL. Whatever is unknown, repeated or out of range is refused by name. */
import { HeadraceError } from "../base/errors.ts";
import {
  CLOSED_MAX,
  CLOSED_PAGE,
  CONNECTION_SORTS,
  CONNECTIONS_OFFSET_MAX,
  CONNECTIONS_PAGE,
  CONNECTIONS_PAGE_MAX,
  type ConnectionQuery,
  PROFILE_SECONDS,
  PROFILE_SECONDS_MAX,
  type ProfileKind,
  type ProfileRequest,
  type ProfileTarget,
  SORT_ORDERS,
} from "../control/inspection.ts";

const TEXT_MAX = 100;

type Given = Readonly<Record<string, unknown>>;

function wrong(name: string, allowed: string): HeadraceError {
  return new HeadraceError("change-refused", `"${name}" is ${allowed}`, { option: name, allowed });
}

class Parameters {
  readonly #given: Given;

  constructor(given: unknown, known: readonly string[]) {
    this.#given = (given ?? {}) as Given;
    const strange = Object.keys(this.#given).find((name) => !known.includes(name));
    if (strange === undefined) return;
    const allowed = known.length === 0 ? "none" : known.join(", ");
    throw new HeadraceError("change-refused", `unknown parameter ${JSON.stringify(strange)}; allowed: ${allowed}`);
  }

  text(name: string): string | undefined {
    const value = this.#given[name];
    if (value === undefined || value === "") return undefined;
    if (typeof value !== "string" || value.length > TEXT_MAX)
      throw wrong(name, `a text of up to ${TEXT_MAX} characters`);
    return value;
  }

  whole(name: string, from: number, to: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= from && value <= to)) throw wrong(name, `a whole number from ${from} to ${to}`);
    return value;
  }

  choice<T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const found = allowed.find((each) => each === text);
    if (found === undefined) throw wrong(name, `one of ${allowed.join(", ")}`);
    return found;
  }
}

/** Slots are 0 to 255. */
const WORKER_MAX = 255;

export function readConnectionQuery(given: unknown): ConnectionQuery {
  const read = new Parameters(given, ["sort", "order", "address", "listener", "worker", "limit", "offset"]);
  const [address, listener, worker] = [
    read.text("address"),
    read.text("listener"),
    read.whole("worker", 0, WORKER_MAX),
  ];
  return {
    sort: read.choice("sort", CONNECTION_SORTS) ?? "buffered",
    order: read.choice("order", SORT_ORDERS) ?? "desc",
    limit: read.whole("limit", 1, CONNECTIONS_PAGE_MAX) ?? CONNECTIONS_PAGE,
    offset: read.whole("offset", 0, CONNECTIONS_OFFSET_MAX) ?? 0,
    ...(address === undefined ? {} : { address }),
    ...(listener === undefined ? {} : { listener }),
    ...(worker === undefined ? {} : { worker }),
  };
}

export function readClosedLimit(given: unknown): number {
  return new Parameters(given, ["limit"]).whole("limit", 1, CLOSED_MAX) ?? CLOSED_PAGE;
}

/** No worker named: worker 0. */
export function readProfileRequest(kind: ProfileKind, given: unknown): ProfileRequest {
  const read = new Parameters(given, kind === "cpu" ? ["worker", "seconds"] : ["worker"]);
  const target: ProfileTarget =
    read.text("worker") === "primary" ? "primary" : (read.whole("worker", 0, WORKER_MAX) ?? 0);
  return {
    kind,
    target,
    seconds: kind === "cpu" ? (read.whole("seconds", 1, PROFILE_SECONDS_MAX) ?? PROFILE_SECONDS) : 0,
  };
}
