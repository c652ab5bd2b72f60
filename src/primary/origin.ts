/**
 * Where a primary's sockets come from, in this order: the generation before (an upgrade), systemd's descriptor store,
 * socket activation, and for what is still missing its own bind.
 */
import { AdmissionTable } from "../os/admission-table.ts";
import { CloseRings } from "../os/close-rings.ts";
import { TicketKeys } from "../os/ticket-keys.ts";
import { createTopicMemory } from "../os/topic-rings.ts";
import { Rows } from "./rows.ts";
import { Slots } from "./slots.ts";

const FIRST_GENERATION = 1;

export interface Origin {
  readonly generation: number;
  readonly admission: AdmissionTable;
  /** Memory of the topics (src/os/topic-rings.ts). */
  readonly topics: number;
  readonly tickets: TicketKeys;
  readonly closes: CloseRings;
  readonly rows: Rows;
  readonly slots: Slots;
}

/** A first start, with nothing inherited. */
export function freshOrigin(): Origin {
  const admission = AdmissionTable.create();
  admission.claimHalf(FIRST_GENERATION);
  const topics = createTopicMemory();
  const tickets = TicketKeys.create(Date.now());
  const closes = CloseRings.create();
  return { generation: FIRST_GENERATION, admission, topics, tickets, closes, rows: new Rows(), slots: new Slots() };
}
