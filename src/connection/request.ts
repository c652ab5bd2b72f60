/** The context of one request. Its members cost nothing until they are read. */
import type { Logger } from "../base/log.ts";
import type { Context } from "../service/connection.ts";
import type { Pool, TaskArgs, TaskName, TaskValue } from "../tasks/define.ts";
import type { ServedConnection } from "./connection.ts";
import type { Flight } from "./flight.ts";

export class Request<State, Out, Env> implements Context<State, Out, Env> {
  readonly connection: ServedConnection<State, Out>;
  readonly #serial: number;
  /** Set by the connection, when it needs one. */
  flight: Flight | undefined;

  constructor(connection: ServedConnection<State, Out>, serial: number, flight: Flight | undefined) {
    this.connection = connection;
    this.#serial = serial;
    this.flight = flight;
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

  run<Module, Name extends TaskName<Module>>(
    pool: Pool<Module>,
    name: Name,
    ...args: TaskArgs<Module, Name>
  ): Promise<TaskValue<Module, Name>> {
    return this.connection.runTask(this, pool, name, args) as Promise<TaskValue<Module, Name>>;
  }
}
