// The help: what the keys do, and what the colours mean.

import { el, say, sayAs } from "./dom.ts";
import { icon } from "./icons.ts";
import type { TextKey } from "./strings.ts";

const KEYS: readonly [string, TextKey][] = [
  ["1 – 9", "help.large"],
  ["L", "help.layout"],
  ["F", "help.full"],
  ["W", "help.window"],
  ["H", "help.plain"],
  ["", "help.talk"],
  ["M", "help.latch"],
  ["C", "help.camera"],
  ["S", "help.screen"],
  ["D", "help.devices"],
  ["O", "help.control"],
  ["R", "help.request"],
  ["Shift + S", "help.stop"],
  ["P", "help.people"],
  ["T", "help.chat"],
  ["G", "help.stats"],
  ["?", "help.help"],
  ["Esc", "help.close"],
];

const AGES: readonly [string, TextKey][] = [
  ["good", "help.good"],
  ["amber", "help.amber"],
  ["red", "help.red"],
];

export function helpDialog(): HTMLDialogElement {
  const keys = el("dl", { class: "keys" });
  for (const [key, what] of KEYS) {
    const sign = el("kbd");
    if (key === "") say(sign, "help.space");
    else sign.textContent = key;
    keys.append(el("div", {}, el("dt", {}, sign), say(el("dd"), what)));
  }
  const ages = AGES.map(([level, what]) => el("li", {}, el("strong", { "data-level": level }, "●"), " ", say(el("span"), what)));
  const body = el("div", { class: "help" });
  body.append(say(el("h3"), "help.keys"), keys, say(el("h3"), "help.ages"), el("ul", { class: "ages" }, ...ages));
  body.append(say(el("p", { class: "warning" }), "help.frozen"));
  return dialog("help.heading", body, "help-dialog");
}

/**
 * A dialog with a heading and a button that closes it; Escape does as well (session-keys.ts). It is shown by `show()`, not as
 * a modal one: what is around it must not die while it is open, STOP above all.
 */
export function dialog(heading: TextKey, body: HTMLElement, id: string): HTMLDialogElement {
  const close = sayAs(el("button", { type: "button", class: "close" }), "aria-label", "app.close");
  close.append(icon("close"));
  const head = say(el("h2", { id: `${id}-heading` }), heading);
  const element = el("dialog", { id, "aria-labelledby": head.id }, el("div", { class: "head" }, head, close), body);
  close.addEventListener("click", () => element.close());
  return element;
}
