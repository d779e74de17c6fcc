// What this screen may believe of the register: nothing older than `status_age` by its own probe. As proto::handover::mirror. Pure.

import { CONTROL_AGE_MS, PROBES_KEPT, SLEPT_MS } from "../limits.ts";
import { CONTROL_MODES, type ControlInfo } from "../types.ts";

/** `unknown` is "control unknown, hands off", with how long it has been so. */
export type ControlView = { kind: "unknown"; forMs: number } | { kind: "known"; control: ControlInfo; ageMs: number; elapsedMs: number };

interface Seen {
  control: ControlInfo;
  /** When the newest probe that was answered was sent. */
  sentMs: number;
  /** When the message came: only how long a state has lasted is counted from it. */
  cameMs: number;
}

export class Mirror {
  #probes: { nonce: string; sentMs: number }[] = [];
  #seen: Seen | null = null;
  /** Since when nothing has been known, where nothing was seen. */
  #unknownMs: number;

  constructor(nowMs: number) {
    this.#unknownMs = nowMs;
  }

  /** A probe goes out now; `nonce` is random. */
  probed(nowMs: number, nonce: string): void {
    if (this.#probes.length >= PROBES_KEPT) this.#probes.shift();
    this.#probes.push({ nonce, sentMs: nowMs });
  }

  /**
   * A STATUS came. It counts when it answers a probe of ours; without an answer only a higher epoch counts, and makes nothing
   * younger. A lower epoch never does (HO-V-004).
   */
  handle(nowMs: number, control: ControlInfo): void {
    if (!isSound(control)) return;
    const answered = this.#probes.filter((probe) => control.answers.includes(probe.nonce)).map((probe) => probe.sentMs);
    const sentMs = answered.length === 0 ? null : Math.max(...answered);
    const before = this.#seen;
    if (before !== null && control.epoch < before.control.epoch) return;
    const higher = before !== null && control.epoch > before.control.epoch;
    if (sentMs === null && !higher) return;
    if (sentMs !== null && before !== null && sentMs < before.sentMs && !higher) return;
    if (sentMs !== null) this.#probes = this.#probes.filter((probe) => probe.sentMs > sentMs);
    this.#seen = { control, sentMs: Math.max(sentMs ?? -Infinity, before?.sentMs ?? -Infinity), cameMs: nowMs };
  }

  /** Nothing that was seen or asked counts any more: the gate is lost, or this page slept. */
  forget(nowMs: number): void {
    const view = this.view(nowMs);
    this.#unknownMs = view.kind === "known" ? nowMs : nowMs - view.forMs;
    this.#seen = null;
    this.#probes = [];
  }

  /** What may be shown now (HO-V-001, HO-V-002). */
  view(nowMs: number): ControlView {
    if (this.#seen === null) return { kind: "unknown", forMs: Math.max(0, nowMs - this.#unknownMs) };
    const { control, sentMs, cameMs } = this.#seen;
    const ageMs = nowMs - sentMs;
    const limitMs = Math.min(control.status_age_ms, CONTROL_AGE_MS);
    if (ageMs > limitMs) return { kind: "unknown", forMs: ageMs - limitMs };
    return { kind: "known", control, ageMs, elapsedMs: control.since_ms + nowMs - cameMs };
  }

  /** Probes that wait for an answer. */
  pending(): number {
    return this.#probes.length;
  }
}

/** Tells whether the machine slept: its monotonic clock may stand still then, and what was young would stay young. */
export class SleepWatch {
  #aheadMs: number | null = null;

  /** To be called every tick with both clocks; a wall clock that is set back is no sleep. */
  slept(nowMs: number, wallMs: number): boolean {
    const before = this.#aheadMs;
    this.#aheadMs = wallMs - nowMs;
    return before !== null && this.#aheadMs - before > SLEPT_MS;
  }
}

/** 64 random bits, 16 hexadecimal digits. */
export function randomNonce(): string {
  return crypto.getRandomValues(new BigUint64Array(1))[0]?.toString(16).padStart(16, "0") ?? "";
}

/** What this page cannot read, or compare exactly, does not count: then control is unknown. */
function isSound(c: ControlInfo): boolean {
  const numbers = Number.isSafeInteger(c.epoch) && c.epoch >= 0 && Number.isFinite(c.since_ms) && Number.isFinite(c.status_age_ms);
  const lists = [c.answers, c.stopped, c.alarms, c.colours, c.figures].every((list) => Array.isArray(list));
  return numbers && lists && CONTROL_MODES.includes(c.mode) && typeof c.set === "object" && c.set !== null;
}
