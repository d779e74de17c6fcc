// The drawer with the figures of one picture over the last minute, as small graphs, and all of them as JSON.

import { button, el, say, setData, setHidden, setText } from "./dom.ts";
import { HISTORY_SAMPLES, linePath, MEASURES, scaleTop, type History, type Measure } from "./history.ts";
import { bitRate, number, t, type TextKey } from "./strings.ts";

export interface Measured {
  feed: string;
  /** What the picture is called. */
  title: string;
  history: History;
}

interface Graph {
  element: HTMLElement;
  render: (history: History) => void;
}

const [WIDTH, HEIGHT] = [300, 52];
const SVG = "http://www.w3.org/2000/svg";

/** Label, smallest top of the scale, and how a value is written. */
const KINDS: Record<Measure, { label: TextKey; least: number; write: (value: number) => string }> = {
  ageMs: { label: "stats.age", least: 100, write: (v) => `${number(v)} ms` },
  framesPerSecond: { label: "stats.rate", least: 10, write: (v) => t.tile.frameRate(number(v, 1)) },
  bitsPerSecond: { label: "stats.bits", least: 1e5, write: bitRate },
  lossPercent: { label: "stats.loss", least: 1, write: (v) => `${number(v, 1)} %` },
  bufferMs: { label: "stats.buffer", least: 10, write: (v) => `${number(v, 1)} ms` },
  roundTripMs: { label: "stats.trip", least: 10, write: (v) => `${number(v, 1)} ms` },
};

export class Statistics {
  readonly element: HTMLElement;
  readonly #select = el("select", { id: "stats-feed" });
  readonly #none = say(el("p", { class: "quiet" }), "stats.none");
  readonly #graphs = MEASURES.map((measure) => graph(measure));
  readonly #all = el("div", { class: "graphs" }, ...this.#graphs.map((g) => g.element));
  #measured: readonly Measured[] = [];

  constructor() {
    const choose = el("div", { class: "choose" }, say(el("label", { for: "stats-feed" }), "stats.feed"), this.#select);
    const foot = el("p", { class: "hint" }, say(el("span"), "stats.last"), " · ", say(el("span"), "stats.gap"));
    const save = button("stats.export", () => this.#save(), { class: "save" });
    this.element = el("div", { class: "side-body stats" }, choose, this.#none, this.#all, foot, save);
    this.#select.addEventListener("change", () => this.render(this.#measured));
  }

  /** `measured`: the most important picture first. */
  render(measured: readonly Measured[]): void {
    this.#measured = measured;
    const known = [...this.#select.options].map((o) => `${o.value} ${o.text}`).join("\n");
    if (measured.map((m) => `${m.feed} ${m.title}`).join("\n") !== known) {
      const chosen = this.#select.value;
      this.#select.replaceChildren(...measured.map((m) => new Option(m.title, m.feed)));
      if (measured.some((m) => m.feed === chosen)) this.#select.value = chosen;
    }
    const shown = measured.find((m) => m.feed === this.#select.value);
    setHidden(this.#none, shown !== undefined);
    setHidden(this.#all, shown === undefined);
    setData(this.element, "samples", String(shown?.history.samples().length ?? 0));
    if (shown !== undefined) for (const g of this.#graphs) g.render(shown.history);
  }

  /** Everything that is kept, with units in the names; times are milliseconds since the Unix epoch. */
  json(): string {
    const feeds = this.#measured.map(({ feed, history }) => ({
      feed,
      samples: history.samples().map((s) => ({ ...s, atMs: Math.round(performance.timeOrigin + s.atMs) })),
    }));
    return JSON.stringify({ savedAt: new Date().toISOString(), feeds }, null, 2);
  }

  #save(): void {
    const url = URL.createObjectURL(new Blob([this.json()], { type: "application/json" }));
    const stamp = new Date().toISOString().replace(/[:.]/g, "-");
    el("a", { href: url, download: `trocar-figures-${stamp}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

function graph(measure: Measure): Graph {
  const { label, least, write } = KINDS[measure];
  const line = document.createElementNS(SVG, "path");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 -2 ${WIDTH} ${HEIGHT + 4}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  const value = el("strong");
  const worst = el("span", { class: "worst" });
  const top = el("span", { class: "top" });
  const head = el("div", { class: "line" }, say(el("span", { class: "label" }), label), value);
  const foot = el("div", { class: "line foot" }, worst, top);
  const element = el("section", { class: "graph", "data-measure": measure }, head, foot);
  element.insertBefore(svg, foot);
  return {
    element,
    render(history) {
      const values = history.series(measure);
      const scale = scaleTop(values, least);
      line.setAttribute("d", linePath(values.slice(-HISTORY_SAMPLES), scale, WIDTH, HEIGHT));
      const last = values[values.length - 1] ?? null;
      const known = values.filter((v) => v !== null);
      setText(value, last === null ? t.tile.none : write(last));
      setText(worst, known.length === 0 ? "" : t.stats.worst(write(Math.max(...known))));
      setText(top, `0 – ${write(scale)}`);
    },
  };
}
