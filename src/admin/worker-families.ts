/** Metrics of workers, from the heads of their blocks in the scoreboard, and of processes, from /proc. */
import type { WorkerMetrics } from "../control/metrics-snapshot.ts";
import { counter, type Family, gauge } from "./family.ts";
import type { ProcessFigures, ScrapeReading } from "./metrics-reading.ts";

const WORKER = ["worker"] as const;
const PROCESS = ["process"] as const;

const ofWorkers =
  (figureOf: (worker: WorkerMetrics) => number) =>
  ({ snapshot }: ScrapeReading): [string, number][] =>
    snapshot.workers.map((worker) => [String(worker.slot), figureOf(worker)]);

/** What only a process has: none while the slot has no worker. */
const ofLiving =
  (figureOf: (worker: WorkerMetrics) => number) =>
  ({ snapshot }: ScrapeReading): [string, number][] =>
    snapshot.workers.filter(({ pid }) => pid > 0).map((worker) => [String(worker.slot), figureOf(worker)]);

/** Several values of each worker, by one more label. */
const ofWorkersBy =
  (figuresOf: (worker: WorkerMetrics) => Readonly<Record<string, number>>) =>
  ({ snapshot }: ScrapeReading): [string, string, number][] =>
    snapshot.workers.flatMap((worker) =>
      Object.entries(figuresOf(worker)).map(([key, value]): [string, string, number] => [
        String(worker.slot),
        key,
        value,
      ]),
    );

const ofProcesses =
  (field: Exclude<keyof ProcessFigures, "process">) =>
  ({ processes }: ScrapeReading): [string, number][] =>
    processes.flatMap((figures): [string, number][] => {
      const value = figures[field];
      return value === undefined ? [] : [[figures.process, value]];
    });

const each = <Value>(of: Readonly<Record<string, Value>>, figureOf: (value: Value) => number): Record<string, number> =>
  Object.fromEntries(Object.entries(of).map(([key, value]) => [key, figureOf(value)]));

export const WORKER_FAMILIES: readonly Family[] = [
  counter(
    "connections_moved_in_total",
    "Connections that came from another worker, or from the generation before",
    WORKER,
    ofWorkers(({ movedIn }) => movedIn),
  ),
  counter(
    "connections_moved_out_total",
    "Connections given to another worker, or to the next generation",
    WORKER,
    ofWorkers(({ movedOut }) => movedOut),
  ),
  gauge(
    "oldest_request_seconds",
    "Age of the oldest request in flight",
    WORKER,
    ofLiving(({ oldestSeconds }) => oldestSeconds),
  ),
  gauge(
    "worker_queue_length",
    "Tasks that wait for a thread",
    WORKER,
    ofLiving(({ waiting }) => waiting),
  ),
  counter(
    "bytes_received_total",
    "Bytes received from clients",
    WORKER,
    ofWorkers(({ bytesReceived }) => bytesReceived),
  ),
  counter(
    "bytes_sent_total",
    "Bytes sent to clients",
    WORKER,
    ofWorkers(({ bytesSent }) => bytesSent),
  ),
  gauge(
    "buffered_bytes",
    "Bytes held in buffers: received and not used yet, or not sent yet",
    ["worker", "direction"],
    ofWorkersBy(({ bytesHeldIn, bytesHeldOut }) => ({ in: bytesHeldIn, out: bytesHeldOut })),
  ),
  counter(
    "accept_errors_total",
    "accept() calls that failed, by errno",
    ["worker", "errno"],
    ofWorkersBy(({ acceptErrors }) => acceptErrors),
  ),
  counter(
    "engine_seconds_total",
    "Time of the engine's rounds, by phase",
    ["worker", "phase"],
    ofWorkersBy(({ phases }) => phases),
  ),
  gauge(
    "event_loop_delay_seconds",
    "Delay of the event loop: mean and p99 of the last second, max of the last minute",
    ["worker", "stat"],
    ofWorkersBy(({ loopDelay: { mean, p99, max } }) => ({ mean, p99, max })),
  ),
  counter(
    "gc_seconds_total",
    "Time of garbage collection, by kind",
    ["worker", "kind"],
    ofWorkersBy(({ gc }) => each(gc, ({ seconds }) => seconds)),
  ),
  counter(
    "gc_pauses_total",
    "Garbage collections, by kind",
    ["worker", "kind"],
    ofWorkersBy(({ gc }) => each(gc, ({ count }) => count)),
  ),
  gauge(
    "heap_bytes",
    "Heap in use",
    WORKER,
    ofLiving(({ heapBytes }) => heapBytes),
  ),
  counter(
    "worker_restarts_total",
    "Workers replaced because they died or hung",
    WORKER,
    ofWorkers(({ restarts }) => restarts),
  ),
  gauge("open_fds", "Open descriptors", PROCESS, ofProcesses("openFds")),
  gauge("max_fds", "Descriptors that it may have open (RLIMIT_NOFILE)", PROCESS, ofProcesses("maxFds")),
  counter("cpu_seconds_total", "CPU time, user and system", PROCESS, ofProcesses("cpuSeconds")),
  gauge("memory_bytes", "Resident memory", PROCESS, ofProcesses("memoryBytes")),
];
