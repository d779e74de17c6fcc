// The way in for an emergency, below the login in the lobby: closed until somebody opens it, then a reason and a confirmation. Not found by
// accident, since nothing of it is there unless a login is asked for and the node takes such joins.

import { el, say, setHidden, setText } from "./dom.ts";
import { t, type TextKey } from "./strings.ts";
import { REASON_LEN, type BreakGlass } from "./types.ts";

export interface Emergency {
  name: string;
  emergency: BreakGlass;
}

export class EmergencyEntry {
  readonly element = el("details", { class: "emergency", hidden: true });
  readonly #name = field("emergency-name", "emergency.name", { maxlength: "64", autocomplete: "name" });
  readonly #reason = field("emergency-reason", "emergency.reason", {
    maxlength: String(REASON_LEN.max),
    autocomplete: "off",
    "aria-describedby": "emergency-reason-hint",
  });
  readonly #confirm = el("input", { type: "checkbox", id: "emergency-confirm" });
  readonly #fault = el("p", { class: "fault", role: "alert", hidden: true });
  readonly #button = say(el("button", { type: "submit", class: "enter-anyway" }), "emergency.button");

  constructor(
    name: string,
    private readonly enter: (entry: Emergency) => void,
  ) {
    this.#name.input.value = name;
    const hint = say(el("p", { class: "hint" }), "emergency.hint");
    const reasonHint = say(el("p", { class: "hint", id: "emergency-reason-hint" }), "emergency.reasonHint");
    this.#reason.element.append(reasonHint);
    const confirm = el("label", { class: "checkbox" }, this.#confirm, say(el("span"), "emergency.confirm"));
    const form = el("form", { novalidate: true }, hint, this.#name.element, this.#reason.element, confirm, this.#fault, this.#button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.element.append(say(el("summary"), "emergency.summary"), form);
  }

  /** Whether it is there at all. */
  render(isPossible: boolean): void {
    setHidden(this.element, !isPossible);
  }

  setBusy(isBusy: boolean): void {
    this.#button.disabled = isBusy;
  }

  showFault(text: string): void {
    setText(this.#fault, text);
    setHidden(this.#fault, text === "");
  }

  #submit(): void {
    const [name, reason] = [this.#name.input.value.trim(), this.#reason.input.value.trim()];
    if (name === "") return this.#ask(t.emergency.needName, this.#name.input);
    if ([...reason].length < REASON_LEN.min) return this.#ask(t.emergency.needReason, this.#reason.input);
    if (!this.#confirm.checked) return this.#ask(t.emergency.needConfirm, this.#confirm);
    this.showFault("");
    this.enter({ name, emergency: { reason, confirm: true } });
  }

  #ask(text: string, input: HTMLInputElement): void {
    this.showFault(text);
    input.focus();
  }
}

function field(id: string, label: TextKey, attributes: Record<string, string>): { element: HTMLElement; input: HTMLInputElement } {
  const input = el("input", { id, name: id, required: true, ...attributes });
  return { element: el("div", { class: "field" }, say(el("label", { for: id }), label), input), input };
}
