/** The context of one request. Its members cost nothing until they are read. */
import type { Logger } from "../base/log.ts";
import type { Callable, DownstreamOptions } from "../service/call.ts";
import type { Context } from "../service/connection.ts";
import type { Pool, TaskArgs, TaskName, TaskValue } from "../tasks/define.ts";
import type { ServedConnection } from "./connection.ts";
import type { Flight } from "./flight.ts";
import { NO_TICKET } from "./in-flight.ts";
import type { Place } from "./ordered.ts";

export class Request<State, Out, Env> implements Context<State, Out, Env> {
  readonly connection: ServedConnection<State, Out>;
  readonly #serial: number;
  /** As the codec made it. A borrowed frame is the connection's again when the handler has returned. */
  message: unknown;
  /** Engine clock, ms; Infinity: there is none. */
  readonly deadline: number;
  /** By which its protocol tells it from others; undefined where there is no such thing. */
  wireId: unknown;
  /** Its handler has returned a promise, and the request is not over. */
  waiting: boolean;
  /** Among ordered replies. */
  place: Place | undefined;
  /** Of the worker's requests in flight; NO_TICKET: it was never one. */
  ticket: number;
  /** Set by the connection, when it needs one. */
  flight: Flight | undefined;

  constructor(connection: ServedConnection<State, Out>, serial: number, message: unknown, deadline: number) {
    this.connection = connection;
    this.#serial = serial;
    this.message = message;
    this.deadline = deadline;
    this.wireId = undefined;
    this.waiting = false;
    this.place = undefined;
    this.ticket = NO_TICKET;
    this.flight = undefined;
  }

  get env(): Env {
    return this.connection.endpoint.env as Env;
  }

  get id(): string {
    return `${this.connection.id}.${this.#serial.toString(36)}`;
  }

  get log(): Logger {
    return this.connection.endpoint.log.child({ connection: this.connection.id, request: this.id });
  }

  get signal(): AbortSignal {
    return this.connection.signalOf(this);
  }

  get traceparent(): string | undefined {
    return this.connection.endpoint.service.traceparent?.(this.message);
  }

  remainingMs(): number {
    return Math.max(0, this.deadline - this.connection.endpoint.transport.clock());
  }

  call<Asked, Answered>(
    client: Callable<Asked, Answered>,
    message: Asked,
    options?: DownstreamOptions,
  ): Promise<Answered> {
    return this.connection.callClient(this, client, message, options ?? {});
  }

  run<Module, Name extends TaskName<Module>>(
    pool: Pool<Module>,
    name: Name,
    ...args: TaskArgs<Module, Name>
  ): Promise<TaskValue<Module, Name>> {
    return this.connection.runTask(this, pool, name, args) as Promise<TaskValue<Module, Name>>;
  }
}
