/** The context of one request. Its members cost nothing until they are read. */
import type { Logger } from "../base/log.ts";
import type { Context } from "../service/connection.ts";
import type { ServedConnection } from "./connection.ts";

export class Request<State, Out, Env> implements Context<State, Out, Env> {
  readonly connection: ServedConnection<State, Out>;
  readonly #serial: number;

  constructor(connection: ServedConnection<State, Out>, serial: number) {
    this.connection = connection;
    this.#serial = serial;
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
    return this.connection.signal;
  }
}
