// Who is here, who speaks, and what each of them sends.

import { el, setData, setText } from "./dom.ts";
import { pictureKind } from "./names.ts";
import { t, timeOfDay } from "./strings.ts";
import type { FeedInfo, ParticipantInfo } from "./types.ts";
import { mainViews } from "./views.ts";

export interface PeopleModel {
  people: readonly ParticipantInfo[];
  self: string;
  feeds: readonly FeedInfo[];
}

export class Panel {
  readonly element: HTMLElement;
  readonly #list = el("ul", { class: "people" });

  constructor() {
    this.element = el("div", { class: "side-body" }, this.#list);
  }

  render({ people, self, feeds }: PeopleModel): void {
    const sorted = [...people].sort((a, b) => a.since - b.since || a.participant.localeCompare(b.participant));
    const rows = sorted.map((p) => row(p, p.participant === self, feeds.filter((f) => f.publisher === p.participant)));
    if (rows.length === 0) rows.push(el("li", { class: "nobody" }, t.panel.none));
    this.#list.replaceChildren(...rows);
  }

  /** Changes several times a second, so the rows stay and only say who speaks. */
  renderSpeaking(speakers: readonly string[]): void {
    for (const row of this.#list.querySelectorAll<HTMLElement>("[data-participant]")) {
      const speaks = speakers.includes(row.dataset["participant"] ?? "");
      setData(row, "speaking", speaks ? "yes" : "no");
      const word = row.querySelector(".speaks");
      if (word !== null) setText(word, speaks ? t.panel.speaking : "");
    }
  }
}

function row(p: ParticipantInfo, self: boolean, feeds: readonly FeedInfo[]): HTMLElement {
  const name = el("span", { class: "who" }, p.name || p.participant);
  if (self) name.append(" ", el("span", { class: "you" }, `(${t.panel.you})`));
  const role = el("span", { class: "role" }, [t.role[p.role] ?? p.role, p.guest === true ? t.panel.guest : ""].filter(Boolean).join(", "));
  const since = el("span", { class: "since" }, t.panel.since(timeOfDay(p.since / 1000)));
  const place = [p.organisation ?? "", t.panel.realm(p.realm)].filter(Boolean).join(" · ");
  const sends = mainViews(feeds).map((f) => (f.descriptor.kind === "audio" ? t.panel.voice : pictureKind(f)));
  const item = el("li", { "data-participant": p.participant, "data-speaking": "no", title: p.participant });
  item.append(el("div", { class: "line" }, name, el("span", { class: "speaks" })));
  item.append(el("div", { class: "line" }, role, since), el("p", { class: "place" }, place));
  if (p.break_glass !== undefined) item.append(el("p", { class: "glass" }, t.emergency.inList(p.break_glass.reason)));
  if (sends.length > 0) item.append(el("p", { class: "sends" }, `${t.panel.sends}: ${sends.join(", ")}`));
  return item;
}
