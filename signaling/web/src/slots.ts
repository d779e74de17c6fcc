// Which voice is heard on which m-line of the voices leg, and who speaks. Pure.

import type { VoiceSlot } from "./types.ts";

/** m-lines of the voices leg: as many speakers can be heard at a time. */
export const VOICE_SLOTS = 12;

export class Voices {
  readonly #slots = new Map<string, string | null>();
  #speaking: readonly string[] = [];

  /** Slots of another leg are those of a leg that is gone. */
  handleSlots(slots: readonly VoiceSlot[]): void {
    this.#slots.clear();
    for (const { mid, feed } of slots.slice(0, VOICE_SLOTS)) this.#slots.set(mid, feed);
  }

  handleSpeaking(feeds: readonly string[]): void {
    this.#speaking = feeds;
  }

  /** The leg or the relay is gone: nobody is known to be heard. */
  reset(): void {
    this.#slots.clear();
    this.#speaking = [];
  }

  feedOf(mid: string): string | null {
    return this.#slots.get(mid) ?? null;
  }

  /** Feeds that are on an m-line. */
  heard(): string[] {
    return [...this.#slots.values()].filter((feed) => feed !== null);
  }

  /** Publishers who speak now, the loudest first. `publisherOf`: who publishes a feed; null where it is gone. */
  speakers(publisherOf: (feed: string) => string | null): string[] {
    const found = this.#speaking.map(publisherOf).filter((p) => p !== null);
    return [...new Set(found)];
  }
}
