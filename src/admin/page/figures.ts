/** The tiles at the top: the eight figures to look at first, each with what explains it. */
import type { PageEvent } from "#src/admin/page-events.js";
import { byId, make, setData, setText } from "./elements.js";
import { bytes, bytesPerSecond, count, milliseconds, NOTHING, percent, short } from "./format.js";
import type { Sample } from "./history.js";

interface Told {
  readonly value: string;
  readonly detail: string;
  /** Somebody should look at it. */
  readonly warn?: boolean;
}

interface Tile {
  readonly title: string;
  tell(sample: Sample, event: PageEvent): Told;
}

/** Before a unit a line does not end. */
const UNIT = /(\d) (?=\S)/g;
/** A loop that is held up for so long makes everybody on it wait. */
const LOOP_DELAY_MS = 100;

function rate(value: number | null): string {
  return value === null ? NOTHING : `${short(value)}/s`;
}

/** New ones and those that ended, per second. */
function flow({ accepted, closed }: Sample): string {
  return accepted === null || closed === null ? NOTHING : `+${short(accepted)} −${short(closed)} per second`;
}

const TILES: readonly Tile[] = [
  {
    title: "Connections",
    tell: (sample, { totals }) => {
      const rejecting = (sample.rejected ?? 0) > 0;
      const opening = totals.prefaces > 0 ? `, ${short(totals.prefaces)} opening` : "";
      return {
        value: count(sample.open),
        detail: rejecting ? `${rate(sample.rejected)} rejected` : `${flow(sample)}${opening}`,
        warn: rejecting,
      };
    },
  },
  {
    title: "Requests",
    tell: ({ requests, shed, failed }) => ({
      value: rate(requests),
      detail: `${rate(shed)} shed, ${rate(failed)} late`,
      warn: (shed ?? 0) > 0 || (failed ?? 0) > 0,
    }),
  },
  {
    title: "Latency p99",
    tell: ({ p50, p99, p999 }) => ({
      value: milliseconds(p99),
      detail: `p50 ${milliseconds(p50)}, p99.9 ${milliseconds(p999)}`,
    }),
  },
  {
    title: "Throughput",
    tell: ({ received, sent }) => ({
      value: received === null || sent === null ? NOTHING : bytesPerSecond(received + sent),
      detail: `in ${bytesPerSecond(received)}, out ${bytesPerSecond(sent)}`,
    }),
  },
  {
    title: "Queued tasks",
    tell: ({ waiting, inFlight, oldestMs }) => ({
      value: count(waiting),
      detail: `${count(inFlight)} in flight${inFlight > 0 && oldestMs > 0 ? `, oldest ${milliseconds(oldestMs)}` : ""}`,
    }),
  },
  {
    title: "Loop delay p99",
    tell: ({ loopDelay, loopDelayMax }, { workers }) => {
      const worst = workers.find(({ loopDelayMs }) => loopDelayMs === loopDelay);
      return {
        value: milliseconds(loopDelay),
        detail: `worker ${worst?.slot ?? NOTHING}, longest ${milliseconds(loopDelayMax)}`,
        warn: loopDelay >= LOOP_DELAY_MS,
      };
    },
  },
  {
    title: "CPU",
    tell: ({ cpuWorkers, cpuPrimary }) => ({
      value: percent(cpuWorkers + cpuPrimary),
      detail: `workers ${percent(cpuWorkers)}, primary ${percent(cpuPrimary)}`,
    }),
  },
  {
    title: "Memory",
    tell: ({ memory, heap, held }) => ({
      value: bytes(memory),
      detail: `heap ${bytes(heap)}, buffers ${bytes(held)}`,
    }),
  },
];

export class Figures {
  readonly #shown = TILES.map(({ tell, title }) => {
    const [value, detail] = [make("strong"), make("span", { class: "detail" })];
    const tile = make("li", { class: "card tile" }, make("span", { class: "title" }, title), value, detail);
    return { tell, value, detail, tile };
  });

  constructor() {
    byId("tiles", HTMLElement).append(...this.#shown.map(({ tile }) => tile));
  }

  show(sample: Sample, event: PageEvent): void {
    for (const { tell, value, detail, tile } of this.#shown) {
      const told = tell(sample, event);
      setText(value, told.value);
      setText(detail, told.detail.replaceAll(UNIT, "$1\u00a0"));
      setData(tile, "warn", String(told.warn ?? false));
    }
  }
}
