// The page's part of the handover: shows who operates, asks for control, stops. A browser never holds anything.

import { setData } from "../dom.ts";
import type { Link } from "../events.ts";
import { PROBE_EVERY_MS, PROBE_IDLE_MS } from "../limits.ts";
import { t } from "../strings.ts";
import type { ClientEvent, ControlInfo, ControlNotice, ParticipantInfo, ServerEvent, TokenGrant } from "../types.ts";
import { Banner, type News } from "./banner.ts";
import { Mirror, randomNonce, SleepWatch } from "./mirror.ts";
import { Notices, noticeWords, participantOf, shortPerson } from "./notices.ts";
import { RequestDialog } from "./request.ts";
import { ControlSide } from "./side.ts";
import { Speaker } from "./speaker.ts";
import { StopModel, type StopOutcome } from "./stop.ts";
import { faceOf, type Silence } from "./words.ts";

export interface ControlOptions {
  grant: TokenGrant;
  /** Returns whether it left. */
  send: (event: ClientEvent) => boolean;
  link: () => Link;
  self: () => string;
  people: () => readonly ParticipantInfo[];
  toggleSide: () => void;
}

export class Control {
  readonly banner: Banner;
  readonly side = new ControlSide();
  readonly speaker = new Speaker();
  /** Null where the role cannot ask. */
  readonly request: RequestDialog | null;
  readonly #mirror = new Mirror(performance.now());
  readonly #sleep = new SleepWatch();
  readonly #notices = new Notices();
  readonly #stop: StopModel;
  /** The session has, or had, a gate: from then on the banner stays. */
  #gate = false;
  #gone = false;
  #wasHidden = false;
  #askedMs = -Infinity;
  #probe: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly o: ControlOptions) {
    this.#stop = new StopModel((reason) => o.send({ type: "control_estop", reason }));
    const asks = o.grant.role === "expert";
    this.request = asks ? new RequestDialog(o.grant.grade, (set, reason) => o.send({ type: "control_request", set, reason })) : null;
    const request = this.request === null ? null : () => this.toggleRequest();
    this.banner = new Banner(this.#stop, () => this.side.reason(), { details: o.toggleSide, request });
    setData(document.body, "control", "none");
  }

  /** Frames for what is seen, a timer for when none is painted. */
  start(signal: AbortSignal): void {
    document.addEventListener("visibilitychange", () => this.#handleVisibility(), { signal });
    const frame = () => {
      if (signal.aborted) return;
      this.#render(performance.now());
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    signal.addEventListener("abort", () => clearTimeout(this.#probe));
    this.#askLater(0);
  }

  pressStop(): void {
    if (this.#gate) this.#stop.press(performance.now());
  }

  releaseStop(): void {
    this.#stop.release(performance.now());
  }

  toggleRequest(): void {
    if (this.#gate) this.request?.toggle();
  }

  toggleSide(): void {
    if (this.#gate) this.o.toggleSide();
  }

  handleEvent(event: ServerEvent, nowMs: number): void {
    if (event.type === "control") return this.#handleControl(event.control, nowMs);
    if (event.type === "control_gone") return this.#handleGone(nowMs);
    if (event.type === "control_notice") return this.#handleNotice(event, nowMs);
    if (event.type !== "refused") return;
    if (event.what === "control_estop") this.#stop.handleRefused(nowMs, event.detail);
    if (event.what === "control_request") this.request?.handleRefused(event.detail);
  }

  /** Who was not reached does not know: nothing that was learnt before a loss counts after it. */
  handleLink(link: Link, nowMs: number): void {
    if (link.kind === "lost") this.#mirror.forget(nowMs);
    if (link.kind === "open") this.#askLater(0);
    this.#render(nowMs);
  }

  /** To be called every tick. */
  handleTick(nowMs: number): void {
    if (this.#sleep.slept(nowMs, Date.now())) this.#mirror.forget(nowMs);
    this.#stop.handleTick(nowMs, this.side.reason());
    this.request?.handleTick(nowMs);
    this.#render(nowMs);
    if (this.#gate) this.side.render(this.#mirror.view(nowMs));
  }

  renderWords(): void {
    this.side.renderWords();
    this.side.renderLog(this.#notices.all());
    this.request?.renderWords();
  }

  #handleControl(control: ControlInfo, nowMs: number): void {
    const first = !this.#gate;
    this.#gate = true;
    this.#gone = false;
    // What comes while nobody looks is not shown later as if it were new.
    if (!document.hidden) this.#mirror.handle(nowMs, control);
    if (first) this.#askLater(0);
    if (this.#mirror.view(nowMs).kind === "known") this.#wasHidden = false;
    this.#render(nowMs);
  }

  #handleGone(nowMs: number): void {
    this.#gate = true;
    this.#gone = true;
    this.#mirror.forget(nowMs);
    this.#render(nowMs);
  }

  #handleNotice(notice: ControlNotice, nowMs: number): void {
    const person = shortPerson(notice.person, this.o.people());
    this.#notices.handle(nowMs, Date.now(), { ...notice, person });
    const own = participantOf(notice.person) === this.o.self();
    if (own && notice.what === "estop") this.#stop.handleNotice(nowMs);
    if (own && notice.what === "request") this.request?.handleNotice();
    this.side.renderLog(this.#notices.all());
    this.speaker.say(noticeWords({ ...notice, person }), notice.what === "estop");
  }

  /** A background page is painted late when it comes back: it leaves, and comes back, as one that knows nothing. */
  #handleVisibility(): void {
    const nowMs = performance.now();
    this.#wasHidden = true;
    this.#mirror.forget(nowMs);
    this.#render(nowMs);
    if (!document.hidden) this.#askLater(0);
  }

  /** Asks the gate again and again; `waitMs` until the next time. Never more often than is allowed. */
  #askLater(waitMs: number): void {
    clearTimeout(this.#probe);
    const due = Math.max(waitMs, this.#askedMs + PROBE_EVERY_MS - performance.now());
    this.#probe = setTimeout(() => {
      this.#ask();
      this.#askLater(this.#gate ? PROBE_EVERY_MS : PROBE_IDLE_MS);
    }, due);
  }

  #ask(): void {
    if (document.hidden) return;
    const nonce = randomNonce();
    // Its age begins before it leaves.
    const nowMs = performance.now();
    this.#askedMs = nowMs;
    if (this.o.send({ type: "control_probe", nonce })) this.#mirror.probed(nowMs, nonce);
  }

  #render(nowMs: number): void {
    if (!this.#gate) return;
    const view = this.#mirror.view(nowMs);
    const people = this.o.people();
    const self = people.find((p) => p.participant === this.o.self()) ?? null;
    const face = faceOf(view, { self, people, silence: this.#silence() });
    setData(document.body, "control", face.state);
    this.banner.render(nowMs, view, face, this.#news(nowMs));
    this.speaker.handleFace(nowMs, face);
  }

  #silence(): Silence {
    if (this.o.link().kind !== "open") return "unknownLink";
    if (this.#gone) return "unknownGone";
    return this.#wasHidden ? "unknownHidden" : "unknownSilent";
  }

  #news(nowMs: number): News | null {
    const outcome = this.#stop.outcome();
    if (outcome.kind !== "none") return { text: outcomeWords(outcome), level: isBad(outcome) ? "red" : "plain" };
    const notice = this.#notices.current(nowMs);
    return notice === null ? null : { text: noticeWords(notice), level: notice.what === "estop" ? "amber" : "plain" };
  }
}

function outcomeWords(outcome: StopOutcome): string {
  if (outcome.kind === "refused") return t.stop.refused(outcome.detail);
  return outcome.kind === "none" ? "" : t.stop[outcome.kind];
}

function isBad({ kind }: StopOutcome): boolean {
  return kind === "offline" || kind === "silent" || kind === "refused" || kind === "short";
}
