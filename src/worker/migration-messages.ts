/**
 * What the two workers of a move say to each other, one JSON text per message of the channel; bulk travels beside it
 * as a memfd. migration.ts has the order. A change of any of it raises PROTOCOL: workers of two versions do not move
 * connections between them.
 */
import type { Endpoint } from "../connection/endpoint.ts";

export const PROTOCOL = 3;

/** What one end has to know of the other's endpoint to tell whether a connection can go on there. */
export interface EndpointSummary {
  readonly key: string;
  readonly service: string;
  readonly codec: string;
  readonly stateVersion: number;
  readonly resumes: boolean;
  readonly takesOver: boolean;
}

/** The first message of either side. Only `type` and `version` mean the same in every version. */
export interface Hello {
  readonly type: "hello";
  readonly version: number;
  readonly endpoints: readonly EndpointSummary[];
  /** Connections that it can take, by its descriptors; 0 from the side that gives. */
  readonly room: number;
}

/** From the worker that the connections leave. Endpoints are named by their place in its hello. */
export type FromSource =
  | Hello
  /** With a memfd of so many bytes, unless there are none. */
  | { readonly type: "handOff"; readonly endpoint: number; readonly bytes: number }
  /** With a memfd of so many bytes (migration-batch.ts), then a descriptor per connection. */
  | { readonly type: "batch"; readonly batch: number; readonly count: number; readonly bytes: number }
  /** All that were sent are answered, and no more come. */
  | { readonly type: "end" };

/** The answer to part of a batch: connections `from` to `from + count` are the target's now, but for `refused`. */
export interface Ack {
  readonly type: "ack";
  readonly batch: number;
  readonly from: number;
  readonly count: number;
  readonly refused: readonly number[];
}

/** From the worker that they come to. */
export type FromTarget =
  | Hello
  /** `problem`: why the service did not take over what was handed off. */
  | { readonly type: "tookOver"; readonly endpoint: number; readonly problem?: string }
  | Ack;

export function summaryOf({ key, service }: Endpoint): EndpointSummary {
  return {
    key,
    service: service.name,
    codec: service.codec.name,
    stateVersion: service.stateVersion,
    resumes: service.resume !== undefined,
    takesOver: service.takeOver !== undefined,
  };
}

/** Why connections of `endpoint` cannot go on in `there`, the other worker's endpoints; undefined when they can. */
export function obstacle(endpoint: Endpoint, there: readonly EndpointSummary[]): string | undefined {
  const here = summaryOf(endpoint);
  const { service } = endpoint;
  if (!service.migrate) return "the service does not migrate";
  const same = there.find(({ key }) => key === here.key);
  if (!same) return "the other worker does not have the listener";
  if (same.service !== here.service || same.codec !== here.codec) {
    return `the other worker runs another service there: ${same.service} (${same.codec})`;
  }
  if (service.handOff && !same.takesOver) return "the service there has no takeOver";
  if (same.stateVersion !== here.stateVersion && !same.resumes) {
    return `stateVersion is ${here.stateVersion} here and ${same.stateVersion} there, and the service there has no resume`;
  }
  return undefined;
}
