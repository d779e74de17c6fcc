// Which view of a source a tile shows: the one that fits its size, or the one that the person chose. Pure; time comes in as an
// argument.

import { VIEW_ENOUGH, VIEW_SETTLE_MS, VIEW_SPARE } from "./limits.ts";
import type { FeedDescriptor, FeedInfo } from "./types.ts";

/** Room for a picture, in pixels of the screen. */
export interface Room {
  width: number;
  height: number;
}

/** The views of one source, and the choice among them. */
export class Views {
  readonly #infos = new Map<string, FeedInfo>();
  /** Feeds that this browser cannot show, with the codec that they had when it was found out. */
  readonly #beyond = new Map<string, string>();
  #chosen: string | null = null;
  #auto: string;
  #otherSinceMs: number | null = null;
  /** The first choice by size was made; until then nothing is waited for. */
  #settled = false;

  constructor(first: FeedInfo) {
    this.#infos.set(first.descriptor.feed, first);
    this.#auto = first.descriptor.feed;
  }

  /** The largest first. */
  all(): FeedInfo[] {
    return [...this.#infos.values()].sort((a, b) => byExtent(b.descriptor, a.descriptor));
  }

  get(feed: string): FeedInfo | undefined {
    return this.#infos.get(feed);
  }

  has(feed: string): boolean {
    return this.#infos.has(feed);
  }

  set(info: FeedInfo): void {
    const { feed, codec } = info.descriptor;
    this.#infos.set(feed, info);
    if (this.#beyond.get(feed) !== codec) this.#beyond.delete(feed);
  }

  /** Returns whether there is another view left. */
  remove(feed: string): boolean {
    this.#infos.delete(feed);
    this.#beyond.delete(feed);
    if (this.#chosen === feed) this.#chosen = null;
    return this.#infos.size > 0;
  }

  /** The view that the source is named by: the one with the source's own name, else the largest. */
  main(): FeedInfo | undefined {
    return mainOf(this.all());
  }

  /** A view, or null for the one that fits. */
  choose(feed: string | null): void {
    this.#chosen = feed !== null && this.#infos.has(feed) ? feed : null;
    this.#otherSinceMs = null;
  }

  chosen(): string | null {
    return this.#chosen;
  }

  /** The relay says that this browser cannot show it. A choice of it falls back to what fits. Returns whether there is another. */
  handleBeyond(feed: string): boolean {
    const info = this.#infos.get(feed);
    if (info === undefined) return this.#infos.size > 0;
    this.#beyond.set(feed, info.descriptor.codec);
    if (!this.all().some((v) => !this.isBeyond(v.descriptor.feed))) return false;
    if (this.#chosen === feed) this.#chosen = null;
    return true;
  }

  isBeyond(feed: string): boolean {
    return this.#beyond.has(feed);
  }

  /** What this browser cannot show may have changed: it is tried again. */
  retry(): void {
    this.#beyond.clear();
  }

  /** The view that should be shown now. Null: the room is not known, for instance in a page that is hidden. */
  wanted(nowMs: number, room: Room | null): string {
    if (this.#chosen !== null) return this.#chosen;
    const fits = this.#fitting(room);
    const isUsable = this.#infos.get(this.#auto)?.state === "live" && !this.isBeyond(this.#auto);
    if (fits === this.#auto) {
      this.#otherSinceMs = null;
    } else if (!isUsable || !this.#settled) {
      // Nothing is lost by going at once from what shows nothing.
      this.#auto = fits;
      this.#otherSinceMs = null;
    } else {
      // A window that is being drawn larger asks for one view after the other: only what lasts counts.
      this.#otherSinceMs ??= nowMs;
      if (nowMs - this.#otherSinceMs >= VIEW_SETTLE_MS) {
        this.#auto = fits;
        this.#otherSinceMs = null;
      }
    }
    this.#settled ||= room !== null && this.all().every((v) => v.descriptor.width > 0);
    return this.#auto;
  }

  #fitting(room: Room | null): string {
    const shown = this.all().filter((v) => !this.isBeyond(v.descriptor.feed));
    // A part of the field, enlarged, is no substitute for the whole: only a person chooses it.
    const framing = framingOf(this.main()?.descriptor.view ?? "");
    const whole = shown.filter((v) => framingOf(v.descriptor.view) === framing);
    const candidates = whole.length > 0 ? whole : shown;
    const live = candidates.filter((v) => v.state === "live");
    const usable = live.length > 0 ? live : candidates;
    const largest = usable[0]?.descriptor.feed ?? this.all()[0]?.descriptor.feed ?? this.#auto;
    const sizes = usable.map((v) => v.descriptor);
    const present = usable.some((v) => v.descriptor.feed === this.#auto);
    if (room === null) return present ? this.#auto : largest;
    // Before the relay has learnt the sizes nothing can be compared.
    if (sizes.some((d) => d.width === 0 || d.height === 0)) return present ? this.#auto : largest;
    const enough = sizes.filter((d) => share(d, room) >= (d.feed === this.#auto ? VIEW_ENOUGH : VIEW_SPARE));
    return enough[enough.length - 1]?.feed ?? largest;
  }
}

function mainOf(views: readonly FeedInfo[]): FeedInfo | undefined {
  return views.find(({ descriptor }) => descriptor.feed === descriptor.source) ?? views[0];
}

/** One of each source, where somebody sends several views of it. All are of one hand. */
export function mainViews(feeds: readonly FeedInfo[]): FeedInfo[] {
  const sources = new Map<string, FeedInfo[]>();
  for (const feed of feeds) {
    const key = `${feed.descriptor.kind} ${feed.descriptor.source}`;
    sources.set(key, [...(sources.get(key) ?? []), feed]);
  }
  return [...sources.values()].flatMap((views) => mainOf(views.sort((a, b) => byExtent(b.descriptor, a.descriptor))) ?? []);
}

/** Pixels that the view has for each pixel of the room, along the side that is filled. */
function share(d: FeedDescriptor, room: Room): number {
  return Math.max(d.width / Math.max(1, room.width), d.height / Math.max(1, room.height));
}

function byExtent(a: FeedDescriptor, b: FeedDescriptor): number {
  return a.width * a.height - b.width * b.height || a.max_bitrate - b.max_bitrate || b.feed.localeCompare(a.feed);
}

/** Layers show the same at other sizes: "overview", "overview-half", "overview-quarter" (docs/API.md, simulcast). */
function framingOf(view: string): string {
  return view.replace(/-(half|quarter)$/, "");
}

/** What each view is called in a list of them: its size, and where that is not enough, what tells it from the others. */
export function viewNames(views: readonly FeedInfo[]): string[] {
  const descriptors = views.map((v) => v.descriptor);
  const framings = new Set(descriptors.map((d) => framingOf(d.view)));
  const size = (d: FeedDescriptor) => (d.width === 0 ? d.view : `${d.width}×${d.height}`);
  const name = (d: FeedDescriptor) => (framings.size > 1 && d.width !== 0 ? `${framingOf(d.view)} ${size(d)}` : size(d));
  const withCodec = (d: FeedDescriptor) => `${name(d)} ${d.codec}`;
  const isAlone = (d: FeedDescriptor, word: (d: FeedDescriptor) => string) => descriptors.filter((o) => word(o) === word(d)).length === 1;
  return descriptors.map((d) => {
    if (isAlone(d, name)) return name(d);
    return isAlone(d, withCodec) ? withCodec(d) : `${withCodec(d)} (${d.feed})`;
  });
}
