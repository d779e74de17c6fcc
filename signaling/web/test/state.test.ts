import assert from "node:assert/strict";
import test from "node:test";
import { isNotLive, tileState, type TileInputs } from "../src/state.ts";

const live: TileInputs = {
  linkLost: false,
  movingWithoutLink: false,
  feed: "live",
  hasFrame: true,
  frozen: false,
  refused: false,
};
const state = (over: Partial<TileInputs>) => tileState({ ...live, ...over });

test("live needs a live feed, a frame, and no freeze", () => {
  assert.equal(state({}), "live");
  assert.equal(state({ hasFrame: false }), "connecting");
  assert.equal(state({ frozen: true }), "frozen");
  assert.equal(state({ feed: "waiting" }), "waiting");
  assert.equal(state({ feed: "stalled" }), "stalled");
  assert.equal(state({ hasFrame: false, refused: true }), "lost");
});

test("a lost relay outweighs everything, until frames prove that the picture moves", () => {
  assert.equal(state({ linkLost: true }), "lost");
  assert.equal(state({ linkLost: true, feed: "stalled" }), "lost");
  assert.equal(state({ linkLost: true, movingWithoutLink: true }), "live");
  assert.equal(state({ linkLost: true, movingWithoutLink: true, frozen: true }), "lost");
});

test("every state with an old picture on the screen is marked as not live", () => {
  assert.deepEqual((["frozen", "lost", "stalled"] as const).map(isNotLive), [true, true, true]);
  assert.deepEqual((["live", "connecting", "waiting"] as const).map(isNotLive), [false, false, false]);
});
