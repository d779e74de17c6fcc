// The screen before the session: who one is, and whether camera and microphone work. Neither is needed to join.

import { button, el, relabel, say, setData, setHidden, setText } from "./dom.ts";
import { DeviceCheck } from "./device-check.ts";
import { languageButton } from "./language-button.ts";
import { type Emergency, EmergencyEntry } from "./emergency.ts";
import { fromPasted } from "./link-invitation.ts";
import { type LoginAnswer, LoginFields } from "./login-fields.ts";
import type { StartChoice } from "./memory.ts";
import { t, type TextKey } from "./strings.ts";
import type { BreakGlass } from "./types.ts";

export interface LobbyAnswer {
  invitation: string;
  name: string;
  organisation: string;
  /** Null where nobody is asked to log in. */
  login: LoginAnswer | null;
  /** Not null where somebody comes in without the login that is asked for. */
  emergency: BreakGlass | null;
}

/** What went wrong, in words, and the ways to log in where that is what it needs. */
export interface LobbyFault {
  text: string;
  ways: readonly string[];
  /** Somebody is logged in, and that is not enough: the issuer is to ask anew. */
  isStepUp: boolean;
  /** One may come in without, in an emergency. */
  breakGlass: boolean;
}

export interface LobbyOptions {
  /** Empty where the link carries none: then it is asked for. */
  invitation: string;
  name: string;
  organisation: string;
  /** False where the link says that its role sends nothing; null where it does not say. */
  maySend: boolean | null;
  /** What the person wants to begin with; changed in place. */
  start: StartChoice;
  /** A first line for the person: why the screen is here. */
  notice: TextKey | null;
  fault: LobbyFault;
  /** Resolves to what went wrong, or null where the screen is no longer needed. */
  submit: (answer: LobbyAnswer) => Promise<LobbyFault | null>;
  logOut: () => void;
  /** Resolves to what went wrong, in words; null where somebody is logged in now. */
  logInByPasskey: () => Promise<string | null>;
  /** Goes to an issuer; resolves to what went wrong where it does not come to that. */
  logInAt: (issuer: string, answer: { invitation: string; organisation: string; isStepUp: boolean; ways: readonly string[]; breakGlass: boolean }) => Promise<LobbyFault | null>;
}

export class Lobby {
  readonly element: HTMLElement;
  readonly #name = field("name", "join.name", "join.nameHint", { maxlength: "64", autocomplete: "name", required: true });
  readonly #organisation = field("organisation", "join.organisation", "join.organisationHint", {
    maxlength: "64",
    autocomplete: "organization",
  });
  readonly #link = field("link", "join.link", "join.linkHint", { autocomplete: "off", spellcheck: "false" });
  readonly #fault = el("p", { class: "fault", role: "alert", hidden: true });
  readonly #login: LoginFields;
  readonly #emergency: EmergencyEntry;
  readonly #button: HTMLButtonElement;
  readonly #devices = el("section", { class: "devices" });
  #check: DeviceCheck | null = null;
  #ways: readonly string[] = [];
  #isStepUp = false;
  #breakGlass = false;

  constructor(private readonly o: LobbyOptions) {
    this.#button = say(el("button", { class: "primary", type: "submit" }), o.notice === null ? "join.button" : "join.again");
    this.#name.input.value = o.name;
    this.#organisation.input.value = o.organisation;
    this.#login = new LoginFields(
      () => this.#handleLogOut(),
      () => this.#renderName(),
      (issuer) => void this.#logInAt(issuer),
      () => void this.#logInByPasskey(),
    );
    this.#emergency = new EmergencyEntry(o.name, (entry) => void this.#enterAnyway(entry));
    const fields = [this.#login.element, this.#name.element, this.#organisation.element];
    if (o.invitation === "") fields.unshift(this.#link.element);
    const form = el("form", { novalidate: true }, ...fields, this.#fault, this.#button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#handleFault(o.fault);
    this.#showDevices();
    const notice = o.notice === null ? [] : [say(el("p", { class: "notice" }), o.notice)];
    const head = el("div", { class: "lobby-head" }, say(el("p", { class: "mark" }), "app.product"), languageButton(() => this.#relabel()));
    const card = el("div", { class: "card" }, say(el("h1"), "join.heading"), ...notice, form, this.#emergency.element);
    this.element = el("main", { class: "join" }, el("div", { class: "lobby" }, head, card, this.#devices));
    queueMicrotask(() => this.#focus());
    void this.#startIfAllowed();
  }

  #focus(): void {
    if (this.#login.isAsked()) return this.#login.focus();
    const empty = this.o.invitation === "" ? this.#link.input : this.#name.input;
    (empty.value === "" ? empty : this.#button).focus();
  }

  async #submit(): Promise<void> {
    const { o } = this;
    const isNamed = this.#login.isAsked() || this.#login.isKnown();
    const name = isNamed ? "" : this.#name.input.value.trim();
    if (this.#login.isAsked() && !this.#login.isLocal()) {
      this.#showFault(t.join.needIssuer);
      return this.#login.focus();
    }
    const login = this.#login.isAsked() ? this.#login.answer() : null;
    const answer = {
      invitation: o.invitation || fromPasted(this.#link.input.value),
      name,
      organisation: this.#organisation.input.value.trim(),
      login,
      emergency: null,
    };
    if (answer.invitation === "") return this.#showFault(t.join.noInvitation);
    if (this.#login.isAsked() && login === null) return this.#showFault(t.join.needLogin);
    if (name === "" && !isNamed) return this.#showFault(t.join.needName);
    this.#showFault("");
    this.#button.disabled = true;
    say(this.#button, "join.busy");
    this.#check?.stop();
    const problem = await o.submit(answer);
    this.#button.disabled = false;
    say(this.#button, "join.button");
    if (problem === null) this.#login.clear();
    else this.#handleFault(problem);
  }

  async #enterAnyway({ name, emergency }: Emergency): Promise<void> {
    const { o } = this;
    const invitation = o.invitation || fromPasted(this.#link.input.value);
    if (invitation === "") return this.#showFault(t.join.noInvitation);
    this.#showFault("");
    this.#emergency.setBusy(true);
    this.#check?.stop();
    const organisation = this.#organisation.input.value.trim();
    const problem = await o.submit({ invitation, name, organisation, login: null, emergency });
    this.#emergency.setBusy(false);
    if (problem === null) return;
    // Why it came to nothing stands where the person looks: beside the button that was pressed.
    this.#emergency.showFault(problem.text);
  }

  async #logInAt(issuer: string): Promise<void> {
    const { o } = this;
    const invitation = o.invitation || fromPasted(this.#link.input.value);
    this.#showFault("");
    this.#login.setBusy(true);
    this.#check?.stop();
    const organisation = this.#organisation.input.value.trim();
    const problem = await o.logInAt(issuer, { invitation, organisation, isStepUp: this.#isStepUp, ways: this.#ways, breakGlass: this.#breakGlass });
    // Otherwise the browser is on its way.
    if (problem === null) return;
    this.#login.setBusy(false);
    this.#showFault(problem.text);
  }

  /** Whoever has a passkey goes on into the session. */
  async #logInByPasskey(): Promise<void> {
    this.#showFault("");
    this.#login.setBusy(true);
    const problem = await this.o.logInByPasskey();
    this.#login.setBusy(false);
    if (problem !== null) {
      this.#showFault(problem);
      return this.#login.focusPasskey();
    }
    this.#login.render(true, this.#ways);
    this.#renderName();
    await this.#submit();
  }

  /** A login that is asked for for the first time is no fault of anybody, and has no text; one that failed has. */
  #handleFault(fault: LobbyFault): void {
    const wasAsked = this.#login.isAsked();
    const isNeeded = fault.ways.length > 0;
    if (isNeeded) [this.#ways, this.#isStepUp, this.#breakGlass] = [fault.ways, fault.isStepUp, fault.breakGlass];
    this.#login.render(wasAsked || isNeeded, this.#ways);
    this.#renderName();
    this.#showFault(fault.text);
    this.#emergency.render(this.#breakGlass);
    if (isNeeded && !wasAsked) this.#login.focus();
    else if (this.#login.isAsked() && this.#login.isLocal() && fault.text !== "") this.#login.handleFailure();
  }

  #handleLogOut(): void {
    this.#isStepUp = false;
    this.o.logOut();
  }

  #relabel(): void {
    relabel(document);
    this.#login.relabel();
  }

  /** Whoever logs in is shown by the name of the account; where only issuers can tell it, their buttons are the way on. */
  #renderName(): void {
    setHidden(this.#name.element, this.#login.isAsked() || this.#login.isKnown());
    setHidden(this.#button, this.#login.isAsked() && !this.#login.isLocal());
  }

  #showFault(text: string): void {
    setText(this.#fault, text);
    setHidden(this.#fault, text === "");
  }

  #showDevices(): void {
    const heading = say(el("h2"), "devices.heading");
    if (this.o.maySend === false) {
      this.#devices.append(heading, say(el("p", { class: "quiet" }), "devices.watchOnly"));
      return;
    }
    const start = button("devices.check", () => void this.#startCheck(), { class: "check-button" });
    this.#devices.append(heading, say(el("p", { class: "quiet" }), "devices.optional"), start);
  }

  /** Where the person has allowed it before, nothing has to be asked. */
  async #startIfAllowed(): Promise<void> {
    if (this.o.maySend === false) return;
    try {
      const asked = await Promise.all(
        (["camera", "microphone"] as const).map((name) => navigator.permissions.query({ name: name as PermissionName })),
      );
      if (asked.every((status) => status.state === "granted") && this.element.isConnected) await this.#startCheck();
    } catch {
      // A browser that cannot tell is asked by the button.
    }
  }

  async #startCheck(): Promise<void> {
    if (this.#check !== null) return this.#check.start();
    const check = new DeviceCheck(this.o.start.devices, () => this.#renderStarts());
    this.#check = check;
    const again = this.#devices.querySelector<HTMLButtonElement>(".check-button");
    if (again !== null) {
      again.disabled = true;
      say(again, "devices.checking");
    }
    this.#devices.insertBefore(check.element, again);
    this.#devices.insertBefore(this.#starts, again);
    await check.start();
    if (again !== null) {
      again.disabled = false;
      say(again, "devices.check");
    }
    this.#renderStarts();
  }

  readonly #startMicrophone = checkbox("devices.startMicrophone", (on) => (this.o.start.microphone = on));
  readonly #startCamera = checkbox("devices.startCamera", (on) => (this.o.start.camera = on));
  readonly #starts = el("div", { class: "starts" }, this.#startMicrophone.element, this.#startCamera.element);

  #renderStarts(): void {
    const good = { camera: this.#check?.isGood("camera") ?? false, microphone: this.#check?.isGood("microphone") ?? false };
    setHidden(this.#startCamera.element, !good.camera);
    setHidden(this.#startMicrophone.element, !good.microphone);
    this.#startCamera.input.checked = this.o.start.camera;
    this.#startMicrophone.input.checked = this.o.start.microphone;
    this.o.start.checked = good;
    const again = this.#devices.querySelector<HTMLButtonElement>(".check-button");
    if (again !== null) setHidden(again, good.camera && good.microphone);
    setData(this.#devices, "checked", "yes");
  }
}

function checkbox(key: TextKey, onChange: (on: boolean) => void): { element: HTMLElement; input: HTMLInputElement } {
  const input = el("input", { type: "checkbox" });
  input.addEventListener("change", () => onChange(input.checked));
  return { element: el("label", { class: "checkbox", hidden: true }, input, say(el("span"), key)), input };
}

function field(
  id: string,
  label: TextKey,
  hint: TextKey,
  attributes: Record<string, string | boolean>,
): { element: HTMLElement; input: HTMLInputElement } {
  const input = el("input", { id, name: id, "aria-describedby": `${id}-hint`, ...attributes });
  const hinted = say(el("p", { class: "hint", id: `${id}-hint` }), hint);
  return { element: el("div", { class: "field" }, say(el("label", { for: id }), label), input, hinted), input };
}
