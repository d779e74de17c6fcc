// What a tile says about its feed: one word, from everything that is known.

import type { FeedState } from "./types.ts";

export type TileState = "waiting" | "connecting" | "live" | "frozen" | "lost" | "stalled";

export interface TileInputs {
  /** The event socket is gone. */
  linkLost: boolean;
  /** New frames were shown well after the socket was lost, so the media path is alive without it. */
  movingWithoutLink: boolean;
  /** What the relay said last about the publisher. */
  feed: FeedState;
  /** A frame was ever shown. */
  hasFrame: boolean;
  /** No new frame for longer than the feed's limit. */
  frozen: boolean;
  /** The relay refused the leg, or cannot be reached for it. */
  refused: boolean;
}

/** The worst thing that is true wins. */
export function tileState(i: TileInputs): TileState {
  if (i.linkLost) return i.movingWithoutLink && !i.frozen ? "live" : "lost";
  if (i.feed === "stalled") return "stalled";
  if (i.feed === "waiting") return "waiting";
  if (!i.hasFrame) return i.refused ? "lost" : "connecting";
  return i.frozen ? "frozen" : "live";
}

/** Whether the picture that may still be on the screen must not be mistaken for a live one. */
export function isNotLive(state: TileState): boolean {
  return state === "frozen" || state === "lost" || state === "stalled";
}
