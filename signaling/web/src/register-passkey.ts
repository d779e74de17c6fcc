// The screen behind a link that registers a passkey: whose it will be, what it is called, and a button.

import { Refused } from "./api.ts";
import { el, relabel, say, setHidden, setText } from "./dom.ts";
import { languageButton } from "./language-button.ts";
import { beginRegistration, hasPasskeys, NoPasskey, register } from "./passkeys.ts";
import { t } from "./strings.ts";

/** Longest label that the relay takes, in characters. */
const MAX_LABEL = "40";

export class RegisterPasskey {
  readonly element: HTMLElement;
  readonly #who = el("strong");
  readonly #label = el("input", { id: "label", name: "label", maxlength: MAX_LABEL, autocomplete: "off", "aria-describedby": "label-hint" });
  readonly #fault = el("p", { class: "fault", role: "alert", hidden: true });
  readonly #done = say(el("p", { class: "notice", role: "status", hidden: true }), "passkey.done");
  readonly #button = say(el("button", { class: "primary", type: "submit" }), "passkey.button");
  readonly #form: HTMLFormElement;

  constructor(private readonly link: string) {
    const who = el("p", {}, say(el("span"), "passkey.of"), " ", this.#who);
    const hint = say(el("p", { class: "hint", id: "label-hint" }), "passkey.labelHint");
    const field = el("div", { class: "field" }, say(el("label", { for: "label" }), "passkey.label"), this.#label, hint);
    const text = say(el("p", { class: "hint" }), "passkey.text");
    this.#form = el("form", { novalidate: true, hidden: true }, who, text, field, this.#button);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    const head = el("div", { class: "lobby-head" }, say(el("p", { class: "mark" }), "app.product"), languageButton(() => relabel(document)));
    const card = el("div", { class: "card" }, say(el("h1"), "passkey.heading"), this.#form, this.#fault, this.#done);
    this.element = el("main", { class: "join register-passkey" }, el("div", { class: "lobby" }, head, card));
    void this.#start();
  }

  async #start(): Promise<void> {
    if (!hasPasskeys()) return this.#showFault(t.passkey.none);
    try {
      const { account, name } = await beginRegistration(this.link);
      setText(this.#who, `${name} (${account})`);
      setHidden(this.#form, false);
      this.#button.focus();
    } catch (error) {
      this.#showFault(words(error));
    }
  }

  async #submit(): Promise<void> {
    this.#showFault("");
    this.#button.disabled = true;
    say(this.#button, "passkey.busy");
    try {
      // Begun anew, for the screen may have been open for longer than the relay waits.
      await register(await beginRegistration(this.link), this.#label.value.trim());
      setHidden(this.#form, true);
      setHidden(this.#done, false);
    } catch (error) {
      this.#showFault(words(error));
    }
    this.#button.disabled = false;
    say(this.#button, "passkey.button");
    if (!this.#form.hidden) this.#button.focus();
  }

  #showFault(text: string): void {
    setText(this.#fault, text);
    setHidden(this.#fault, text === "");
  }
}

function words(error: unknown): string {
  if (error instanceof Refused) return error.words();
  return error instanceof NoPasskey ? error.message : t.join.unreachable;
}
