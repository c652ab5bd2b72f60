/**
 * Where a primary's sockets come from, in this order: the generation before (an upgrade), systemd's descriptor store,
 * socket activation, and for what is still missing its own bind.
 */
import { AdmissionTable } from "../os/admission-table.ts";
import { Rows } from "./rows.ts";
import { Slots } from "./slots.ts";

const FIRST_GENERATION = 1;

export interface Origin {
  readonly generation: number;
  readonly admission: AdmissionTable;
  readonly rows: Rows;
  readonly slots: Slots;
}

/** A first start, with nothing inherited. */
export function freshOrigin(): Origin {
  const admission = AdmissionTable.create();
  admission.claimHalf(FIRST_GENERATION);
  return { generation: FIRST_GENERATION, admission, rows: new Rows(), slots: new Slots() };
}
