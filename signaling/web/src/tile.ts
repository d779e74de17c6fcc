// What is drawn for one feed. Knows nothing of networks or clocks; gets a model and writes it down.

import { ageLevel, type Age } from "./age.ts";
import { el, say, sayAs, setAttribute, setData, setHidden, setText } from "./dom.ts";
import type { Place } from "./layout.ts";
import type { ShownFrame } from "./stage.ts";
import { isNotLive, type TileState } from "./state.ts";
import type { Figures } from "./stats.ts";
import { ageText, bitRate, number, span, t, timeOfDay, type TextKey } from "./strings.ts";
import type { FeedInfo, FeedPaths } from "./types.ts";
import { ViewSelect } from "./view-select.ts";

export interface TileModel {
  info: FeedInfo;
  /** What it is called. */
  title: string;
  /** Name of who sends it; empty where nobody knows, or where the title says it. */
  publisher: string;
  state: TileState;
  /** Since how long no new frame was shown; null before the first. */
  stillMs: number | null;
  fault: string | null;
  /** What this browser cannot show, and which feeds it could show instead; null where that is not the fault. */
  undecodable: { codec: string; alternatives: readonly string[] } | null;
  /** The path to the relay is lost and comes back, or not yet there. */
  reconnecting: boolean;
  frames: number;
  frame: ShownFrame | null;
  framesPerSecond: number;
  figures: Figures;
  /** The views of the source; null where there is one only. */
  views: ViewModel | null;
}

export interface ViewModel {
  /** The largest first. `silent`: its publisher sends nothing just now; `beyond`: this browser cannot show it. */
  options: readonly { feed: string; name: string; fault: "none" | "silent" | "beyond" }[];
  /** Null: the one that fits the tile. */
  chosen: string | null;
  carried: string;
  /** Another one is on its way. */
  switching: boolean;
}

/** What a person does with the tile. */
export interface TileActions {
  promote: () => void;
  /** One of the feeds that can be shown where this one cannot. */
  instead: (feed: string) => void;
  /** A view, or null for the one that fits. */
  choose: (feed: string | null) => void;
}

/** What another window needs to show the same. */
export interface Mirror {
  stream: MediaStream | null;
  age: string;
  level: string;
  state: string;
  banner: string;
}

export class Tile {
  readonly element: HTMLElement;
  readonly #promote: HTMLButtonElement;
  readonly #digit = el("kbd");
  readonly #purpose = el("span", { class: "purpose" });
  readonly #title: HTMLElement;
  readonly #publisher = el("span", { class: "publisher" });
  readonly #replay = say(el("p", { class: "replay", hidden: true }), "tile.replay");
  readonly #paths = el("p", { class: "paths", role: "status", hidden: true });
  readonly #speaks = say(el("p", { class: "speaks", hidden: true }), "tile.speaks");
  readonly #bannerHead = el("span");
  /** Counts up: it is shown, but only what it belongs to is read aloud. */
  readonly #bannerCount = el("span", { "aria-live": "off" });
  readonly #banner = el(
    "p",
    { class: "banner", role: "alert", "aria-atomic": "false", hidden: true },
    this.#bannerHead,
    this.#bannerCount,
  );
  readonly #message = el("p", { class: "message-text", role: "status" });
  /** Views that can be shown instead; they are buttons. */
  readonly #instead = el("div", { class: "instead", hidden: true });
  readonly #place = el("div", { class: "message" }, this.#message, this.#instead);
  readonly #view: ViewSelect;
  readonly #age = el("output", { class: "age" });
  readonly #ageFigure = el("strong");
  readonly #ageError = el("span", { class: "error" });
  readonly #ageWord = el("span", { class: "word" });
  readonly #ageLabel = el("span", { class: "label" });
  readonly #figures = {
    size: figure(null, "first"),
    rate: figure(null, "first"),
    bits: figure(null, "first"),
    loss: figure("tile.loss", "first"),
    buffer: figure("tile.buffer", "second"),
    trip: figure("tile.roundTrip", "second"),
  };

  /** `key` is what the tile is known by, whichever view it shows. */
  constructor(
    readonly key: string,
    private readonly stage: HTMLElement,
    private readonly actions: TileActions,
  ) {
    this.#view = new ViewSelect(actions.choose);
    this.#promote = sayAs(el("button", { class: "promote", type: "button" }), "title", "tile.promoteTitle");
    const line = el("span", { class: "line" }, this.#ageFigure, this.#ageError, this.#ageWord);
    this.#age.append(line, this.#ageLabel);
    // The age changes several times a second: reading each one aloud would be of no use.
    this.#age.setAttribute("aria-live", "off");
    this.#title = el("span", { class: "feed" }, key);
    const name = el("p", { class: "name" }, this.#digit, this.#title, this.#purpose, this.#publisher);
    const figures = el("dl", { class: "figures" }, ...Object.values(this.#figures).map((f) => f.row));
    this.element = el(
      "section",
      { class: "tile", "data-feed": key, "data-source": key, "data-state": "connecting", "aria-label": key },
      stage,
      this.#promote,
      el("div", { class: "top" }, name, this.#speaks, this.#replay, this.#paths, this.#view.element),
      this.#place,
      this.#banner,
      el("div", { class: "hud" }, this.#age, figures),
    );
    // The button is for the keyboard and for readers; a click anywhere on the tile does the same.
    this.element.addEventListener("click", () => actions.promote());
    this.renderAge({ kind: "unknown" }, false);
  }

  /** Number key and place: what is large, the other of a pair, one of equals, or small in the strip. */
  renderPlace(index: number, place: Place): void {
    const digit = index < 9 ? String(index + 1) : "";
    setText(this.#digit, digit);
    setHidden(this.#digit, digit === "");
    setAttribute(this.#promote, "aria-label", t.tile.promote(this.title(), digit));
    setAttribute(this.#promote, "aria-pressed", String(place === "large"));
    setData(this.element, "place", place);
    this.element.classList.toggle("large", place === "large" || place === "second");
    this.element.classList.toggle("first", place === "large");
    this.element.style.order = String(index);
  }

  title(): string {
    return this.#title.textContent ?? "";
  }

  renderSpeaking(speaks: boolean): void {
    setData(this.element, "speaking", speaks ? "yes" : "no");
    setHidden(this.#speaks, !speaks);
  }

  /** For another window. */
  mirror(): Mirror {
    const videos = this.stage.querySelectorAll("video");
    const stream = (videos[0]?.srcObject as MediaStream | null | undefined) ?? null;
    const words = [...this.#age.querySelectorAll(".line > *")].map((part) => part.textContent ?? "").filter(Boolean);
    return {
      stream,
      age: words.join(" "),
      level: this.#age.dataset["level"] ?? "none",
      state: this.element.dataset["state"] ?? "",
      banner: this.#banner.hidden ? (this.#place.hidden ? "" : this.#message.textContent ?? "") : this.#banner.textContent ?? "",
    };
  }

  render(m: TileModel): void {
    setData(this.element, "feed", m.info.descriptor.feed);
    this.#view.render(m.views, this.title());
    setData(this.element, "state", m.state);
    setData(this.element, "purpose", m.info.descriptor.purpose);
    setData(this.element, "undecodable", m.undecodable?.codec ?? "");
    setData(this.element, "frames", String(m.frames));
    setData(this.element, "rtp", m.frame?.rtp === null || m.frame === null ? "" : String(m.frame.rtp));
    setData(this.element, "fps", m.framesPerSecond.toFixed(1));
    setData(this.element, "bitrate", String(Math.round(m.figures.bitsPerSecond ?? 0)));
    setText(this.#purpose, t.purpose[m.info.descriptor.purpose] ?? "");
    if (this.title() !== m.title) this.#rename(m.title);
    setText(this.#publisher, m.publisher === "" ? "" : t.tile.from(m.publisher));
    // A tile without a picture has no age and no figures, and nothing that could be mistaken for live.
    this.element.classList.toggle("shown", m.frame !== null && m.state !== "waiting");
    setHidden(this.#replay, !m.info.descriptor.replay);
    this.#renderPaths(m.info.paths);
    this.#renderWords(m);
    this.#renderFigures(m);
  }

  /** `replay`: the age is that of the transport only, so it is never called good. */
  renderAge(age: Age, replay: boolean): void {
    const known = age.kind !== "unknown";
    setData(this.element, "ageKind", age.kind);
    setData(this.element, "ageMs", known ? String(age.ms) : "");
    setData(this.element, "ageUncertaintyMs", known ? String(age.uncertaintyMs) : "");
    const level = ageLevel(age);
    setData(this.#age, "level", replay && level === "good" ? "none" : level);
    setText(this.#ageWord, level === "red" ? t.tile.red : level === "amber" ? t.tile.amber : "");
    if (age.kind === "known") {
      this.#writeAge(ageText(age.ms), `± ${age.uncertaintyMs}`, replay ? t.tile.ageReplay : t.tile.age, t.tile.ageHelp(`${age.uncertaintyMs} ms`));
    } else if (age.kind === "atLeast") {
      this.#writeAge(t.tile.ageAtLeast(ageText(age.ms)), "", t.tile.sinceRelay, t.tile.ageAtLeastHelp);
    } else {
      this.#writeAge(t.tile.ageUnknown, "", "", t.tile.ageUnknownHelp);
    }
  }

  /** Whether one of two paths may fail without a gap. */
  #renderPaths(paths: FeedPaths | undefined): void {
    const safe = paths !== undefined && paths.alive >= paths.expected;
    setHidden(this.#paths, paths === undefined);
    setData(this.element, "paths", paths === undefined ? "" : safe ? "protected" : "unprotected");
    setText(this.#paths, paths === undefined ? "" : safe ? t.tile.protected : t.tile.unprotected(timeOfDay(paths.since / 1000)));
    const help = safe ? t.tile.protectedHelp : t.tile.unprotectedHelp;
    if (this.#paths.title !== help) this.#paths.title = help;
  }

  #rename(title: string): void {
    setText(this.#title, title);
    setAttribute(this.element, "aria-label", title);
    setAttribute(this.#promote, "aria-label", t.tile.promote(title, this.#digit.textContent ?? ""));
  }

  #writeAge(figure: string, error: string, label: string, help: string): void {
    setText(this.#ageFigure, figure);
    setText(this.#ageError, error);
    setText(this.#ageLabel, label);
    if (this.#age.title !== help) this.#age.title = help;
  }

  #renderWords(m: TileModel): void {
    const last = m.stillMs === null ? t.tile.noPictureYet : t.tile.lastPicture(span(m.stillMs));
    const shown = m.frame !== null;
    const banner = shown && isNotLive(m.state) ? bannerText(m) : "";
    setText(this.#bannerHead, banner);
    setText(this.#bannerCount, ` — ${last}`);
    setHidden(this.#banner, banner === "");
    const message = banner === "" ? messageText(m) : "";
    setText(this.#message, message);
    setHidden(this.#place, message === "");
    this.#renderInstead(message === "" ? [] : m.undecodable?.alternatives ?? []);
  }

  #renderInstead(feeds: readonly string[]): void {
    if (feeds.join(" ") === (this.#instead.dataset["feeds"] ?? "")) return;
    setData(this.#instead, "feeds", feeds.join(" "));
    setHidden(this.#instead, feeds.length === 0);
    this.#instead.replaceChildren(
      ...feeds.map((feed) => {
        const choose = el("button", { type: "button", "data-alternative": feed }, feed);
        choose.addEventListener("click", (event) => {
          event.stopPropagation();
          this.actions.instead(feed);
        });
        return choose;
      }),
    );
  }

  #renderFigures(m: TileModel): void {
    const f = this.#figures;
    setText(f.size.value, m.frame === null ? t.tile.none : `${m.frame.width}×${m.frame.height}`);
    setText(f.rate.value, m.frame === null ? t.tile.none : t.tile.frameRate(number(m.framesPerSecond)));
    setText(f.bits.value, orNone(m.figures.bitsPerSecond, bitRate));
    setText(f.loss.value, orNone(m.figures.lossPercent, (v) => `${number(v, 1)} %`));
    setText(f.buffer.value, orNone(m.figures.bufferMs, (v) => `${number(v)} ms`));
    setText(f.trip.value, orNone(m.figures.roundTripMs, (v) => `${number(v, v < 10 ? 1 : 0)} ms`));
  }
}

/** Over a picture that must not be taken for a live one. */
function bannerText(m: TileModel): string {
  if (m.state === "stalled") return t.tile.stalled(timeOfDay(m.info.since / 1000));
  return m.state === "frozen" ? t.tile.frozen : t.tile.lost;
}

/** In place of a picture that is not there. */
function messageText(m: TileModel): string {
  if (m.state === "live") return "";
  if (m.state === "waiting") return t.tile.waiting;
  if (m.state === "stalled") return t.tile.stalled(timeOfDay(m.info.since / 1000));
  if (m.undecodable !== null) {
    const { codec, alternatives } = m.undecodable;
    return alternatives.length > 0 ? t.tile.cannotDecode(codec) : t.tile.noAlternative(codec);
  }
  if (m.fault !== null) return t.tile.refused(m.fault);
  if (m.state === "connecting" && m.reconnecting) return t.tile.reconnecting;
  return m.state === "connecting" ? t.tile.connecting : `${t.tile.lost} — ${t.tile.noPictureYet}`;
}

/** `rank`: figures of the second rank are left out where a tile is small. */
function figure(label: TextKey | null, rank: "first" | "second"): { row: HTMLElement; value: HTMLElement } {
  const value = el("dd", {}, t.tile.none);
  const term = label === null ? el("dt") : say(el("dt"), label);
  return { row: el("div", { class: rank }, term, value), value };
}

function orNone(value: number | null, write: (value: number) => string): string {
  return value === null ? t.tile.none : write(value);
}
