/** The thread pools of a worker: those that its services name, each once, started before anything can ask them. */
import type { Logger } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import type { Gate } from "../connection/gate.ts";
import type { ListenerService } from "../service/udp.ts";
import type { TaskPool } from "../tasks/pool.ts";

export function poolsOf(listeners: Iterable<{ readonly service: ListenerService }>): TaskPool[] {
  const pools = [...listeners].flatMap(({ service }) => service.pools as unknown as readonly TaskPool[]);
  return [...new Set(pools)];
}

export function configurePools(pools: readonly TaskPool[], config: Pick<Config, "tasks" | "shed" | "workers">): void {
  const { tasks, workers, shed } = config;
  for (const pool of pools) pool.configure({ tasks, workers, queueDelay: shed.queueDelay });
}

/** Throws `service-invalid` or `service-failed` for a module that cannot be loaded; then no thread is left. */
export async function startPools(pools: readonly TaskPool[]): Promise<void> {
  try {
    await Promise.all(pools.map((pool) => pool.start()));
  } catch (error) {
    await closePools(pools);
    throw error;
  }
}

/** While a pool is overloaded, the gate asks it before a request is begun that would only be refused there. */
export function watchPools(pools: readonly TaskPool[], gate: Gate, log: Logger): void {
  for (const pool of pools) {
    pool.onPressure((pressed) => {
      gate.alerts += pressed ? 1 : -1;
      if (pressed)
        log.warn({ pool: pool.name, waiting: pool.waiting }, `pool ${pool.name} is overloaded: tasks are refused`);
      else log.info({ pool: pool.name }, `pool ${pool.name} is no longer overloaded`);
    });
  }
}

/** Ends their threads. */
export async function closePools(pools: readonly TaskPool[]): Promise<void> {
  await Promise.all(pools.map((pool) => pool.close()));
}
