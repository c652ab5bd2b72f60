/**
 * Who may use the admin server: whoever has the token, or a cookie that was traded for it. Both are compared by their
 * SHA-256, in constant time, so neither their content nor their length shows in how long it takes.
 *
 * Sessions are random, bounded in number (the oldest makes room) and in time; only their hashes are kept, in memory:
 * a restart ends them all. An upgrade passes the hashes on, so that a page that is open stays signed in.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

const SESSIONS_MAX = 64;
const SESSION_MS = 12 * 3_600_000;
const SESSION_BYTES = 32;
const BEARER = /^Bearer +([^ ]+) *$/i;

/** Who is signed in, as an upgrade passes it on: hashes (base64) and ends (ms since 1970). */
export interface HandedSessions {
  /** Of the token. */
  readonly token: string;
  readonly sessions: readonly (readonly [string, number])[];
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

export class Gatekeeper {
  #token: Buffer;
  /** Ends (ms since 1970), by hash; in the order in which they were made. */
  readonly #sessions: Map<string, number> = new Map();
  readonly #now: () => number;

  constructor(token: string, now: () => number = Date.now) {
    this.#token = digest(token);
    this.#now = now;
  }

  /** Those of the one before; nobody stays signed in whose token was another. */
  adopt({ token, sessions }: HandedSessions): void {
    if (token !== this.#token.toString("base64")) return;
    for (const [hash, endsAt] of sessions.slice(-SESSIONS_MAX)) this.#sessions.set(hash, endsAt);
  }

  /** Another token from now on: who was signed in by the old one is so no more. */
  replaceToken(token: string): void {
    const next = digest(token);
    if (timingSafeEqual(next, this.#token)) return;
    this.#token = next;
    this.#sessions.clear();
  }

  isToken(given: string): boolean {
    return timingSafeEqual(digest(given), this.#token);
  }

  /** By an Authorization header. */
  bears(header: string | undefined): boolean {
    const token = BEARER.exec(header ?? "")?.[1];
    return token !== undefined && this.isToken(token);
  }

  /** Returns the id for the cookie and how long it holds, ms. */
  open(): { readonly id: string; readonly ms: number } {
    const id = randomBytes(SESSION_BYTES).toString("base64url");
    this.#forgetOld();
    while (this.#sessions.size >= SESSIONS_MAX) {
      const [oldest = ""] = this.#sessions.keys();
      this.#sessions.delete(oldest);
    }
    this.#sessions.set(digest(id).toString("base64"), this.#now() + SESSION_MS);
    return { id, ms: SESSION_MS };
  }

  /** The hash is looked up, not the id: what the time of that tells is about a hash that nobody can choose. */
  knows(id: string | undefined): boolean {
    if (id === undefined) return false;
    const endsAt = this.#sessions.get(digest(id).toString("base64"));
    return endsAt !== undefined && endsAt > this.#now();
  }

  close(id: string | undefined): void {
    if (id !== undefined) this.#sessions.delete(digest(id).toString("base64"));
  }

  /** For the next generation. */
  get handed(): HandedSessions {
    this.#forgetOld();
    return { token: this.#token.toString("base64"), sessions: [...this.#sessions] };
  }

  #forgetOld(): void {
    const now = this.#now();
    for (const [hash, endsAt] of this.#sessions) if (endsAt <= now) this.#sessions.delete(hash);
  }
}

/** The value of a cookie, from a Cookie header. */
export function cookieOf(header: string | undefined, name: string): string | undefined {
  for (const pair of (header ?? "").split(";")) {
    const [key = "", ...value] = pair.split("=");
    if (key.trim() === name) return value.join("=").trim();
  }
  return undefined;
}

/** Only of this port, to no other site's requests, out of reach of scripts. */
export function sessionCookie(name: string, id: string, ms: number): string {
  return `${name}=${id}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${Math.floor(ms / 1000)}`;
}
