// STOP: pressed on purpose, sent once, and not again for ten seconds. Pure; time comes in as an argument.

import { CONFIRM_MS, NOTICE_MS, STOP_ARMED_MS, STOP_EVERY_MS, STOP_HOLD_MS } from "../limits.ts";

/** `armed`: pressed once by somebody who cannot hold. `waiting`: too soon for another. */
export type StopPhase = "ready" | "holding" | "armed" | "waiting";

/** What became of the last one: `silent` is sent, and nobody has confirmed it. */
export type StopOutcome = { kind: "none" | "short" | "sent" | "silent" | "told" | "offline" } | { kind: "refused"; detail: string };

export class StopModel {
  #heldMs: number | null = null;
  #armedMs = -Infinity;
  #sentMs = -Infinity;
  #outcome: StopOutcome = { kind: "none" };
  #outcomeMs = -Infinity;

  /** `send` returns whether it left. */
  constructor(private readonly send: (reason: string) => boolean) {}

  /** The button or the key goes down. Held on, it fires. */
  press(nowMs: number): void {
    if (this.waitMs(nowMs) === 0 && this.#heldMs === null) this.#heldMs = nowMs;
  }

  /** Let go: too early is no stop, and says so. */
  release(nowMs: number): void {
    if (this.#heldMs !== null) this.#set(nowMs, { kind: "short" });
    this.#heldMs = null;
  }

  /** A press that cannot be held, as assistive technology makes it: the second one fires. */
  click(nowMs: number, reason: string): void {
    if (this.waitMs(nowMs) > 0) return;
    if (nowMs - this.#armedMs <= STOP_ARMED_MS) return this.#fire(nowMs, reason);
    this.#armedMs = nowMs;
  }

  /** To be called every tick, with the reason that goes with a stop that fires now. */
  handleTick(nowMs: number, reason: string): void {
    if (this.#heldMs !== null && nowMs - this.#heldMs >= STOP_HOLD_MS) this.#fire(nowMs, reason);
    const sinceMs = nowMs - this.#outcomeMs;
    if (this.#outcome.kind === "sent" && sinceMs > CONFIRM_MS) this.#set(nowMs, { kind: "silent" });
    else if (sinceMs > (this.#outcome.kind === "short" ? STOP_ARMED_MS : NOTICE_MS)) this.#outcome = { kind: "none" };
  }

  /** Everybody was told of this person's stop. */
  handleNotice(nowMs: number): void {
    if (this.#outcome.kind === "sent" || this.#outcome.kind === "silent") this.#set(nowMs, { kind: "told" });
  }

  handleRefused(nowMs: number, detail: string): void {
    this.#set(nowMs, { kind: "refused", detail });
  }

  phase(nowMs: number): StopPhase {
    if (this.#heldMs !== null) return "holding";
    if (this.waitMs(nowMs) > 0) return "waiting";
    return nowMs - this.#armedMs <= STOP_ARMED_MS ? "armed" : "ready";
  }

  /** How far a press has come, 0 to 1. */
  progress(nowMs: number): number {
    return this.#heldMs === null ? 0 : Math.min(1, (nowMs - this.#heldMs) / STOP_HOLD_MS);
  }

  /** Until the next one may be sent. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.#sentMs + STOP_EVERY_MS - nowMs);
  }

  outcome(): StopOutcome {
    return this.#outcome;
  }

  #fire(nowMs: number, reason: string): void {
    this.#heldMs = null;
    this.#armedMs = -Infinity;
    // What did not leave may be tried again at once.
    if (!this.send(reason)) return this.#set(nowMs, { kind: "offline" });
    this.#sentMs = nowMs;
    this.#set(nowMs, { kind: "sent" });
  }

  #set(nowMs: number, outcome: StopOutcome): void {
    this.#outcome = outcome;
    this.#outcomeMs = nowMs;
  }
}
