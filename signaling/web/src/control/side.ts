// The side panel about control: link gates with figures, causes, alarms, what happened, and the reason that goes with STOP.

import { el, say, setData, setHidden, setText } from "../dom.ts";
import { number, span, t, timeOfDay, type TextKey } from "../strings.ts";
import type { ControlInfo } from "../types.ts";
import { MARKS } from "./banner.ts";
import type { ControlView } from "./mirror.ts";
import { noticeWords, type Noted } from "./notices.ts";
import { bytesLeft, cutReason } from "./reason.ts";
import { causeWords, hasLink, joined, linkRows, pathWords } from "./words.ts";

export class ControlSide {
  readonly element: HTMLElement;
  readonly #now = el("p", { class: "now" });
  readonly #links = el("ul", { class: "links" });
  readonly #linkNone = say(el("p", { class: "quiet" }), "control.linkNone");
  readonly #paths = el("p", { class: "paths" });
  readonly #causes = el("ul");
  readonly #causesPart = part("control.causesHeading", this.#causes);
  readonly #alarms = el("ul", { class: "alarms" });
  readonly #alarmsNone = say(el("p", { class: "quiet" }), "control.alarmsNone");
  readonly #log = el("ol", { class: "log" });
  readonly #logNone = say(el("p", { class: "quiet" }), "control.logNone");
  readonly #reason = el("input", { id: "stop-reason", type: "text", autocomplete: "off", "aria-describedby": "stop-left" });
  readonly #left = el("p", { class: "hint", id: "stop-left" });

  constructor() {
    const reason = el("div", { class: "field" }, say(el("label", { for: "stop-reason" }), "stop.reason"), this.#reason, this.#left);
    this.#reason.addEventListener("input", () => this.#renderLeft());
    this.element = el(
      "div",
      { class: "side-body control" },
      part("control.linkHeading", this.#now, this.#links, this.#linkNone, this.#paths),
      this.#causesPart,
      part("control.alarmsHeading", this.#alarms, this.#alarmsNone),
      part("control.logHeading", this.#log, this.#logNone),
      part("stop.heading", say(el("p", { class: "quiet" }), "stop.explain"), reason),
    );
    this.#renderLeft();
  }

  /** What goes with a STOP: never so much that it would be refused for it. */
  reason(): string {
    return cutReason(this.#reason.value);
  }

  render(view: ControlView): void {
    const control = view.kind === "known" ? view.control : null;
    setText(this.#now, control === null ? t.control.unknown : nowWords(control, view.kind === "known" ? view.ageMs : 0));
    this.#renderLinks(control);
    const paths = control === null ? "" : pathWords(control);
    setText(this.#paths, paths);
    setHidden(this.#paths, paths === "");
    fill(this.#causes, control === null ? [] : causeWords(control));
    setHidden(this.#causesPart, this.#causes.childElementCount === 0);
    fill(this.#alarms, control === null ? [] : control.alarms.map(t.control.word));
    setHidden(this.#alarmsNone, control === null || control.alarms.length > 0);
  }

  renderLog(notices: readonly Noted[]): void {
    setHidden(this.#logNone, notices.length > 0);
    const rows = notices.map((notice) => {
      const at = el("time", { datetime: new Date(notice.wallMs).toISOString() }, timeOfDay(notice.wallMs));
      return el("li", { "data-what": notice.what }, at, el("span", { dir: "auto" }, noticeWords(notice)));
    });
    this.#log.replaceChildren(...rows);
  }

  renderWords(): void {
    this.#links.replaceChildren();
    this.#renderLeft();
  }

  #renderLinks(control: ControlInfo | null): void {
    const shown = control !== null && hasLink(control);
    setHidden(this.#links, !shown);
    setHidden(this.#linkNone, shown || control === null);
    if (!shown) return;
    linkRows(control).forEach((row, i) => {
      const item = this.#links.children[i] ?? this.#links.appendChild(linkItem());
      const [name, value, word, also] = [...item.children] as [HTMLElement, HTMLElement, HTMLElement, HTMLElement];
      const means = row.colour === "amber" ? t.control.amberMeans : row.colour === "red" ? t.control.redMeans : "";
      setText(name, row.name);
      setText(value, row.value);
      setText(word, `${MARKS[row.colour]} ${t.control[row.colour]}`);
      setData(word, "colour", row.colour);
      setText(also, joined([row.also, means]));
    });
  }

  #renderLeft(): void {
    const left = bytesLeft(this.#reason.value);
    setText(this.#left, left < 0 ? t.ask.bytesOver(number(-left)) : t.ask.bytesLeft(number(left)));
    setData(this.#left, "over", left < 0 ? "yes" : "no");
  }
}

function nowWords(control: ControlInfo, ageMs: number): string {
  const certificate = control.expert === null ? "" : t.control.certificate(control.expert.slice(0, 8));
  // In tenths: a figure that flickers tells nothing.
  const age = t.control.age(span(Math.ceil(ageMs / 100) * 100));
  return joined([t.control.epoch(String(control.epoch)), certificate, age]);
}

function part(heading: TextKey, ...children: HTMLElement[]): HTMLElement {
  return el("section", { class: "part" }, say(el("h3"), heading), ...children);
}

function linkItem(): HTMLElement {
  return el("li", {}, el("span"), el("span", { class: "figure" }), el("strong", { class: "link-mark" }), el("span", { class: "also" }));
}

/** Writes a list of texts, without touching what is there already. */
function fill(list: HTMLElement, texts: readonly string[]): void {
  while (list.childElementCount > texts.length) list.lastElementChild?.remove();
  texts.forEach((text, i) => setText(list.children[i] ?? list.appendChild(el("li")), text));
}
