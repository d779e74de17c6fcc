// Short messages, one at a time, in a line of the bar of their own: never over a picture, so never over its age.

import { el, sayAs, setHidden, setText } from "./dom.ts";
import { TOAST_MS, TOASTS_KEPT } from "./limits.ts";

export class Toasts {
  readonly element = sayAs(el("p", { class: "toast", role: "status" }), "aria-label", "toast.region");
  #waiting: string[] = [];
  #endsMs = -Infinity;

  constructor() {
    setHidden(this.element, true);
  }

  show(text: string): void {
    this.#waiting.push(text);
    if (this.#waiting.length > TOASTS_KEPT) this.#waiting.shift();
  }

  /** What they told of is being looked at. */
  clear(): void {
    this.#waiting = [];
    this.#endsMs = -Infinity;
  }

  /** To be called every tick. */
  handleTick(nowMs: number): void {
    if (nowMs < this.#endsMs) return;
    const next = this.#waiting.shift();
    if (next !== undefined) this.#endsMs = nowMs + TOAST_MS;
    setHidden(this.element, next === undefined);
    if (next !== undefined) setText(this.element, next);
  }
}
