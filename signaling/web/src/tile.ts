// What is drawn for one feed. Knows nothing of networks or clocks; gets a model and writes it down.

import { ageLevel, type Age } from "./age.ts";
import { el, setData, setHidden, setText } from "./dom.ts";
import type { ShownFrame } from "./stage.ts";
import { isNotLive, type TileState } from "./state.ts";
import type { Figures } from "./stats.ts";
import { ageText, bitRate, span, t, timeOfDay } from "./strings.ts";
import type { FeedInfo } from "./types.ts";

export interface TileModel {
  info: FeedInfo;
  state: TileState;
  /** Since how long no new frame was shown; null before the first. */
  stillMs: number | null;
  fault: string | null;
  frames: number;
  frame: ShownFrame | null;
  framesPerSecond: number;
  figures: Figures;
}

export class Tile {
  readonly element: HTMLElement;
  readonly #promote: HTMLButtonElement;
  readonly #key = el("kbd");
  readonly #purpose = el("span", { class: "purpose" });
  readonly #replay = el("p", { class: "replay", hidden: true }, t.tile.replay);
  readonly #bannerHead = el("span");
  /** Counts up: it is shown, but only what it belongs to is read aloud. */
  readonly #bannerCount = el("span", { "aria-live": "off" });
  readonly #banner = el(
    "p",
    { class: "banner", role: "alert", "aria-atomic": "false", hidden: true },
    this.#bannerHead,
    this.#bannerCount,
  );
  readonly #message = el("p", { class: "message", role: "status" });
  readonly #age = el("output", { class: "age" });
  readonly #ageFigure = el("strong");
  readonly #ageError = el("span", { class: "error" });
  readonly #ageWord = el("span", { class: "word" });
  readonly #ageLabel = el("span", { class: "label" }, t.tile.age);
  readonly #figures = {
    size: figure("", "first"),
    rate: figure("", "first"),
    bits: figure("", "first"),
    loss: figure(t.tile.loss, "first"),
    buffer: figure(t.tile.buffer, "second"),
    trip: figure(t.tile.roundTrip, "second"),
  };

  constructor(
    private readonly feed: string,
    stage: HTMLElement,
    onPromote: () => void,
  ) {
    this.#promote = el("button", { class: "promote", type: "button", title: t.tile.promoteTitle });
    const line = el("span", { class: "line" }, this.#ageFigure, this.#ageError, this.#ageWord);
    this.#age.append(line, this.#ageLabel);
    // The age changes several times a second: reading each one aloud would be of no use.
    this.#age.setAttribute("aria-live", "off");
    const name = el("p", { class: "name" }, this.#key, el("span", { class: "feed" }, feed), this.#purpose);
    const figures = el("dl", { class: "figures" }, ...Object.values(this.#figures).map((f) => f.row));
    this.element = el(
      "section",
      { class: "tile", "data-feed": feed, "data-state": "connecting", "aria-label": feed },
      stage,
      this.#promote,
      el("div", { class: "top" }, name, this.#replay),
      this.#message,
      this.#banner,
      el("div", { class: "hud" }, this.#age, figures),
    );
    // The button is for the keyboard and for readers; a click anywhere on the tile does the same.
    this.element.addEventListener("click", onPromote);
    this.renderAge({ kind: "unknown" }, false);
  }

  /** Number key and place; `large` is the one picture that gets the room. */
  renderPlace(index: number, large: boolean): void {
    const key = index < 9 ? String(index + 1) : "";
    setText(this.#key, key);
    setHidden(this.#key, key === "");
    this.#promote.setAttribute("aria-label", t.tile.promote(this.feed, key));
    this.#promote.setAttribute("aria-pressed", String(large));
    this.element.classList.toggle("large", large);
  }

  render(m: TileModel): void {
    setData(this.element, "state", m.state);
    setData(this.element, "frames", String(m.frames));
    setData(this.element, "rtp", m.frame?.rtp === null || m.frame === null ? "" : String(m.frame.rtp));
    setData(this.element, "fps", m.framesPerSecond.toFixed(1));
    setData(this.element, "bitrate", String(Math.round(m.figures.bitsPerSecond ?? 0)));
    setText(this.#purpose, t.purpose[m.info.descriptor.purpose] ?? "");
    // A tile without a picture has no age and no figures, and nothing that could be mistaken for live.
    this.element.classList.toggle("shown", m.frame !== null && m.state !== "waiting");
    setHidden(this.#replay, !m.info.descriptor.replay);
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
    setHidden(this.#message, message === "");
  }

  #renderFigures(m: TileModel): void {
    const f = this.#figures;
    setText(f.size.value, m.frame === null ? t.tile.none : `${m.frame.width}×${m.frame.height}`);
    setText(f.rate.value, m.frame === null ? t.tile.none : t.tile.frameRate(m.framesPerSecond.toFixed(0)));
    setText(f.bits.value, orNone(m.figures.bitsPerSecond, bitRate));
    setText(f.loss.value, orNone(m.figures.lossPercent, (v) => `${v.toFixed(1)} %`));
    setText(f.buffer.value, orNone(m.figures.bufferMs, (v) => `${v.toFixed(0)} ms`));
    setText(f.trip.value, orNone(m.figures.roundTripMs, (v) => `${v.toFixed(v < 10 ? 1 : 0)} ms`));
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
  if (m.fault !== null) return t.tile.refused(m.fault);
  return m.state === "connecting" ? t.tile.connecting : `${t.tile.lost} — ${t.tile.noPictureYet}`;
}

/** `rank`: figures of the second rank are left out where a tile is small. */
function figure(label: string, rank: "first" | "second"): { row: HTMLElement; value: HTMLElement } {
  const value = el("dd", {}, t.tile.none);
  return { row: el("div", { class: rank }, el("dt", {}, label), value), value };
}

function orNone(value: number | null, write: (value: number) => string): string {
  return value === null ? t.tile.none : write(value);
}
