// Watchdogs. Time comes in as an argument; nothing here reads a clock or the screen.

import { FREEZE_FRAME_TIMES, FREEZE_MS, GIVE_UP_MS, SILENT_MS } from "./limits.ts";

/** How long the picture of a feed may stand still: 400 ms, or more where the feed itself is slow. `fps` 0 is unknown. */
export function freezeLimitMs(fps: number): number {
  return fps > 0 ? Math.max(FREEZE_MS, (FREEZE_FRAME_TIMES * 1000) / fps) : FREEZE_MS;
}

/** Tells whether a picture that moved once stands still now. */
export class FreezeWatchdog {
  #lastMs: number | null = null;
  #resumedMs = -Infinity;

  handleFrame(nowMs: number): void {
    this.#lastMs = nowMs;
  }

  /** The page was hidden, and a hidden page is shown no frames: count from now. */
  handleResume(nowMs: number): void {
    this.#resumedMs = nowMs;
  }

  /** Whether there ever was a frame. */
  hasFrame(): boolean {
    return this.#lastMs !== null;
  }

  /** Since how long the picture stands still; null before the first one. */
  stillMs(nowMs: number): number | null {
    return this.#lastMs === null ? null : Math.max(0, nowMs - this.#lastMs);
  }

  isFrozen(nowMs: number, limitMs: number): boolean {
    if (this.#lastMs === null) return false;
    return nowMs - Math.max(this.#lastMs, this.#resumedMs) > limitMs;
  }
}

export type Answer = "answering" | "silent" | "giveUp";

/** Tells whether the relay answers. Any message counts as an answer, and without an open question nothing is missed. */
export class AnswerWatchdog {
  #heardMs: number;
  #askedMs: number | null = null;
  #checkedMs: number;

  constructor(nowMs: number) {
    this.#heardMs = nowMs;
    this.#checkedMs = nowMs;
  }

  handleQuestion(nowMs: number): void {
    this.#askedMs ??= nowMs;
  }

  handleMessage(nowMs: number): void {
    this.#heardMs = nowMs;
    this.#askedMs = null;
  }

  /** Since how long nothing was heard. */
  quietMs(nowMs: number): number {
    return nowMs - this.#heardMs;
  }

  check(nowMs: number): Answer {
    // A late check means that this page was held up: answers may lie unread in the queue. Let them in first.
    const late = nowMs - this.#checkedMs > SILENT_MS / 2;
    this.#checkedMs = nowMs;
    if (late || this.#askedMs === null) return "answering";
    const quiet = this.quietMs(nowMs);
    if (quiet > GIVE_UP_MS) return "giveUp";
    return quiet > SILENT_MS ? "silent" : "answering";
  }
}
