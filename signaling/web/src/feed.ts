// One feed on the page: its leg, its picture, the age of that picture, and what the tile says.

import { ageAt, onClientClock, type CaptureMaps, type Origin } from "./age.ts";
import { clientClockUs, type Offset } from "./clock.ts";
import type { Link } from "./events.ts";
import { FreezeWatchdog, freezeLimitMs } from "./freeze.ts";
import { AGE_UPDATE_MS, LOST_PROOF_MS, STATS_EVERY_MS, TICK_MS } from "./limits.ts";
import { Refused } from "./api.ts";
import { History } from "./history.ts";
import { pictureName } from "./names.ts";
import { faultWords, Runner } from "./runner.ts";
import { Stage, type ShownFrame } from "./stage.ts";
import { tileState, type TileState } from "./state.ts";
import { FrameRate, NO_FIGURES, type Figures } from "./stats.ts";
import { t } from "./strings.ts";
import { Tile } from "./tile.ts";
import type { TokenKeeper } from "./token.ts";
import type { FeedInfo, LegState } from "./types.ts";
import { WhepLeg } from "./whep.ts";

/** What a feed needs from the session around it. */
export interface Surroundings {
  token: TokenKeeper;
  iceServers(): Promise<RTCIceServer[]>;
  link(): Link;
  clock(nowMs: number): Offset | null;
  captures: CaptureMaps;
  /** How a participant is shown; empty while it is not here. */
  nameOf(participant: string): string;
}

export class Feed {
  readonly tile: Tile;
  readonly #stage: Stage;
  readonly #runner: Runner<WhepLeg>;
  readonly #watchdog = new FreezeWatchdog();
  readonly #rate = new FrameRate();
  readonly history = new History();
  #closed = false;
  #frames = 0;
  #frame: ShownFrame | null = null;
  /** The leg that the frame on the screen came by. */
  #frameLeg: WhepLeg | null = null;
  /** Origin of the frame on the screen, on this page's clock. */
  #origin: Origin | null = null;
  /** When the feed became live: a leg opened before that has not failed yet. */
  #liveMs = -Infinity;
  /** When the relay came back: a connection that is repaired since then has not failed yet. */
  #linkOpenMs = -Infinity;
  #ageWrittenMs = -Infinity;
  #statsReadMs = -Infinity;
  #figures: Figures = NO_FIGURES;
  #state: TileState = "connecting";

  constructor(
    private readonly around: Surroundings,
    public info: FeedInfo,
    onPromote: (feed: string) => void,
  ) {
    const name = info.descriptor.feed;
    this.#stage = new Stage(() => t.tile.video(this.title()));
    this.#runner = new Runner({ open: () => this.#openLeg(), renew: () => around.token.renew() });
    this.tile = new Tile(name, this.#stage.element, onPromote);
  }

  state(): TileState {
    return this.#state;
  }

  /** What the picture is called. */
  title(): string {
    return pictureName(this.info, (participant) => this.around.nameOf(participant));
  }

  handleInfo(nowMs: number, info: FeedInfo): void {
    if (info.state === "live" && this.info.state !== "live") this.#liveMs = nowMs;
    this.info = info;
  }

  /** Another picture came: it may be one that can be shown where this one cannot, and the relay names it when asked again. */
  handleOther(nowMs: number): void {
    if (this.#fault().undecodable !== null) this.#runner.retry(nowMs);
  }

  /** The relay says how one of the legs is. */
  handleLeg(nowMs: number, leg: string, state: LegState): void {
    if (state === "closed" && leg === this.#runner.current()?.id()) this.restart(nowMs);
  }

  /** The relay is back. A leg that still moves survived; one that may live is tried again; anything else is opened anew. */
  handleLinkOpen(nowMs: number): void {
    this.#linkOpenMs = nowMs;
    this.#runner.handleLinkOpen(nowMs);
    const connected = this.#runner.state() === "connected";
    // Connected, by the browser's word, and yet nothing comes: the relay at the other end is another one.
    if (!this.#watchdog.hasFrame() || (connected && this.#isFrozen(nowMs))) this.restart(nowMs);
  }

  /** Something else reached the relay: a wait for the network is over. */
  handleReach(nowMs: number): void {
    this.#runner.handleReach(nowMs);
  }

  restart(nowMs: number): void {
    this.#runner.replace(nowMs);
  }

  /** The page is visible again. */
  handleResume(nowMs: number): void {
    this.#watchdog.handleResume(nowMs);
  }

  handleTick(nowMs: number): void {
    const link = this.around.link();
    if (link.kind === "open" || link.kind === "silent") this.#runner.handleTick(nowMs);
    this.#state = this.#judge(nowMs, link);
    this.#restartIfStill(nowMs, link);
    // A picture that moves has its age written when a frame appears; here it would be that plus however long ago that was.
    const stands = nowMs - (this.#frame?.presentedMs ?? -Infinity) > 2 * TICK_MS;
    if (stands && nowMs - this.#ageWrittenMs >= AGE_UPDATE_MS) this.#writeAge(nowMs, nowMs);
    if (nowMs - this.#statsReadMs >= STATS_EVERY_MS) void this.#readFigures(nowMs);
    this.tile.render({
      info: this.info,
      title: this.title(),
      publisher: this.title() === this.info.descriptor.feed ? this.around.nameOf(this.info.publisher) : "",
      state: this.#state,
      stillMs: this.#watchdog.stillMs(nowMs),
      ...this.#fault(),
      reconnecting: this.#runner.state() === "again",
      frames: this.#frames,
      frame: this.#frame,
      framesPerSecond: this.#rate.perSecond(nowMs),
      figures: this.#figures,
    });
  }

  close(): void {
    this.#closed = true;
    this.#runner.close();
    this.#stage.clear();
    this.tile.element.remove();
  }

  #openLeg(): Promise<WhepLeg> {
    const { token, iceServers } = this.around;
    return iceServers().then((servers) =>
      WhepLeg.open({
        session: token.grant.session,
        feed: this.info.descriptor.feed,
        bearer: () => token.bearer(),
        iceServers: servers,
        onStream: (stream, leg) => !this.#closed && this.#stage.play(stream, (frame) => this.#handleFrame(frame, leg)),
      }),
    );
  }

  #fault(): { fault: string | null; undecodable: { codec: string; alternatives: readonly string[] } | null } {
    const fault = this.#runner.fault();
    if (fault === null) return { fault: null, undecodable: null };
    const refused = fault instanceof Refused && fault.status === 406;
    const undecodable = refused ? { codec: this.info.descriptor.codec, alternatives: fault.alternatives } : null;
    return { fault: faultWords(fault), undecodable };
  }

  #judge(nowMs: number, link: Link): TileState {
    const stillMs = this.#watchdog.stillMs(nowMs);
    const linkLost = link.kind === "lost" || link.kind === "joining";
    const lostMs = link.kind === "lost" ? nowMs - link.sinceMs : 0;
    return tileState({
      linkLost,
      movingWithoutLink: lostMs > LOST_PROOF_MS && stillMs !== null && !this.#isFrozen(nowMs),
      feed: this.info.state,
      hasFrame: this.#watchdog.hasFrame(),
      frozen: this.#isFrozen(nowMs),
      refused: this.#runner.fault() !== null,
    });
  }

  #isFrozen(nowMs: number): boolean {
    // A hidden page is shown no frames at all, and nobody looks at it.
    return !document.hidden && this.#watchdog.isFrozen(nowMs, freezeLimitMs(this.info.descriptor.fps));
  }

  #restartIfStill(nowMs: number, link: Link): void {
    const still = this.#state === "frozen" || this.#state === "connecting";
    if (!still || link.kind !== "open" || document.hidden || this.info.state !== "live") return;
    this.#runner.handleStandstill(nowMs, Math.max(this.#liveMs, this.#linkOpenMs, nowMs - (this.#watchdog.stillMs(nowMs) ?? Infinity)));
  }

  #handleFrame(frame: ShownFrame, leg: WhepLeg): void {
    const nowMs = performance.now();
    this.#watchdog.handleFrame(nowMs);
    this.#runner.handleMedia();
    this.#frames += frame.newFrames;
    this.#rate.handleFrame(nowMs, this.#frames);
    this.#frame = frame;
    this.#frameLeg = leg;
    this.#origin = null;
    this.#locate(nowMs);
    // Written at the moment the frame appears, so that a moving picture shows a calm figure; the tick takes over when it
    // stands still, and the figure grows.
    if (nowMs - this.#ageWrittenMs >= AGE_UPDATE_MS) this.#writeAge(nowMs, frame.presentedMs);
  }

  /** Finds the frame's origin; points that come after the frame may still make it known, or better known. */
  #locate(nowMs: number): void {
    const leg = this.#frameLeg?.id();
    const rtp = this.#frame?.rtp;
    if (!leg || rtp === null || rtp === undefined) return;
    const origin = this.around.captures.origin(nowMs, leg, rtp);
    this.#origin = onClientClock(origin, this.around.clock(nowMs)) ?? this.#origin;
  }

  #writeAge(nowMs: number, atMs: number): void {
    this.#ageWrittenMs = nowMs;
    this.#locate(nowMs);
    // While the feed waits for its publisher the last picture is not shown, so nothing has an age.
    const origin = this.info.state === "waiting" ? null : this.#origin;
    const age = ageAt(clientClockUs(atMs), origin);
    this.history.handleAge(age.kind === "unknown" ? null : age.ms);
    this.tile.renderAge(age, this.info.descriptor.replay);
  }

  async #readFigures(nowMs: number): Promise<void> {
    this.#statsReadMs = nowMs;
    const leg = this.#runner.current();
    this.#figures = leg === null ? NO_FIGURES : await leg.figures().catch(() => NO_FIGURES);
    this.history.handleSample({ atMs: nowMs, framesPerSecond: this.#rate.perSecond(nowMs), ...this.#figures });
  }
}
