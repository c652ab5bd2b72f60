/** Composes a service's middleware around its handler, once at start. A plain reply stays plain. */
import type { Context } from "./connection.ts";
import type { Reply, Service } from "./define.ts";

export type Handler<State, In, Out, Env> = (message: In, context: Context<State, Out, Env>) => Reply<Out>;

type Inner<In, Out, Ctx> = (message: In, context: Ctx) => Reply<Out>;
type Wrapper<In, Out, Ctx> = (message: In, context: Ctx, next: (message: In) => Reply<Out>) => Reply<Out>;

/** The outermost middleware is the first in `use`. */
export function wrapHandler<In, Out, Ctx>(
  use: readonly Wrapper<In, Out, Ctx>[],
  handler: Inner<In, Out, Ctx>,
): Inner<In, Out, Ctx> {
  return use.reduceRight<Inner<In, Out, Ctx>>(
    (inner, middleware) => (message, context) => middleware(message, context, (next) => inner(next, context)),
    handler,
  );
}

export function composeHandler<State, In, Out, Env>(
  service: Service<State, In, Out, Env>,
): Handler<State, In, Out, Env> {
  return wrapHandler(service.use ?? [], (message, context) => service.onMessage(message, context));
}
