// The slim list of who is here.

import { el } from "./dom.ts";
import { t, timeOfDay } from "./strings.ts";
import type { ParticipantInfo } from "./types.ts";

export class Panel {
  readonly element: HTMLElement;
  readonly #list = el("ul");

  constructor(onHide: () => void) {
    const hide = el("button", { type: "button", class: "hide", "aria-label": t.panel.hide }, "✕");
    hide.addEventListener("click", onHide);
    const head = el("div", { class: "head" }, el("h2", {}, t.panel.heading), hide);
    this.element = el("aside", { class: "panel", id: "participants", "aria-label": t.panel.heading }, head, this.#list);
  }

  render(people: Iterable<ParticipantInfo>, self: string): void {
    const sorted = [...people].sort((a, b) => a.since - b.since || a.participant.localeCompare(b.participant));
    const rows = sorted.map((p) => row(p, p.participant === self));
    if (rows.length === 0) rows.push(el("li", { class: "nobody" }, t.panel.none));
    this.#list.replaceChildren(...rows);
  }
}

function row(p: ParticipantInfo, self: boolean): HTMLElement {
  const name = el("span", { class: "who" }, p.name || p.participant);
  if (self) name.append(" ", el("span", { class: "you" }, `(${t.panel.you})`));
  const role = el("span", { class: "role" }, t.role[p.role] ?? p.role);
  const since = el("span", { class: "since" }, t.panel.since(timeOfDay(p.since / 1000)));
  return el("li", { "data-participant": p.participant, title: `${p.realm} · ${p.participant}` }, name, role, since);
}
