// The STOP button on the screen: held with pointer, Enter or space, or pressed twice where holding is not possible.

import { el, sayAs, setAttribute, setData, setText } from "../dom.ts";
import { span, t } from "../strings.ts";
import type { StopModel } from "./stop.ts";

export class StopButton {
  readonly element: HTMLButtonElement;
  readonly #word = el("span", { class: "word" });
  readonly #how = el("span", { class: "how" });

  constructor(
    private readonly model: StopModel,
    private readonly reason: () => string,
  ) {
    this.element = sayAs(el("button", { type: "button", class: "stop" }, this.#word, this.#how), "title", "stop.title");
    this.#hold();
    this.render(performance.now());
  }

  /** To be called every tick. */
  render(nowMs: number): void {
    const phase = this.model.phase(nowMs);
    const how = { ready: t.stop.hold, holding: t.stop.holding, armed: t.stop.armed, waiting: "" }[phase];
    setData(this.element, "phase", phase);
    setText(this.#word, t.stop.word);
    setText(this.#how, phase === "waiting" ? t.stop.again(span(Math.ceil(this.model.waitMs(nowMs) / 1000) * 1000)) : how);
    setAttribute(this.element, "aria-disabled", String(phase === "waiting"));
    this.element.style.setProperty("--held", String(this.model.progress(nowMs)));
  }

  #hold(): void {
    const b = this.element;
    const press = () => this.model.press(performance.now());
    const release = () => this.model.release(performance.now());
    b.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      b.setPointerCapture(event.pointerId);
      press();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) b.addEventListener(name, release);
    b.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      if (!event.repeat) press();
    });
    b.addEventListener("keyup", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      release();
    });
    // A click that no pointer made comes from assistive technology, which cannot hold.
    b.addEventListener("click", (event) => {
      if (event.detail === 0) this.model.click(performance.now(), this.reason());
    });
    // A long touch must not open a menu of the browser's.
    b.addEventListener("contextmenu", (event) => event.preventDefault());
  }
}
