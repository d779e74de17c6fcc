// The relay's clock as seen from here: four-timestamp exchange, quickest sample of the last 30 s. As proto::session::clock.

import { CLOCK_SAMPLES, CLOCK_WINDOW_MS } from "./limits.ts";
import type { WallMicros } from "./types.ts";

/** Four timestamps: question left (ours), came (theirs); answer left (theirs), came (ours). */
export interface Exchange {
  t0: WallMicros;
  t1: WallMicros;
  t2: WallMicros;
  t3: WallMicros;
}

/** Their clock minus ours; the truth is within the uncertainty. */
export interface Offset {
  offsetUs: number;
  uncertaintyUs: number;
}

interface Sample extends Offset {
  atMs: number;
  rttUs: number;
}

/** This page's clock in microseconds since the Unix epoch. It never jumps: it is the monotonic clock from a fixed start. */
export function clientClockUs(atMs: number): WallMicros {
  return Math.round((performance.timeOrigin + atMs) * 1000);
}

export class ClockFilter {
  #samples: Sample[] = [];

  /** Takes one exchange; one with a negative round trip (a clock was set meanwhile) is dropped. */
  handleExchange(nowMs: number, e: Exchange): void {
    const rttUs = e.t3 - e.t0 - (e.t2 - e.t1);
    if (!Number.isFinite(rttUs) || rttUs < 0) return;
    const offsetUs = Math.trunc((e.t1 - e.t0 + (e.t2 - e.t3)) / 2);
    const sample = { atMs: nowMs, rttUs, offsetUs, uncertaintyUs: Math.ceil(rttUs / 2) };
    // Two intervals that do not meet cannot both be right: a clock was set, or this machine slept. The past is void.
    this.#samples = this.#samples.filter((s) => meets(s, sample));
    if (this.#samples.length >= CLOCK_SAMPLES) this.#samples.shift();
    this.#samples.push(sample);
  }

  /** The offset by the quickest exchange of the last 30 s; null where there was none. */
  offset(nowMs: number): Offset | null {
    let best: Sample | null = null;
    for (const s of this.#samples) {
      if (nowMs - s.atMs <= CLOCK_WINDOW_MS && (best === null || s.rttUs < best.rttUs)) best = s;
    }
    return best && { offsetUs: best.offsetUs, uncertaintyUs: best.uncertaintyUs };
  }

  /** Forgets everything: the next answer may come from another machine. */
  reset(): void {
    this.#samples = [];
  }
}

/** Drift that two honest crystals may show within the window, 100 ppm of 30 s. */
const DRIFT_US = 3000;

function meets(a: Sample, b: Sample): boolean {
  return Math.abs(a.offsetUs - b.offsetUs) <= a.uncertaintyUs + b.uncertaintyUs + DRIFT_US;
}
