/** Composes a service's middleware around its handler, once at start. A plain reply stays plain. */
import type { Context } from "./connection.ts";
import type { Reply, Service } from "./define.ts";

export type Handler<State, In, Out, Env> = (message: In, context: Context<State, Out, Env>) => Reply<Out>;

/** The outermost middleware is the first in `use`. */
export function composeHandler<State, In, Out, Env>(
  service: Service<State, In, Out, Env>,
): Handler<State, In, Out, Env> {
  const handler: Handler<State, In, Out, Env> = (message, context) => service.onMessage(message, context);
  return (service.use ?? []).reduceRight<Handler<State, In, Out, Env>>(
    (inner, middleware) => (message, context) => middleware(message, context, (next) => inner(next, context)),
    handler,
  );
}
