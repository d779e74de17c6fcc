// The dialog in which an expert asks local for control. It asks; nothing follows from it by itself.

import { button, el, say, setData, setHidden, setText } from "../dom.ts";
import { dialog } from "../help.ts";
import { CONFIRM_MS } from "../limits.ts";
import { number, t } from "../strings.ts";
import type { ControlSet } from "../types.ts";
import { bytesLeft, cleanedReason } from "./reason.ts";

const PARTS = ["camera", "instruments", "energy"] as const;
/** The grade that a part asks for, in the order of `Grade`. */
const GRADES = ["observe", "annotate", ...PARTS] as const;

type Boxes = Record<(typeof PARTS)[number], HTMLInputElement>;
type Outcome = { kind: "none" | "nothing" | "sent" | "told" | "silent" | "offline" } | { kind: "refused"; detail: string };

export class RequestDialog {
  readonly element: HTMLDialogElement;
  readonly #boxes: Boxes;
  readonly #reason = el("input", { id: "request-reason", type: "text", autocomplete: "off", "aria-describedby": "request-left" });
  readonly #left = el("p", { class: "hint", id: "request-left" });
  readonly #result = el("p", { class: "result", role: "status" });
  readonly #send = say(el("button", { type: "submit", class: "send" }), "ask.send");
  #outcome: Outcome = { kind: "none" };
  #sentMs = -Infinity;

  /** `send` returns whether it left; `grade` is the highest that the bearer may hold. */
  constructor(
    grade: string,
    private readonly send: (set: ControlSet, reason: string) => boolean,
  ) {
    const covered = (part: (typeof PARTS)[number]) => GRADES.indexOf(part) <= GRADES.indexOf(grade as "camera");
    this.#boxes = Object.fromEntries(PARTS.map((part) => [part, el("input", { type: "checkbox", disabled: !covered(part) })])) as Boxes;
    const form = el("form", {}, say(el("p"), "ask.explain"), this.#choice(PARTS.every(covered)), this.#field(), this.#result, this.#acts());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.element = dialog("ask.heading", el("div", { class: "request" }, form), "request-dialog");
    this.#render();
  }

  toggle(): void {
    if (this.element.open) return this.element.close();
    this.#set({ kind: "none" });
    this.element.show();
  }

  /** Everybody was told of this person's request. */
  handleNotice(): void {
    if (this.#outcome.kind === "sent" || this.#outcome.kind === "silent") this.#set({ kind: "told" });
  }

  handleRefused(detail: string): void {
    this.#set({ kind: "refused", detail });
  }

  /** To be called every tick. */
  handleTick(nowMs: number): void {
    if (this.#outcome.kind === "sent" && nowMs - this.#sentMs > CONFIRM_MS) this.#set({ kind: "silent" });
  }

  renderWords(): void {
    this.#render();
  }

  #choice(all: boolean): HTMLElement {
    const { instruments, energy } = this.#boxes;
    energy.addEventListener("change", () => (instruments.checked ||= energy.checked));
    instruments.addEventListener("change", () => (energy.checked &&= instruments.checked));
    const rows = PARTS.map((part) => {
      const hint = part === "energy" ? [" ", say(el("span", { class: "hint" }), "ask.energyHint")] : [];
      return el("label", { class: "checkbox" }, this.#boxes[part], el("span", {}, say(el("span"), `control.${part}`), ...hint));
    });
    const note = all ? [] : [say(el("p", { class: "hint" }), "ask.grade")];
    return el("fieldset", {}, say(el("legend"), "ask.what"), ...rows, ...note);
  }

  #field(): HTMLElement {
    this.#reason.addEventListener("input", () => this.#render());
    return el("div", { class: "field" }, say(el("label", { for: "request-reason" }), "ask.reason"), this.#reason, this.#left);
  }

  #acts(): HTMLElement {
    return el("div", { class: "acts" }, this.#send, button("ask.cancel", () => this.element.close(), { class: "cancel" }));
  }

  #submit(): void {
    const { camera, instruments, energy } = this.#boxes;
    const set = { camera: camera.checked, instruments: instruments.checked, energy: energy.checked };
    if (!set.camera && !set.instruments) return this.#set({ kind: "nothing" });
    if (bytesLeft(this.#reason.value) < 0) return this.#render();
    this.#sentMs = performance.now();
    this.#set({ kind: this.send(set, cleanedReason(this.#reason.value)) ? "sent" : "offline" });
  }

  #set(outcome: Outcome): void {
    this.#outcome = outcome;
    this.#render();
  }

  #render(): void {
    const left = bytesLeft(this.#reason.value);
    setText(this.#left, left < 0 ? t.ask.bytesOver(number(-left)) : t.ask.bytesLeft(number(left)));
    setData(this.#left, "over", left < 0 ? "yes" : "no");
    this.#send.disabled = left < 0;
    const o = this.#outcome;
    setText(this.#result, o.kind === "none" ? "" : o.kind === "refused" ? t.ask.refused(o.detail) : t.ask[o.kind]);
    setData(this.#result, "kind", o.kind);
    setHidden(this.#result, o.kind === "none");
  }
}
