/** What a handler sees of a connection and of a request. src/connection implements both. */
import type { Span } from "@opentelemetry/api";
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import type { ProxyInfo } from "../codec/proxy-header.ts";
import type { Pool, TaskArgs, TaskName, TaskValue } from "../tasks/define.ts";
import type { Callable, DownstreamOptions } from "./call.ts";

/**
 * `ok`: taken, below the high-water mark. `slow`: taken, but stop until `drained()` or `onWritable`.
 * `refused`: not taken, `limits.buffered` would be passed. `closed`: not taken, the connection has ended.
 */
export type SendResult = "ok" | "slow" | "refused" | "closed";

/** What TLS says of a connection. */
export interface ConnectionTls {
  /** "TLSv1.2" or "TLSv1.3". */
  readonly protocol: string;
  /** OpenSSL's name of the cipher suite. */
  readonly cipher: string;
  /** The server name that the client asked for (SNI), whether or not there is a certificate for it. */
  readonly serverName: string | undefined;
  /** The protocol agreed on (ALPN). */
  readonly alpn: string | undefined;
  /** The client has gone on with an earlier session. */
  readonly resumed: boolean;
  /** The client's certificate; undefined when it has sent none. */
  readonly client: ConnectionTlsClient | undefined;
}

/** The certificate of a client. */
export interface ConnectionTlsClient {
  /** `{ CN: "device-7", O: "Example" }`. A part that is there more than once is a list. */
  readonly subject: Readonly<Record<string, string | readonly string[]>>;
  /** With their kinds: "DNS:device-7.example.org", "URI:spiffe://example.org/device-7". */
  readonly subjectAltNames: readonly string[];
  /** SHA-256 of the certificate: "AB:CD:…". */
  readonly fingerprint256: string;
  /** Whether it is believed. Always, but with `clientCertificate: optional`. */
  readonly verified: boolean;
  /** Why it is not. */
  readonly problem: string | undefined;
}

/** Where a connection comes from; known before its state exists. */
export interface ConnectionInfo {
  /** Unique among the workers of this server, also across restarts of a worker. */
  readonly id: string;
  /** The client: behind a trusted proxy the one that its PROXY header names. */
  readonly remote: { readonly host: string; readonly port: number };
  /** Who has connected to this server: the proxy, where there is one; else the same as `remote`. */
  readonly peer: { readonly host: string; readonly port: number };
  /** What the PROXY header in front of it said; undefined where there was none. */
  readonly proxy: ProxyInfo | undefined;
  /** What TLS says; undefined of a plaintext connection. */
  readonly tls: ConnectionTls | undefined;
  /** Name of the listener that accepted it. */
  readonly listener: string;
  /** Carries the connection's id. */
  readonly log: Logger;
}

/** "10s", "500ms", "2m", "1h" or "off". */
export type Duration = `${number}${"ms" | "s" | "m" | "h"}` | "off";

/** Deadlines that a connection may have of its own. `undefined` gives one back to the configuration. */
export interface ConnectionTimeouts {
  readonly firstByte?: Duration | undefined;
  readonly frame?: Duration | undefined;
  readonly idle?: Duration | undefined;
  readonly writeStall?: Duration | undefined;
  readonly age?: Duration | undefined;
  readonly heartbeat?: Duration | undefined;
}

export interface Connection<State, Out> extends ConnectionInfo {
  /** Made by the service's `state` before `onOpen`. */
  readonly state: State;
  /**
   * Aborted when the connection ends, with a `connection-closed` error whose `fields.given` is the CloseReason, or
   * "moved" when it goes on in another worker.
   */
  readonly signal: AbortSignal;
  readonly closed: boolean;
  /** Bytes taken by `send` or as replies that the kernel has not taken yet. */
  readonly bufferedBytes: number;
  /** All of the message or nothing of it. Throws when the message cannot be encoded. */
  send(message: Out): SendResult;
  /** After `slow`: resolves below the low-water mark. At once otherwise. Rejects with `connection-closed`. */
  drained(): Promise<void>;
  /** Takes no more input until `resumeReads`: the peer is held back by TCP. */
  pauseReads(): void;
  resumeReads(): void;
  /**
   * Gets what is published to the topic from now on, by whatever worker. Moves with the connection. Idempotent. At most
   * 1,000 topics, each of 1 to 255 bytes; else it throws `service-invalid`.
   */
  subscribe(topic: string): void;
  unsubscribe(topic: string): void;
  /**
   * Sends a message to all connections of this service, in all workers, that have subscribed to the topic, this one
   * too if it has. Encoded once; never waits for anyone. Throws when the message cannot be encoded.
   */
  publish(topic: string, message: Out): void;
  /**
   * Deadlines of this connection, over those of its listener: say, a longer `idle` once it has logged in. Those that
   * are not named stay as they are. They move with the connection. Throws `service-invalid` for what is no timeout.
   */
  setTimeouts(timeouts: ConnectionTimeouts): void;
  /**
   * Sends what is unsent, then closes. Takes effect at once: requests in flight are abandoned, and what the running
   * handler returns is not sent any more (send it first).
   */
  close(reason?: CloseReason): void;
  /** RST: what is unsent is dropped. */
  reset(reason?: CloseReason): void;
}

/** One request: handed to `onMessage` and to middleware. */
export interface Context<State, Out, Env> {
  readonly connection: Connection<State, Out>;
  /** What the service's `env` made for this worker. */
  readonly env: Env;
  /** Unique; made when first read. */
  readonly id: string;
  /** Carries the ids of connection and request; made when first read. */
  readonly log: Logger;
  /** Aborted when the connection ends, the deadline has passed or the client cancels; made when first read. */
  readonly signal: AbortSignal;
  /**
   * When the reply is due, on the clock of `process.hrtime()` in ms; Infinity: no deadline. The earlier of
   * `timeouts.request` and what the message says (`deadline` of the service). When it has passed, the request is
   * answered as late, whatever its handler still does.
   */
  readonly deadline: number;
  /** Milliseconds to the deadline, as of now; 0 when it has passed, Infinity without one. */
  remainingMs(): number;
  /** W3C trace context of the request, where its protocol carries one; read when asked for. */
  readonly traceparent: string | undefined;
  /** Of the request's trace (OpenTelemetry): of one that is not traced a span that takes everything and keeps nothing. */
  readonly span: Span;
  /**
   * Asks another server through a client (`defineClient`), within what is left for this request and no longer, with its
   * priority and trace context. Given up when the request ends. Rejects as `Client.call`.
   */
  call<Asked, Answered>(
    client: Callable<Asked, Answered>,
    message: Asked,
    options?: DownstreamOptions,
  ): Promise<Answered>;
  /**
   * Runs a function of a pool's module in a thread, with the request's priority. Cancelled when the request's deadline
   * passes and when the connection ends. Rejects as `Pool.run`.
   */
  run<Module, Name extends TaskName<Module>>(
    pool: Pool<Module>,
    name: Name,
    ...args: TaskArgs<Module, Name>
  ): Promise<TaskValue<Module, Name>>;
}
