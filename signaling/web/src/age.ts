// Which moment a picture shows: the map from a leg's RTP time to capture time, and the age that follows from it.

import { AGE_AMBER_MS, AGE_RED_MS, DISPLAY_INTERVAL_US, LEGS_KEPT, POINTS_KEPT, POINT_TRUST_MS } from "./limits.ts";
import type { Offset } from "./clock.ts";
import type { CapturePoint, WallMicros } from "./types.ts";

/** When a frame was captured or, where nobody knows that, when the relay had it. On the relay's clock unless said otherwise. */
export interface Origin {
  kind: "capture" | "received";
  atUs: WallMicros;
  uncertaintyUs: number;
}

/** Age of a picture. `atLeast`: counted from the relay's reception, so the truth is more. */
export type Age =
  | { kind: "known"; ms: number; uncertaintyMs: number }
  | { kind: "atLeast"; ms: number; uncertaintyMs: number }
  | { kind: "unknown" };

export type AgeLevel = "good" | "amber" | "red" | "none";

interface Kept extends CapturePoint {
  atMs: number;
}

/** Signed distance from `b` to `a` in RTP ticks, right across the wrap of the 32-bit timestamp (RFC 3550 section 5.1). */
export function rtpSince(a: number, b: number): number {
  return (a - b) | 0;
}

/** The points of one leg. */
export class CaptureMap {
  #points: Kept[] = [];

  handlePoint(nowMs: number, point: CapturePoint): void {
    if (!(point.clock_rate > 0)) return;
    if (this.#points.length >= POINTS_KEPT) this.#points.shift();
    this.#points.push({ ...point, atMs: nowMs });
  }

  /** Origin of the frame with that RTP timestamp, from the nearest point; null where no trusted point is near. */
  origin(nowMs: number, rtp: number): Origin | null {
    let best: Kept | null = null;
    let bestMs = Infinity;
    for (const p of this.#points) {
      if (nowMs - p.atMs > POINT_TRUST_MS) continue;
      const distanceMs = Math.abs(rtpSince(rtp, p.rtp) * 1000) / p.clock_rate;
      // On a tie the newer point wins: it was made with what the relay knows now.
      if (distanceMs <= POINT_TRUST_MS && distanceMs <= bestMs) [best, bestMs] = [p, distanceMs];
    }
    if (best === null) return null;
    const aheadUs = (rtpSince(rtp, best.rtp) * 1e6) / best.clock_rate;
    if (best.capture === null || best.capture === undefined) {
      return { kind: "received", atUs: best.received + aheadUs, uncertaintyUs: 0 };
    }
    return { kind: "capture", atUs: best.capture + aheadUs, uncertaintyUs: best.uncertainty_us };
  }
}

/** The maps of all legs of this page. Points may come before the answer that names their leg, so any leg is taken. */
export class CaptureMaps {
  readonly #legs = new Map<string, CaptureMap>();

  handlePoint(nowMs: number, point: CapturePoint): void {
    const map = this.#legs.get(point.leg) ?? new CaptureMap();
    // Set anew, so that the first of the list is the leg that has been silent longest.
    this.#legs.delete(point.leg);
    this.#legs.set(point.leg, map);
    map.handlePoint(nowMs, point);
    const oldest = this.#legs.keys().next();
    if (this.#legs.size > LEGS_KEPT && !oldest.done) this.#legs.delete(oldest.value);
  }

  /** The leg carries another feed from here on: what was known of its timestamps holds no longer. */
  forget(leg: string): void {
    this.#legs.delete(leg);
  }

  origin(nowMs: number, leg: string, rtp: number): Origin | null {
    return this.#legs.get(leg)?.origin(nowMs, rtp) ?? null;
  }
}

/**
 * The same moment on this page's clock, or null where the relay's clock is unknown. Kept with the frame, so that the age of
 * a picture that stands still goes on growing when the relay is gone.
 */
export function onClientClock(origin: Origin | null, clock: Offset | null): Origin | null {
  if (origin === null || clock === null) return null;
  return {
    kind: origin.kind,
    atUs: origin.atUs - clock.offsetUs,
    uncertaintyUs: origin.uncertaintyUs + clock.uncertaintyUs,
  };
}

/** Age at the moment `nowUs`; both on this page's clock. */
export function ageAt(nowUs: WallMicros, origin: Origin | null): Age {
  if (origin === null) return { kind: "unknown" };
  const ms = Math.max(0, Math.round((nowUs - origin.atUs) / 1000));
  const uncertaintyMs = Math.ceil((origin.uncertaintyUs + DISPLAY_INTERVAL_US) / 1000);
  return { kind: origin.kind === "capture" ? "known" : "atLeast", ms, uncertaintyMs };
}

/** What the age means. An age that is only a lower bound is never called good. */
export function ageLevel(age: Age): AgeLevel {
  if (age.kind === "unknown") return "none";
  if (age.ms >= AGE_RED_MS) return "red";
  if (age.ms >= AGE_AMBER_MS) return "amber";
  return age.kind === "known" ? "good" : "none";
}
