// Which picture goes where. Pure: the page writes down what comes out.

export const LAYOUTS = ["large", "grid", "pair"] as const;
export type Layout = (typeof LAYOUTS)[number];

/** `large`: gets the room. `second`: the other of a pair. `cell`: one of equals. `small`: in the strip. */
export type Place = "large" | "second" | "cell" | "small";

export function isLayout(text: string): text is Layout {
  return (LAYOUTS as readonly string[]).includes(text);
}

export class LayoutState {
  /** The pictures that the person chose, the last choice first; the page chooses the rest. */
  #chosen: string[] = [];

  constructor(public layout: Layout = "large") {}

  next(): Layout {
    this.layout = LAYOUTS[(LAYOUTS.indexOf(this.layout) + 1) % LAYOUTS.length] ?? "large";
    return this.layout;
  }

  /** The person wants to see that picture large: in a pair it replaces the one that was chosen longer ago. */
  choose(feed: string): void {
    this.#chosen = [feed, ...this.#chosen.filter((f) => f !== feed)].slice(0, 2);
    if (this.layout === "grid") this.layout = "large";
  }

  /** `ranked`: all pictures, the most important first. A picture that is chosen but gone is taken again when it comes back. */
  places(ranked: readonly string[]): Map<string, Place> {
    if (this.layout === "grid" && ranked.length > 1) return new Map(ranked.map((feed) => [feed, "cell"]));
    const first = this.#chosen.find((feed) => ranked.includes(feed)) ?? ranked[0];
    const others = [...this.#chosen.slice(1), ...ranked].filter((feed) => feed !== first && ranked.includes(feed));
    const second = this.layout === "pair" ? others[0] : undefined;
    return new Map(ranked.map((feed) => [feed, feed === first ? "large" : feed === second ? "second" : "small"]));
  }
}

/** Columns with which so many pictures of 16:9 are largest in a room of that size, in pixels. */
export function gridColumns(count: number, width: number, height: number): number {
  let best = 1;
  let bestWidth = 0;
  for (let columns = 1; columns <= Math.max(1, count); columns += 1) {
    const rows = Math.ceil(count / columns);
    const cell = Math.min(width / columns, ((height / rows) * 16) / 9);
    if (cell > bestWidth + 0.5) [best, bestWidth] = [columns, cell];
  }
  return best;
}
