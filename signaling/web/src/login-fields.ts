// How somebody logs in, shown in the lobby where an invitation asks for it: a button for passkeys and one for each issuer, and account, password and code of a
// local account. And who is logged in where somebody is.

import { button, el, say, setHidden, setText } from "./dom.ts";
import { tabIdentity } from "./memory.ts";
import { hasPasskeys } from "./passkeys.ts";
import { t, type TextKey } from "./strings.ts";

export interface LoginAnswer {
  account: string;
  password: string;
  code: string;
}

/** The ways of an account of this node; the others are issuers. */
const [LOCAL, PASSKEY] = ["local", "passkey"];

export class LoginFields {
  readonly element = el("fieldset", { class: "login", hidden: true });
  readonly #account = input("account", "join.account", { autocomplete: "username", autocapitalize: "none", spellcheck: "false", maxlength: "64" });
  readonly #password = input("password", "join.password", { type: "password", autocomplete: "current-password", maxlength: "256" });
  readonly #code = input("code", "join.code", { autocomplete: "one-time-code", inputmode: "numeric", maxlength: "7", class: "code" });
  readonly #asked: HTMLElement;
  readonly #issuers = el("div", { class: "issuers" });
  readonly #passkey = button("join.loginPasskey", () => this.logInByPasskey(), { class: "passkey" });
  readonly #local: HTMLElement;
  #ways: readonly string[] = [];
  readonly #known = el("div", { class: "known", hidden: true });
  readonly #who = el("strong");

  /** `onChange`: somebody logged out, or is asked to log in. */
  constructor(
    private readonly logOut: () => void,
    private readonly onChange: () => void,
    private readonly logInAt: (issuer: string) => void,
    private readonly logInByPasskey: () => void,
  ) {
    const hint = say(el("p", { class: "hint", id: "login-hint" }), "join.loginHint");
    for (const field of [this.#account, this.#password, this.#code]) field.input.setAttribute("aria-describedby", "login-hint");
    const pair = el("div", { class: "pair" }, this.#password.element, this.#code.element);
    this.#local = el("div", { class: "local" }, this.#account.element, pair);
    this.#asked = el("div", {}, hint, this.#issuers, this.#local);
    const who = el("p", {}, say(el("span"), "join.loggedIn"), " ", this.#who);
    this.#known.append(who, button("join.logOut", () => this.#end(), { class: "log-out" }));
    this.element.append(say(el("legend"), "join.login"), this.#known, this.#asked);
    this.render(false, []);
  }

  /** Asks for a login from now on, in one of these ways, unless somebody is logged in. */
  render(isAsked: boolean, ways: readonly string[]): void {
    this.#ways = ways;
    this.#renderIssuers();
    setHidden(this.#local, !this.isLocal());
    const name = tabIdentity().name;
    setText(this.#who, name);
    setHidden(this.#known, name === "");
    setHidden(this.#asked, !isAsked || name !== "");
    setHidden(this.element, !isAsked && name === "");
  }

  isAsked(): boolean {
    return !this.element.hidden && !this.#asked.hidden;
  }

  /** Whether one can log in with an account of this node. */
  isLocal(): boolean {
    return this.#ways.includes(LOCAL);
  }

  /** Writes anew what names somebody. */
  relabel(): void {
    for (const button of this.#issuers.querySelectorAll<HTMLElement>(".issuer")) setText(button, t.join.loginAt(button.dataset["issuer"] ?? ""));
  }

  focusPasskey(): void {
    this.#passkey.focus();
  }

  /** While the browser is on its way to an issuer, or asks an authenticator. */
  setBusy(isBusy: boolean): void {
    for (const button of this.#issuers.querySelectorAll("button")) button.disabled = isBusy;
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
    const first = this.#issuers.querySelector("button");
    if (!this.isLocal() && first !== null) return first.focus();
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

  #renderIssuers(): void {
    const names = this.#ways.filter((way) => way !== LOCAL && way !== PASSKEY);
    const issuers = names.map((name) => {
      const element = el("button", { type: "button", class: "issuer", "data-issuer": name }, t.join.loginAt(name));
      element.addEventListener("click", () => this.logInAt(name));
      return element;
    });
    const buttons = this.#ways.includes(PASSKEY) && hasPasskeys() ? [this.#passkey, ...issuers] : issuers;
    this.#issuers.replaceChildren(...buttons);
    setHidden(this.#issuers, buttons.length === 0);
  }

  #end(): void {
    this.logOut();
    this.render(true, this.#ways.length > 0 ? this.#ways : [LOCAL]);
    this.onChange();
    this.focus();
  }
}

function input(id: string, label: TextKey, attributes: Record<string, string>): { element: HTMLElement; input: HTMLInputElement } {
  const field = el("input", { id, name: id, required: true, ...attributes });
  return { element: el("div", { class: "field" }, say(el("label", { for: id }), label), field), input: field };
}
