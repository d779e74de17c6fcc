// One source of pictures on the page: its views, the leg that carries one of them, the age of what is shown, and what the tile
// says.

import { ageAt, onClientClock, type CaptureMaps, type Origin } from "./age.ts";
import { clientClockUs, type Offset } from "./clock.ts";
import type { Link } from "./events.ts";
import { FreezeWatchdog, freezeLimitMs } from "./freeze.ts";
import { AGE_UPDATE_MS, LOST_PROOF_MS, STATS_EVERY_MS, TICK_MS, VIEW_AGAIN_MS } from "./limits.ts";
import { Refused } from "./api.ts";
import { History } from "./history.ts";
import { pictureName } from "./names.ts";
import { faultWords, Runner } from "./runner.ts";
import { Stage, type ShownFrame } from "./stage.ts";
import { tileState, type TileState } from "./state.ts";
import { FrameRate, NO_FIGURES, type Figures } from "./stats.ts";
import { t } from "./strings.ts";
import { Tile, type ViewModel } from "./tile.ts";
import type { TokenKeeper } from "./token.ts";
import type { FeedInfo, LegState } from "./types.ts";
import { viewNames, Views, type Room } from "./views.ts";
import { WhepLeg } from "./whep.ts";

/** What a feed needs from the session around it. */
export interface Surroundings {
  token: TokenKeeper;
  iceServers(): Promise<RTCIceServer[]>;
  link(): Link;
  clock(nowMs: number): Offset | null;
  captures: CaptureMaps;
  /** The leg's first picture is on the screen, now. */
  shown(leg: string): void;
  /** How a participant is shown; empty while it is not here. */
  nameOf(participant: string): string;
}

/** What a person does with a tile. */
export interface FeedActions {
  /** Wants to see it large. */
  promote: (key: string) => void;
  /** Wants to see that feed, which can be shown where this one cannot. */
  instead: (feed: string) => void;
}

export class Feed {
  readonly tile: Tile;
  readonly #views: Views;
  /** The view that the leg carries, or is opened with. */
  #carried: string;
  /** What the relay was asked to go on with, and when. */
  #asked: { feed: string; atMs: number } | null = null;
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

  /** `key` tells it from the others and stays the same when it goes on with another view. */
  constructor(
    private readonly around: Surroundings,
    readonly key: string,
    first: FeedInfo,
    actions: FeedActions,
  ) {
    this.#views = new Views(first);
    this.#carried = first.descriptor.feed;
    this.#stage = new Stage(() => t.tile.video(this.title()));
    this.#runner = new Runner({ open: () => this.#openLeg(), renew: () => around.token.renew() });
    this.tile = new Tile(key, this.#stage.element, {
      promote: () => actions.promote(key),
      instead: actions.instead,
      choose: (feed) => this.choose(feed),
    });
  }

  state(): TileState {
    return this.#state;
  }

  /** The view that is shown, or on its way. */
  get info(): FeedInfo {
    const info = this.#views.get(this.#carried) ?? this.#views.main();
    if (info === undefined) throw new Error(`no view of ${this.key} is left`);
    return info;
  }

  /** The view that the source is named and ranked by, whichever is shown. */
  main(): FeedInfo {
    return this.#views.main() ?? this.info;
  }

  source(): string {
    return this.main().descriptor.source;
  }

  /** What the picture is called. */
  title(): string {
    return pictureName(this.main(), (participant) => this.around.nameOf(participant));
  }

  /** Whether that feed is one of its views. */
  has(feed: string): boolean {
    return this.#views.has(feed);
  }

  /** How many views there are. */
  count(): number {
    return this.#views.all().length;
  }

  /** Whether a new feed is a view of the same source out of the same hand: a source is but a name that anybody may use. */
  isOf(info: FeedInfo): boolean {
    const isSame = (v: FeedInfo) => v.publisher === info.publisher && v.descriptor.source === info.descriptor.source;
    return this.#views.all().some(isSame);
  }

  /** A view came, or changed. */
  handleInfo(nowMs: number, info: FeedInfo): void {
    const before = this.#views.get(info.descriptor.feed)?.state;
    if (info.descriptor.feed === this.#carried && info.state === "live" && before !== "live") this.#liveMs = nowMs;
    this.#views.set(info);
  }

  /** A view is gone. Returns whether another is left. */
  handleGone(nowMs: number, feed: string): boolean {
    if (!this.#views.remove(feed)) return false;
    if (this.#asked?.feed === feed) this.#asked = null;
    // The relay ends the leg with what it carries.
    if (feed === this.#carried) this.restart(nowMs);
    return true;
  }

  /** The relay says that a leg carries another view from here on. */
  handleSwitched(leg: string, feed: string): void {
    if (leg !== this.#runner.current()?.id()) return;
    this.around.captures.forget(leg);
    this.#carried = feed;
    if (this.#asked?.feed === feed) this.#asked = null;
  }

  /** A view, or null for the one that fits the tile. */
  choose(feed: string | null): void {
    this.#views.choose(feed);
  }

  /** Another picture came: it may be one that can be shown where this one cannot, and the relay names it when asked again. */
  handleOther(nowMs: number): void {
    if (this.#fault().undecodable === null) return;
    this.#views.retry();
    this.#runner.retry(nowMs);
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
    if (link.kind === "open" || link.kind === "silent") {
      this.#followViews(nowMs);
      this.#runner.handleTick(nowMs);
    }
    this.#state = this.#judge(nowMs, link);
    this.#restartIfStill(nowMs, link);
    // A picture that moves has its age written when a frame appears; here it would be that plus however long ago that was.
    const stands = nowMs - (this.#frame?.presentedMs ?? -Infinity) > 2 * TICK_MS;
    if (stands && nowMs - this.#ageWrittenMs >= AGE_UPDATE_MS) this.#writeAge(nowMs, nowMs);
    if (nowMs - this.#statsReadMs >= STATS_EVERY_MS) void this.#readFigures(nowMs);
    this.tile.render({
      info: this.info,
      title: this.title(),
      publisher: this.title() === this.main().descriptor.feed ? this.around.nameOf(this.info.publisher) : "",
      state: this.#state,
      stillMs: this.#watchdog.stillMs(nowMs),
      ...this.#fault(),
      reconnecting: this.#runner.state() === "again",
      frames: this.#frames,
      frame: this.#frame,
      framesPerSecond: this.#rate.perSecond(nowMs),
      figures: this.#figures,
      views: this.#viewModel(),
    });
  }

  close(): void {
    this.#closed = true;
    this.#runner.close();
    this.#stage.clear();
    this.tile.element.remove();
  }

  async #openLeg(): Promise<WhepLeg> {
    const { token, iceServers } = this.around;
    const servers = await iceServers();
    const feed = this.#views.wanted(performance.now(), this.#room());
    [this.#carried, this.#asked] = [feed, null];
    try {
      return await WhepLeg.open({
        session: token.grant.session,
        feed,
        bearer: () => token.bearer(),
        iceServers: servers,
        onStream: (stream, leg) => !this.#closed && this.#stage.play(stream, (frame) => this.#handleFrame(frame, leg)),
      });
    } catch (error) {
      // Another view of the same source is tried at once; only where there is none the person has to be told.
      const isBeyond = error instanceof Refused && error.status === 406;
      // After the runner has taken note of the failure.
      if (isBeyond && this.#views.handleBeyond(feed)) setTimeout(() => this.#runner.retry(performance.now()));
      throw error;
    }
  }

  /** Asks for the view that is wanted now, where the leg carries another one. */
  #followViews(nowMs: number): void {
    const leg = this.#runner.current();
    const feed = this.#views.wanted(nowMs, this.#room());
    if (leg === null || feed === this.#carried) return;
    if (this.#asked?.feed === feed && nowMs - this.#asked.atMs < VIEW_AGAIN_MS) return;
    this.#asked = { feed, atMs: nowMs };
    leg.ask(feed).catch((error: unknown) => {
      if (!(error instanceof Refused) || this.#runner.current() !== leg || this.#asked?.feed !== feed) return;
      // Another payload format, or a leg that is gone: a new leg brings it. Any other refusal may pass.
      if (error.status === 406 || error.problem === "leg-missing") this.restart(performance.now());
    });
  }

  /** The room that the tile has for a picture, in pixels of the screen; null while nobody looks. */
  #room(): Room | null {
    const { clientWidth, clientHeight } = this.#stage.element;
    if (document.hidden || clientWidth === 0 || clientHeight === 0) return null;
    return { width: clientWidth * devicePixelRatio, height: clientHeight * devicePixelRatio };
  }

  #viewModel(): ViewModel | null {
    const views = this.#views.all();
    if (views.length < 2) return null;
    const names = viewNames(views);
    const options = views.map((v, i) => {
      const { feed } = v.descriptor;
      const fault = this.#views.isBeyond(feed) ? "beyond" : v.state === "live" ? "none" : "silent";
      return { feed, name: names[i] ?? feed, fault } as const;
    });
    return { options, chosen: this.#views.chosen(), carried: this.#carried, switching: this.#asked !== null };
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
    const name = leg.id();
    if (leg !== this.#frameLeg && name !== null) this.around.shown(name);
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
