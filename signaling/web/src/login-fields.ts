// Account, password and code: shown in the lobby where an invitation asks for a login, and who is logged in where somebody is.

import { button, el, say, setHidden, setText } from "./dom.ts";
import { tabIdentity } from "./memory.ts";
import type { TextKey } from "./strings.ts";

export interface LoginAnswer {
  account: string;
  password: string;
  code: string;
}

export class LoginFields {
  readonly element = el("fieldset", { class: "login", hidden: true });
  readonly #account = input("account", "join.account", { autocomplete: "username", autocapitalize: "none", spellcheck: "false", maxlength: "64" });
  readonly #password = input("password", "join.password", { type: "password", autocomplete: "current-password", maxlength: "256" });
  readonly #code = input("code", "join.code", { autocomplete: "one-time-code", inputmode: "numeric", maxlength: "7", class: "code" });
  readonly #asked: HTMLElement;
  readonly #known = el("div", { class: "known", hidden: true });
  readonly #who = el("strong");

  /** `onChange`: somebody logged out, or is asked to log in. */
  constructor(
    private readonly logOut: () => void,
    private readonly onChange: () => void,
  ) {
    const hint = say(el("p", { class: "hint", id: "login-hint" }), "join.loginHint");
    for (const field of [this.#account, this.#password, this.#code]) field.input.setAttribute("aria-describedby", "login-hint");
    const pair = el("div", { class: "pair" }, this.#password.element, this.#code.element);
    this.#asked = el("div", {}, hint, this.#account.element, pair);
    const who = el("p", {}, say(el("span"), "join.loggedIn"), " ", this.#who);
    this.#known.append(who, button("join.logOut", () => this.#end(), { class: "log-out" }));
    this.element.append(say(el("legend"), "join.login"), this.#known, this.#asked);
    this.render(false);
  }

  /** Asks for a login from now on, unless somebody is logged in. */
  render(isAsked: boolean): void {
    const name = tabIdentity().name;
    setText(this.#who, name);
    setHidden(this.#known, name === "");
    setHidden(this.#asked, !isAsked || name !== "");
    setHidden(this.element, !isAsked && name === "");
  }

  isAsked(): boolean {
    return !this.element.hidden && !this.#asked.hidden;
  }

  isKnown(): boolean {
    return !this.#known.hidden;
  }

  /** What was typed; null where something is missing, which then has the focus. */
  answer(): LoginAnswer | null {
    const fields = [this.#account, this.#password, this.#code];
    const empty = fields.find(({ input }) => input.value.trim() === "");
    if (empty !== undefined) {
      empty.input.focus();
      return null;
    }
    const [account, code] = [this.#account.input.value.trim(), this.#code.input.value.replace(/\s/g, "")];
    return { account, password: this.#password.input.value, code };
  }

  focus(): void {
    (this.#account.input.value === "" ? this.#account : this.#code).input.focus();
  }

  /** Each code is taken once. */
  handleFailure(): void {
    this.#code.input.value = "";
    this.#code.input.focus();
  }

  /** Nobody who comes to the screen later finds the password. */
  clear(): void {
    this.#password.input.value = "";
    this.#code.input.value = "";
  }

  #end(): void {
    this.logOut();
    this.render(true);
    this.onChange();
    this.focus();
  }
}

function input(id: string, label: TextKey, attributes: Record<string, string>): { element: HTMLElement; input: HTMLInputElement } {
  const field = el("input", { id, name: id, required: true, ...attributes });
  return { element: el("div", { class: "field" }, say(el("label", { for: id }), label), field), input: field };
}
