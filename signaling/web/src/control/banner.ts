// The banner across the top: who operates, in large words. Its height never changes, and it never covers a picture.

import { button, el, say, sayAs, setAttribute, setData, setHidden, setText } from "../dom.ts";
import { icon, setIcon, type Icon } from "../icons.ts";
import { CONTROL_AGE_MS } from "../limits.ts";
import { t } from "../strings.ts";
import type { Colour } from "../types.ts";
import type { ControlView } from "./mirror.ts";
import { StopButton } from "./stop-button.ts";
import type { StopModel } from "./stop.ts";
import { joined, type Face } from "./words.ts";

/** Shapes, so that colour is never the only carrier. */
export const MARKS: Record<Colour, string> = { green: "●", amber: "▲", red: "■", unmeasured: "○" };
const SIGNS: Record<Face["state"], Icon> = {
  unknown: "hand", hold: "pause", local: "house", offered: "house", ready: "house", granting: "house", remote: "remote", estop: "octagon", closed: "close",
};
/** So long the veil's animation lasts: far longer than a page can hang and live. */
const VEIL_MS = 600_000;

export interface BannerActions {
  details: () => void;
  /** Null where the role cannot ask. */
  request: (() => void) | null;
}

/** What is said beside the state: somebody pressed STOP, or what became of one's own. */
export interface News {
  text: string;
  level: "plain" | "amber" | "red";
}

export class Banner {
  readonly element: HTMLElement;
  readonly stop: StopButton;
  readonly #sign = icon("hand");
  readonly #title = el("strong", { class: "title" });
  readonly #detail = el("span", { class: "detail" });
  readonly #news = el("span", { class: "news" });
  readonly #veil: HTMLElement;
  readonly #animation: Animation;
  readonly #details: HTMLButtonElement;
  readonly #label = el("span", { class: "link-mark" });
  readonly #count = el("span", { class: "badge new", hidden: true });
  /** When the veil's animation began, by the page's clock; null while what is written says "unknown" itself. */
  #veiledMs: number | null = null;

  constructor(model: StopModel, reason: () => string, actions: BannerActions) {
    this.stop = new StopButton(model, reason);
    this.#veil = el("div", { class: "veil", "aria-hidden": "true" }, sign(icon("hand")), say(el("strong", { class: "title" }), "control.unknown"));
    this.#animation = veilAnimation(this.#veil);
    const words = el("div", { class: "words" }, sign(this.#sign), this.#title, this.#detail, this.#news, this.#veil);
    this.#details = sayAs(el("button", { type: "button", class: "details", "aria-controls": "side-control", "aria-expanded": "false" }), "title", "control.detailsTitle");
    this.#details.append(this.#label, this.#count);
    this.#details.addEventListener("click", actions.details);
    const ask = actions.request === null ? [] : [sayAs(button("control.request", actions.request, { class: "ask" }), "title", "control.requestTitle")];
    const acts = el("div", { class: "acts" }, el("div", { class: "lesser" }, this.#details, ...ask), this.stop.element);
    this.element = sayAs(el("section", { class: "control-banner", hidden: true }, words, acts), "aria-label", "control.region");
  }

  /** To be called for every frame that the browser paints, and by a timer. */
  render(nowMs: number, view: ControlView, face: Face, news: News | null): void {
    setHidden(this.element, false);
    setData(this.element, "state", face.state);
    setData(this.element, "motion", face.motion);
    setIcon(this.#sign, SIGNS[face.state]);
    setText(this.#title, face.title);
    setText(this.#detail, face.detail);
    setAttribute(this.#title, "title", face.title);
    setAttribute(this.#detail, "title", face.detail);
    this.#renderNews(face, news);
    this.#renderLink(face);
    this.stop.render(nowMs);
    this.#renderVeil(nowMs, view);
  }

  renderOpen(open: boolean): void {
    setAttribute(this.#details, "aria-expanded", String(open));
  }

  /** From the moment on at which what is written is too old the veil is in front of it, even where this page hangs. */
  #renderVeil(nowMs: number, view: ControlView): void {
    if (view.kind === "unknown") {
      this.#animation.pause();
      this.#animation.currentTime = 0;
      this.#veiledMs = null;
      return;
    }
    const ageMs = view.ageMs + CONTROL_AGE_MS - limitOf(view);
    if (this.#veiledMs !== null && Math.abs(nowMs - ageMs - this.#veiledMs) < 1) return;
    this.#veiledMs = nowMs - ageMs;
    this.#animation.currentTime = ageMs;
    this.#animation.play();
  }

  #renderNews(face: Face, news: News | null): void {
    const [first = "", ...more] = face.alarms;
    const alarm = first === "" ? "" : t.control.alarm(first) + (more.length > 0 ? ` (${t.control.more(String(more.length))})` : "");
    const isNews = news !== null || alarm !== "";
    const text = isNews ? joined([news?.text ?? "", alarm]) : face.also;
    setText(this.#news, text);
    setAttribute(this.#news, "title", text);
    const level = news?.level === "red" ? "red" : alarm !== "" || news?.level === "amber" ? "amber" : "plain";
    setData(this.#news, "level", isNews ? level : "none");
    setHidden(this.#count, face.alarms.length === 0);
    setText(this.#count, String(face.alarms.length));
  }

  #renderLink({ link }: Face): void {
    setData(this.#label, "colour", link ?? "none");
    setText(this.#label, link === null ? t.control.details : `${t.control.link} ${MARKS[link]} ${t.control[link]}`);
  }
}

function sign(svg: SVGSVGElement): HTMLElement {
  return el("span", { class: "sign", "aria-hidden": "true" }, svg);
}

function limitOf(view: ControlView & { kind: "known" }): number {
  return Math.min(view.control.status_age_ms, CONTROL_AGE_MS);
}

/** Runs in the compositor, apart from this page's scripts: nothing for the first 500 ms, then everything. */
function veilAnimation(veil: HTMLElement): Animation {
  const at = CONTROL_AGE_MS / VEIL_MS;
  const frames = [{ opacity: 0, offset: 0 }, { opacity: 0, offset: at }, { opacity: 1, offset: at }, { opacity: 1, offset: 1 }];
  const animation = veil.animate(frames, { duration: VEIL_MS, fill: "both" });
  animation.pause();
  return animation;
}
