// What a screen reader is told: changes only, the urgent ones at once, and "unknown" only where it lasts.

import { el, setText } from "../dom.ts";
import { SPEAK_UNKNOWN_MS } from "../limits.ts";
import type { Face } from "./words.ts";

const URGENT: readonly Face["state"][] = ["unknown", "hold", "estop"];

export class Speaker {
  readonly #status = el("p", { role: "status" });
  readonly #alert = el("p", { role: "alert" });
  readonly element = el("div", { class: "unseen" }, this.#status, this.#alert);
  #said = "";
  #waiting = "";
  #sinceMs = 0;

  /** To be called every tick. */
  handleFace(nowMs: number, face: Face): void {
    const key = `${face.title} ${face.motion}`;
    if (key !== this.#waiting) [this.#waiting, this.#sinceMs] = [key, nowMs];
    if (key === this.#said || (face.state === "unknown" && nowMs - this.#sinceMs < SPEAK_UNKNOWN_MS)) return;
    this.#said = key;
    const words = face.motion === "stopped" ? `${face.title}. ${face.detail}` : face.title;
    this.say(words, URGENT.includes(face.state));
  }

  say(words: string, urgent: boolean): void {
    setText(urgent ? this.#alert : this.#status, words);
    setText(urgent ? this.#status : this.#alert, "");
  }
}
