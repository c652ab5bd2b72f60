/**
 * The stage of a preface that is a TLS handshake. OpenSSL makes it, in the engine; here it is begun, bounded in number
 * and time, and what it found out is kept for the service. An endpoint has one of these for each set of certificates:
 * handshakes go on with those that they began with.
 */
import type { CloseReason } from "../base/reasons.ts";
import { type Engine, isPeerReset, isTlsFault } from "../engine/engine.ts";
import { LISTENER_FIELDS } from "../os/scoreboard.ts";
import type { TlsContext } from "../os/tls-addon.ts";
import type { Handshakes } from "./handshakes.ts";
import type { Preface, PrefaceStage } from "./preface.ts";
import { TlsDetails } from "./tls-details.ts";

const HANDSHAKES = LISTENER_FIELDS.indexOf("handshakes");
const RESUMED = LISTENER_FIELDS.indexOf("resumed");

export interface TlsStageOptions {
  readonly engine: Pick<Engine, "secure" | "tls" | "tlsError">;
  readonly context: TlsContext;
  /** Of the worker. */
  readonly handshakes: Handshakes;
  readonly timeoutMs: number;
}

export class TlsStage implements PrefaceStage {
  readonly timeoutMs: number;
  readonly timeoutReason: CloseReason = "handshake-timeout";
  readonly #engine: TlsStageOptions["engine"];
  readonly #context: TlsContext;
  readonly #handshakes: Handshakes;

  constructor({ engine, context, handshakes, timeoutMs }: TlsStageOptions) {
    this.#engine = engine;
    this.#context = context;
    this.#handshakes = handshakes;
    this.timeoutMs = timeoutMs;
  }

  begin(preface: Preface, early: Buffer): void {
    if (!this.#handshakes.begin(preface, preface.endpoint.transport.now, this.timeoutMs)) {
      preface.refuse();
      return;
    }
    try {
      this.#engine.secure(preface.slot, preface.generation, this.#context, { early });
    } catch (err) {
      // Memory is short, for this one: a worker that died of it would take all the others along.
      const { log } = preface.endpoint;
      preface.endpoint.once("secure", () => log.error({ err }, "TLS cannot begin; others like it are not logged"));
      preface.end("io-error");
    }
  }

  /** The engine keeps data back until the handshake is through. */
  onData(): void {}

  onSecured(preface: Preface): void {
    const info = this.#engine.tls(preface.slot, preface.generation);
    // Closed in the same round: its owner hears of that next.
    if (!info) return;
    const { row } = preface.endpoint;
    row[HANDSHAKES] = (row[HANDSHAKES] as number) + 1;
    if (info.resumed) row[RESUMED] = (row[RESUMED] as number) + 1;
    preface.origin = { ...preface.origin, tls: new TlsDetails(info) };
    preface.pass();
  }

  onError(preface: Preface, errno: number): void {
    if (isTlsFault(errno)) {
      this.#handshakes.failed(this.#engine.tlsError(preface.slot, preface.generation));
      // An RST would overtake the alert, which says to the client why.
      preface.end("tls-error", "close");
    } else {
      preface.end(isPeerReset(errno) ? "peer-reset" : "io-error");
    }
  }

  onLeft(preface: Preface): void {
    this.#handshakes.end(preface);
  }
}
