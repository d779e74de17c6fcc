// How a lost connection comes back: what to do next and when. Pure; time comes in as an argument.

import {
  BACKOFF_FIRST_MS,
  BACKOFF_MAX_MS,
  LEG_REFUSED_MS,
  RESTART_WAIT_MS,
  UNREACHABLE_FIRST_MS,
  UNREACHABLE_MAX_MS,
} from "./limits.ts";

/** Why an attempt came to nothing: no answer at all, an answer that rarely changes soon, or any other refusal. */
export type Failure = "unreachable" | "final" | "passing";

/** Waits between attempts. Without an answer they stay short: then it is the network that is tried, and nobody is burdened. */
export class Backoff {
  #nextMs = -Infinity;
  #unreachableMs = UNREACHABLE_FIRST_MS;
  #refusedMs = BACKOFF_FIRST_MS;
  #unreachable = false;

  isDue(nowMs: number): boolean {
    return nowMs >= this.#nextMs;
  }

  nextMs(): number {
    return this.#nextMs;
  }

  handleFailure(nowMs: number, failure: Failure): void {
    this.#unreachable = failure === "unreachable";
    if (failure === "final") {
      this.#nextMs = nowMs + LEG_REFUSED_MS;
    } else if (failure === "unreachable") {
      this.#nextMs = nowMs + this.#unreachableMs;
      this.#unreachableMs = Math.min(UNREACHABLE_MAX_MS, 2 * this.#unreachableMs);
    } else {
      this.#nextMs = nowMs + this.#refusedMs;
      this.#refusedMs = Math.min(BACKOFF_MAX_MS, 2 * this.#refusedMs);
    }
  }

  /** It works: the next failure begins with the shortest wait. */
  handleSuccess(): void {
    this.#unreachableMs = UNREACHABLE_FIRST_MS;
    this.#refusedMs = BACKOFF_FIRST_MS;
    this.#unreachable = false;
  }

  /** Something else reached the relay, or the system has a network again: a wait for the network is over. */
  handleReach(nowMs: number): void {
    if (!this.#unreachable) return;
    this.#unreachableMs = UNREACHABLE_FIRST_MS;
    this.#nextMs = Math.min(this.#nextMs, nowMs);
  }

  /** The next attempt is to be made now. */
  reset(nowMs: number): void {
    this.#nextMs = nowMs;
  }
}

export type Repair = "none" | "restart" | "replace";

/**
 * What is done about a WebRTC connection: where it is disconnected its ICE is restarted once, which keeps everything else;
 * where that does not help, or it failed, it is replaced by a new one.
 */
export class RepairPlan {
  #restartedMs: number | null = null;

  next(nowMs: number, state: RTCPeerConnectionState): Repair {
    if (state === "failed" || state === "closed") return "replace";
    if (state === "connected") this.#restartedMs = null;
    if (state !== "disconnected" && this.#restartedMs === null) return "none";
    if (this.#restartedMs === null) {
      this.#restartedMs = nowMs;
      return "restart";
    }
    return nowMs - this.#restartedMs > RESTART_WAIT_MS ? "replace" : "none";
  }

  /** The relay came back after a loss: whatever was tried before it counts for nothing. */
  reset(): void {
    this.#restartedMs = null;
  }
}
