// The register in words: what the banner says. Pure: a view and who is here come in, texts go out.

import { number, span, t } from "../strings.ts";
import type { Colour, ControlInfo, ControlMode, ControlSet, ParticipantInfo } from "../types.ts";
import type { ControlView } from "./mirror.ts";

/** Why nothing is known, as far as this page can tell. */
export type Silence = "unknownHidden" | "unknownLink" | "unknownGone" | "unknownSilent";

export interface Around {
  self: ParticipantInfo | null;
  people: readonly ParticipantInfo[];
  silence: Silence;
}

const RECLUTCH = "waiting for the re-clutch";

export type Motion = "none" | "runs" | "stopped";

export interface Face {
  state: "unknown" | ControlMode;
  motion: Motion;
  title: string;
  detail: string;
  /** What does not fit beside the detail: shown below it where there is no news. */
  also: string;
  /** The worst of the link gates; null where there is no link to judge. */
  link: Colour | null;
  alarms: string[];
}

export function faceOf(view: ControlView, around: Around): Face {
  if (view.kind === "unknown") {
    const detail = joined([t.control.unknownFor(span(view.forMs)), t.control[around.silence]]);
    return { state: "unknown", motion: "none", title: t.control.unknown, detail, also: "", link: null, alarms: [] };
  }
  const { control } = view;
  return {
    state: control.mode,
    motion: motionOf(control),
    title: titleOf(control, around),
    detail: detailOf(control, view.elapsedMs),
    also: motionOf(control) === "stopped" ? heldOf(control, view.elapsedMs) : "",
    link: hasLink(control) ? worst(control.colours) : null,
    alarms: control.alarms.map(t.control.word),
  };
}

/** The expert by name; by certificate where nobody here has that name. */
export function expertName(control: ControlInfo, people: readonly ParticipantInfo[]): string {
  const person = people.find((p) => p.participant === control.participant);
  if (person !== undefined) return person.name || person.participant;
  return control.expert === null ? t.control.expertNone : t.control.expertUnknown(control.expert.slice(0, 8));
}

/** Whether the loss of one path would be felt; empty where there was never more than one. */
export function pathWords({ paths }: ControlInfo): string {
  if (paths === "protected") return t.control.pathsProtected;
  return paths === "unprotected" ? t.control.pathsUnprotected : "";
}

export function setWords(set: ControlSet): string {
  const parts = (["camera", "instruments", "energy"] as const).filter((part) => set[part]).map((part) => t.control[part]);
  return parts.length === 0 ? t.control.nothing : parts.join(t.control.listComma);
}

/** What is to be done first comes first: the re-clutch is due in every stop. */
export function causeWords(control: ControlInfo): string[] {
  const late = (cause: string) => Number(cause === RECLUTCH);
  return [...control.stopped].sort((a, b) => late(a) - late(b)).map(t.control.word);
}

/** Red where one is; else unmeasured where one is; else the worst. As `Colours::overall`. */
export function worst(colours: readonly Colour[]): Colour {
  const order: Colour[] = ["red", "unmeasured", "amber", "green"];
  return order.find((colour) => colours.includes(colour)) ?? "unmeasured";
}

/** A link to the expert is measured from acceptance to the end of remote operation. */
export function hasLink(control: ControlInfo): boolean {
  return ["ready", "granting", "remote"].includes(control.mode);
}

/** The four link gates with their figures. */
export function linkRows(control: ControlInfo): { name: string; colour: Colour; value: string; also: string }[] {
  const [p50, p95, jitter, loss, frame] = control.figures;
  const c = (i: number) => control.colours[i] ?? "unmeasured";
  return [
    { name: t.control.loopAge, colour: c(0), value: ms(p95), also: joined([also(t.control.p95, p95), also(t.control.median, p50)]) },
    { name: t.control.jitter, colour: c(1), value: ms(jitter), also: also(t.control.p95, jitter) },
    { name: t.control.loss, colour: c(2), value: typeof loss === "number" ? `${number(loss / 1e4, 2)} %` : t.tile.none, also: "" },
    { name: t.control.frameAge, colour: c(3), value: ms(frame), also: "" },
  ];
}

/** "02:05", with hours where there are any. */
export function minutes(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(Math.floor(n) % 60).padStart(2, "0");
  const short = `${two(seconds / 60)}:${two(seconds)}`;
  return seconds < 3600 ? short : `${Math.floor(seconds / 3600)}:${short}`;
}

export function joined(parts: readonly string[]): string {
  return parts.filter(Boolean).join(" · ");
}

function titleOf(control: ControlInfo, around: Around): string {
  const { mode } = control;
  const name = () => expertName(control, around.people);
  if (mode === "offered" || mode === "ready" || mode === "granting") return t.control[mode](name());
  if (mode !== "remote") return t.control[mode];
  // A browser never holds; the station that this person sits at may.
  const whose = ownership(control, around);
  if (whose === "station") return t.control.remoteOwn;
  return whose === "name" ? t.control.remoteSameName(name()) : t.control.remote(name());
}

/** Whether the holder is this participant, or somebody who only has the same name, which proves nothing. */
function ownership(control: ControlInfo, { self, people }: Around): "station" | "name" | null {
  if (self === null || self.role !== "expert" || control.participant === null) return null;
  if (control.participant === self.participant) return "station";
  const holder = people.find((p) => p.participant === control.participant);
  const same = holder !== undefined && holder.role === "expert" && holder.realm === self.realm && holder.name === self.name && self.name !== "";
  return same ? "name" : null;
}

function motionOf(control: ControlInfo): Motion {
  if (control.mode !== "remote") return "none";
  return control.stopped.length > 0 ? "stopped" : "runs";
}

function detailOf(control: ControlInfo, elapsedMs: number): string {
  const elapsed = t.control.elapsed(minutes(elapsedMs));
  const causes = causeWords(control).join(t.control.listComma);
  switch (control.mode) {
    case "remote":
      return causes === "" ? joined([t.control.motionRuns, heldOf(control, elapsedMs)]) : t.control.motionStopped(causes);
    case "offered":
    case "ready":
    case "granting":
      return joined([setWords(control.set), elapsed]);
    case "hold":
      return joined([t.control.holdHint, elapsed]);
    case "estop":
      return joined([t.control.estopHint, elapsed]);
    default:
      return elapsed;
  }
}

function heldOf(control: ControlInfo, elapsedMs: number): string {
  return joined([setWords(control.set), t.control.elapsed(minutes(elapsedMs))]);
}

function ms(us: number | null | undefined): string {
  if (typeof us !== "number") return t.tile.none;
  return `${number(us / 1000, us < 10_000 ? 1 : 0)} ms`;
}

function also(words: (value: string) => string, us: number | null | undefined): string {
  return typeof us === "number" ? words(ms(us)) : "";
}
