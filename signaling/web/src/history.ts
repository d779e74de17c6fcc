// The last minute of a picture's figures, one sample a second. Pure.

/** Samples kept: 60 s. */
export const HISTORY_SAMPLES = 60;

export const MEASURES = ["ageMs", "framesPerSecond", "bitsPerSecond", "lossPercent", "bufferMs", "roundTripMs"] as const;
export type Measure = (typeof MEASURES)[number];

/** Null: not known then. The age is the highest that was shown in that second. */
export type Sample = { atMs: number } & Record<Measure, number | null>;

export class History {
  #samples: Sample[] = [];
  #ageMs: number | null = null;

  /** An age was shown. */
  handleAge(ms: number | null): void {
    if (ms !== null) this.#ageMs = Math.max(this.#ageMs ?? 0, ms);
  }

  handleSample(sample: Omit<Sample, "ageMs">): void {
    this.#samples.push({ ...sample, ageMs: this.#ageMs });
    this.#ageMs = null;
    if (this.#samples.length > HISTORY_SAMPLES) this.#samples.shift();
  }

  samples(): readonly Sample[] {
    return this.#samples;
  }

  series(measure: Measure): (number | null)[] {
    return this.#samples.map((s) => s[measure]);
  }
}

/** The top of a scale that holds all values: 1, 2 or 5 times a power of ten, and never below `least`. */
export function scaleTop(values: readonly (number | null)[], least: number): number {
  const highest = Math.max(least, ...values.map((v) => v ?? 0));
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= highest) ?? highest;
}

/** SVG path data of a series, the newest at the right edge; a null breaks the line. A value alone is a dot. */
export function linePath(values: readonly (number | null)[], top: number, width: number, height: number): string {
  const step = width / (HISTORY_SAMPLES - 1);
  const left = width - (values.length - 1) * step;
  const parts: string[] = [];
  values.forEach((value, i) => {
    if (value === null) return;
    const x = (left + i * step).toFixed(1);
    const y = (height - (Math.min(value, top) / top) * height).toFixed(1);
    const begins = i === 0 || values[i - 1] === null;
    parts.push(`${begins ? "M" : "L"}${x} ${y}`);
    if (begins && (values[i + 1] ?? null) === null) parts.push("h.1");
  });
  return parts.join("");
}
