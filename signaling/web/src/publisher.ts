// What this page sends: microphone, camera, screen; and who may be heard, by the rules of `talk.ts`.

import { Refused } from "./api.ts";
import { DeviceError, openDevice, openScreen, type DeviceChoice } from "./devices.ts";
import type { Sending } from "./names.ts";
import { Publication, type PublicationOptions } from "./publication.ts";
import { faultWords } from "./runner.ts";
import { t } from "./strings.ts";
import { Talk } from "./talk.ts";
import type { LegState } from "./types.ts";

export type SendState = "off" | "asking" | "starting" | "sending" | "again";

const ALL: readonly Sending[] = ["microphone", "camera", "screen"];

export class Publisher {
  readonly talk = new Talk();
  readonly #publications = new Map<Sending, Publication>();
  readonly #asking = new Set<Sending>();

  /** `onFault`: something could not be started; says why, in words. */
  constructor(
    private readonly options: PublicationOptions,
    private readonly choice: DeviceChoice,
    private readonly onFault: (what: Sending, why: string) => void,
  ) {}

  state(what: Sending): SendState {
    if (this.#asking.has(what)) return "asking";
    const publication = this.#publications.get(what);
    if (publication === undefined) return "off";
    const state = publication.runner.state();
    return state === "connected" ? "sending" : state;
  }

  /** The track that is sent; for the small picture of oneself. */
  track(what: Sending): MediaStreamTrack | null {
    return this.#publications.get(what)?.track ?? null;
  }

  toggle(what: Sending): void {
    if (this.state(what) === "off") void this.start(what);
    else this.stop(what);
  }

  async start(what: Sending): Promise<void> {
    if (this.state(what) !== "off") return;
    this.#asking.add(what);
    try {
      const track = await this.#open(what);
      if (!this.#asking.has(what)) return track.stop();
      // A microphone is mute before anything is connected, so that not one packet carries a voice.
      if (what === "microphone") track.enabled = false;
      track.addEventListener("ended", () => this.#handleEnded(what, track));
      this.#publications.set(what, new Publication(what, track, this.options));
      if (what === "microphone") this.talk.handleConnected(true);
    } catch (error) {
      const why = error instanceof DeviceError ? error.fault : "failed";
      this.onFault(what, what === "screen" && why === "denied" ? t.devices.deniedScreen : t.devices[why]);
    } finally {
      this.#asking.delete(what);
    }
  }

  stop(what: Sending): void {
    this.#asking.delete(what);
    if (what === "microphone") this.talk.handleConnected(false);
    this.#publications.get(what)?.close();
    this.#publications.delete(what);
  }

  /** Another device was chosen: it goes on where the old one was sent. */
  async handleChoice(what: "camera" | "microphone"): Promise<void> {
    const publication = this.#publications.get(what);
    if (publication === undefined) return;
    try {
      const track = await openDevice(what, this.choice[what]);
      track.addEventListener("ended", () => this.#handleEnded(what, track));
      await publication.replaceTrack(track);
      this.applyTalk();
    } catch (error) {
      this.onFault(what, t.devices[error instanceof DeviceError ? error.fault : "failed"]);
    }
  }

  /** Lets the microphone out or not, by what `talk` says now. */
  applyTalk(): void {
    const track = this.#publications.get("microphone")?.track;
    if (track !== undefined && track.enabled !== this.talk.isOpen()) track.enabled = this.talk.isOpen();
  }

  /** To be called every tick while the relay can be reached. */
  handleTick(nowMs: number): void {
    for (const publication of this.#publications.values()) {
      publication.runner.handleTick(nowMs);
      const fault = publication.runner.fault();
      // What the relay does not take at all is not tried for ever behind the person's back.
      if (fault instanceof Refused && fault.isFinal() && ![401, 404].includes(fault.status)) {
        this.stop(publication.what);
        this.onFault(publication.what, faultWords(fault));
      }
    }
  }

  handleReach(nowMs: number): void {
    for (const publication of this.#publications.values()) publication.runner.handleReach(nowMs);
  }

  /** The relay is back; as another participant our publications are somebody else's, and begin anew. */
  handleLinkOpen(nowMs: number, renamed: boolean): void {
    for (const { runner } of this.#publications.values()) {
      if (renamed) runner.replace(nowMs);
      else runner.handleLinkOpen(nowMs);
    }
  }

  /** The relay says how one of the publications is. */
  handlePublication(nowMs: number, publication: string, state: LegState): void {
    if (state !== "closed") return;
    for (const { runner } of this.#publications.values()) {
      if (runner.current()?.peer.id() === publication) runner.replace(nowMs);
    }
  }

  close(): void {
    for (const what of ALL) this.stop(what);
  }

  #open(what: Sending): Promise<MediaStreamTrack> {
    return what === "screen" ? openScreen() : openDevice(what, this.choice[what]);
  }

  /** Unplugged, or stopped in the browser's own bar. */
  #handleEnded(what: Sending, track: MediaStreamTrack): void {
    if (this.track(what) !== track) return;
    this.stop(what);
    if (what !== "screen") this.onFault(what, t.devices.missing);
  }
}
