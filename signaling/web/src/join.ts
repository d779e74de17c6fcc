// The join screen: one name, one large button.

import { el, setHidden, setText } from "./dom.ts";
import { fromPasted } from "./link-invitation.ts";
import { t } from "./strings.ts";

export interface JoinAnswer {
  invitation: string;
  name: string;
}

export interface JoinScreenOptions {
  /** Empty where the link carries none: then it is asked for. */
  invitation: string;
  name: string;
  /** A first line for the person: why the screen is here. */
  notice: string;
  fault: string;
  /** Resolves to what went wrong, or null where the screen is no longer needed. */
  submit: (answer: JoinAnswer) => Promise<string | null>;
}

export function joinScreen(o: JoinScreenOptions): HTMLElement {
  const name = el("input", { id: "name", name: "name", maxlength: "64", autocomplete: "name", required: true });
  name.value = o.name;
  const link = el("input", { id: "link", name: "link", autocomplete: "off", spellcheck: "false" });
  const button = el("button", { class: "primary", type: "submit" }, o.notice === "" ? t.join.button : t.join.again);
  const fault = el("p", { class: "fault", role: "alert" });
  const form = el("form", { novalidate: true });
  form.append(field(t.join.name, t.join.nameHint, name));
  if (o.invitation === "") form.prepend(field(t.join.link, t.join.linkHint, link));
  form.append(fault, button);

  const show = (text: string) => {
    setText(fault, text);
    setHidden(fault, text === "");
  };
  show(o.fault);

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const answer = { invitation: o.invitation || fromPasted(link.value), name: name.value.trim() };
    if (answer.invitation === "") return show(t.join.noInvitation);
    if (answer.name === "") return show(t.join.needName);
    show("");
    button.disabled = true;
    setText(button, t.join.busy);
    void o.submit(answer).then((problem) => {
      button.disabled = false;
      setText(button, t.join.button);
      if (problem !== null) show(problem);
    });
  });

  queueMicrotask(() => (o.invitation === "" ? link : name.value === "" ? name : button).focus());
  const notice = o.notice === "" ? [] : [el("p", { class: "notice" }, o.notice)];
  return el(
    "main",
    { class: "join" },
    el("div", { class: "card" }, el("p", { class: "mark" }, t.product), el("h1", {}, t.join.heading), ...notice, form),
  );
}

function field(label: string, hint: string, input: HTMLInputElement): HTMLElement {
  const hintId = `${input.id}-hint`;
  input.setAttribute("aria-describedby", hintId);
  return el(
    "div",
    { class: "field" },
    el("label", { for: input.id }, label),
    input,
    el("p", { class: "hint", id: hintId }, hint),
  );
}
