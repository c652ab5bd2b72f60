/**
 * The plots: nine over the same minutes, with one cursor. uPlot draws them; its colours are those of the style sheet at
 * that moment, since a canvas knows no style sheets. Lines differ by dash as well as by colour.
 */
import type uPlot from "uplot";
import { byId, make, setText } from "./elements.js";
import { bytes, bytesPerSecond, clock, milliseconds, percent, short } from "./format.js";
import type { History, SeriesName } from "./history.js";

interface Line {
  readonly series: SeriesName;
  readonly label: string;
  /** A custom property of page.css. */
  readonly color: string;
  readonly dash?: number[];
  readonly filled?: boolean;
}

interface PlotOptions {
  readonly title: string;
  readonly lines: readonly Line[];
  readonly format: (value: number | null | undefined) => string;
  readonly logarithmic?: boolean;
  /** The scale reaches at least up to it, so that noise does not fill the plot. */
  readonly least: number;
}

/** Bound by a script of its own, which comes first. */
declare global {
  interface Window {
    readonly uPlot: typeof uPlot;
  }
}

const [FIRST, SECOND, THIRD, FOURTH] = ["--line-1", "--line-2", "--line-3", "--line-4"] as const;
const DASHED = [6, 3];
const DOTTED = [2, 3];

const PLOTS: readonly PlotOptions[] = [
  {
    title: "Connections",
    format: short,
    least: 10,
    lines: [{ series: "open", label: "open", color: FIRST, filled: true }],
  },
  {
    title: "Requests per second",
    format: short,
    least: 10,
    lines: [
      { series: "requests", label: "begun", color: FIRST, filled: true },
      { series: "shed", label: "shed", color: SECOND, dash: DASHED },
      { series: "failed", label: "late", color: THIRD, dash: DOTTED },
    ],
  },
  {
    title: "Latency",
    format: milliseconds,
    logarithmic: true,
    least: 1,
    lines: [
      { series: "p50", label: "p50", color: FIRST },
      { series: "p90", label: "p90", color: THIRD, dash: DASHED },
      { series: "p99", label: "p99", color: SECOND },
      { series: "p999", label: "p99.9", color: FOURTH, dash: DOTTED },
    ],
  },
  {
    title: "Coming and going per second",
    format: short,
    least: 10,
    lines: [
      { series: "accepted", label: "accepted", color: FIRST },
      { series: "closed", label: "closed", color: THIRD, dash: DASHED },
      { series: "rejected", label: "rejected", color: SECOND },
    ],
  },
  {
    title: "Throughput",
    format: bytesPerSecond,
    least: 1024,
    lines: [
      { series: "received", label: "received", color: FIRST },
      { series: "sent", label: "sent", color: SECOND, dash: DASHED },
    ],
  },
  {
    title: "Waiting",
    format: short,
    least: 10,
    lines: [
      { series: "waiting", label: "tasks queued", color: SECOND },
      { series: "inFlight", label: "in flight", color: FIRST, dash: DASHED },
    ],
  },
  {
    title: "Event loop delay, worst worker",
    format: milliseconds,
    least: 5,
    lines: [
      { series: "loopDelay", label: "p99", color: FIRST, filled: true },
      { series: "loopDelayMax", label: "longest", color: SECOND, dash: DOTTED },
    ],
  },
  {
    title: "CPU",
    format: percent,
    least: 100,
    lines: [
      { series: "cpuWorkers", label: "workers", color: FIRST, filled: true },
      { series: "cpuPrimary", label: "primary", color: SECOND, dash: DASHED },
    ],
  },
  {
    title: "Memory",
    format: bytes,
    least: 1 << 20,
    lines: [
      { series: "memory", label: "resident", color: FIRST, filled: true },
      { series: "heap", label: "V8 heap", color: SECOND, dash: DASHED },
      { series: "held", label: "buffers", color: THIRD, dash: DOTTED },
    ],
  },
];

/** Minutes that can be shown. */
const SPANS = [1, 5, 10] as const;
const HEIGHT = 132;
const FONT = "11px system-ui, sans-serif";

/** What a custom property of page.css is worth now, as a colour that a canvas takes. */
function colorOf(property: string): string {
  const probe = make("span");
  probe.style.color = `var(${property})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** The same colour, so thin that lines on it can be seen. */
function thin(color: string): string {
  return color.replace(/^rgb\(([^)]+)\)$/, "rgba($1, 0.13)");
}

/** Powers of ten around `low` and `high`. */
function decades(low: number, high: number): [number, number] {
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high))];
}

/** One line for each power of ten. */
function decadeSplits(low: number, high: number): number[] {
  const [from, to] = [Math.round(Math.log10(low)), Math.round(Math.log10(high))];
  return Array.from({ length: to - from + 1 }, (_, index) => 10 ** (from + index));
}

/** Bytes are counted by 1024. */
const BINARY_STEPS = Array.from({ length: 44 }, (_, power) => 2 ** power);

/** On an axis figures are round: 5.00 ms is 5 ms. */
function withoutZeros(text: string): string {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

class Plot {
  readonly element: HTMLElement;
  readonly #options: PlotOptions;
  readonly #history: History;
  readonly #marks: readonly number[];
  readonly #values: readonly HTMLElement[];
  readonly #frame: HTMLElement = make("div", { class: "frame", role: "img" });
  #plot: uPlot | undefined;

  /** `marks`: times, in seconds, at which the server was changed. */
  constructor(options: PlotOptions, history: History, marks: readonly number[]) {
    this.#options = options;
    this.#history = history;
    this.#marks = marks;
    this.#values = options.lines.map(() => make("span", { class: "value" }));
    const legend = options.lines.map(({ label, color, dash }, index) => {
      const swatch = make("span", { class: dash ? (dash === DOTTED ? "swatch dotted" : "swatch dashed") : "swatch" });
      swatch.style.color = `var(${color})`;
      return make("span", {}, swatch, label, " ", this.#values[index] ?? "");
    });
    const head = make(
      "div",
      { class: "plot-head" },
      make("h3", {}, options.title),
      make("p", { class: "legend" }, ...legend),
    );
    this.element = make("div", { class: "card plot" }, head, this.#frame);
  }

  /** Draws anew from nothing: the colours, or the room, have changed. */
  build(): void {
    this.#plot?.destroy();
    const width = this.#frame.clientWidth;
    this.#plot = width > 0 ? new window.uPlot(this.#drawing(width), this.#data(), this.#frame) : undefined;
  }

  resize(): void {
    const width = this.#frame.clientWidth;
    if (!this.#plot) this.build();
    else if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  draw(from: number, to: number): void {
    const plot = this.#plot;
    if (!plot) return;
    plot.batch(() => {
      plot.setData(this.#data(), false);
      plot.setScale("x", { min: from, max: to });
    });
    this.#tell(plot.cursor.idx ?? undefined);
  }

  #data(): uPlot.AlignedData {
    return [this.#history.times, ...this.#options.lines.map(({ series }) => this.#history.series(series))];
  }

  /** The figures beside the names: those under the cursor, else the last. */
  #tell(index: number = this.#history.times.length - 1): void {
    const told = this.#options.lines.map(({ series, label }, line) => {
      const text = this.#options.format(this.#history.series(series)[index]);
      const value = this.#values[line];
      if (value) setText(value, text);
      return `${label} ${text}`;
    });
    const label = `${this.#options.title}: ${told.join(", ")}`;
    if (this.#frame.ariaLabel !== label) this.#frame.ariaLabel = label;
  }

  #drawing(width: number): uPlot.Options {
    const { lines, format, logarithmic = false, least } = this.#options;
    const binary = format === bytes || format === bytesPerSecond;
    const [grid, text, mark] = [colorOf("--grid"), colorOf("--quiet"), colorOf("--mark")];
    const axis = { stroke: text, font: FONT, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    return {
      width,
      height: HEIGHT,
      padding: [8, 26, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "headrace" }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      scales: {
        x: { time: true, auto: false },
        y: {
          distr: logarithmic ? 3 : 1,
          range: (_, low, high) =>
            logarithmic ? decades(low > 0 ? low : 0.01, Math.max(high, least)) : [0, Math.max(high * 1.1, least)],
        },
      },
      axes: [
        { ...axis, size: 22, space: 80, values: (_, times) => times.map((time) => clock(time * 1000).slice(0, 8)) },
        {
          ...axis,
          size: 62,
          space: 30,
          gap: 4,
          ...(logarithmic
            ? { splits: (_: uPlot, __: number, low: number, high: number) => decadeSplits(low, high) }
            : {}),
          ...(binary ? { incrs: BINARY_STEPS } : {}),
          values: (_, values) => values.map((value) => (value === null ? "" : withoutZeros(format(value)))),
        },
      ],
      series: [
        {},
        ...lines.map(({ label, color, dash, filled }): uPlot.Series => {
          const stroke = colorOf(color);
          return {
            ...{ label, stroke, width: 1.5, points: { show: false } },
            ...(dash ? { dash } : {}),
            ...(filled ? { fill: thin(stroke) } : {}),
          };
        }),
      ],
      hooks: {
        setCursor: [(plot) => this.#tell(plot.cursor.idx ?? undefined)],
        drawAxes: [(plot) => this.#drawMarks(plot, mark)],
      },
    };
  }

  #drawMarks({ ctx, bbox, valToPos }: uPlot, color: string): void {
    ctx.save();
    ctx.strokeStyle = color;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const time of this.#marks) {
      const x = Math.round(valToPos(time, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

export class Plots {
  readonly #history: History;
  readonly #plots: readonly Plot[];
  #minutes: number = SPANS[1];

  constructor(history: History, marks: readonly number[]) {
    this.#history = history;
    this.#plots = PLOTS.map((options) => new Plot(options, history, marks));
    const place = byId("plots", HTMLElement);
    place.append(...this.#plots.map(({ element }) => element));
    new ResizeObserver(() => {
      for (const plot of this.#plots) plot.resize();
      this.draw();
    }).observe(place);
    byId("spans", HTMLElement).append(...SPANS.map((minutes) => this.#button(minutes)));
  }

  /** After a change of theme. */
  rebuild(): void {
    for (const plot of this.#plots) plot.build();
    this.draw();
  }

  draw(): void {
    const { times } = this.#history;
    const to = times.at(-1) ?? Date.now() / 1000;
    // A page that was just opened begins with a minute, not with emptiness.
    const span = Math.min(this.#minutes * 60, Math.max(60, to - (times[0] ?? to)));
    for (const plot of this.#plots) plot.draw(to - span, to);
  }

  #button(minutes: number): HTMLButtonElement {
    const pressed = (): string => String(minutes === this.#minutes);
    const button = make("button", { type: "button", "aria-pressed": pressed() }, `${minutes} min`);
    button.addEventListener("click", () => {
      this.#minutes = minutes;
      for (const other of button.parentElement?.children ?? []) other.ariaPressed = String(other === button);
      this.draw();
    });
    return button;
  }
}
