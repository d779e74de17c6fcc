import assert from "node:assert/strict";
import test from "node:test";
import { gridColumns, LayoutState } from "../src/layout.ts";

const three = ["scope", "room", "us"];
const places = (state: LayoutState, ranked = three) => Object.fromEntries(state.places(ranked));

test("the most important picture is large until somebody chooses another", () => {
  const state = new LayoutState();
  assert.deepEqual(places(state), { scope: "large", room: "small", us: "small" });
  state.choose("us");
  assert.deepEqual(places(state), { scope: "small", room: "small", us: "large" });
});

test("a chosen picture that goes gives its place back, and takes it again when it returns", () => {
  const state = new LayoutState();
  state.choose("us");
  assert.deepEqual(places(state, ["scope", "room"]), { scope: "large", room: "small" });
  assert.equal(places(state)["us"], "large");
});

test("a pair shows the two chosen last, and the page fills up what was not chosen", () => {
  const state = new LayoutState("pair");
  assert.deepEqual(places(state), { scope: "large", room: "second", us: "small" });
  state.choose("us");
  assert.deepEqual(places(state), { scope: "second", room: "small", us: "large" });
  state.choose("room");
  assert.deepEqual(places(state), { scope: "small", room: "large", us: "second" });
});

test("in a grid all are equal, a single picture is large, and choosing leaves the grid", () => {
  const state = new LayoutState("grid");
  assert.deepEqual(places(state), { scope: "cell", room: "cell", us: "cell" });
  assert.deepEqual(places(state, ["scope"]), { scope: "large" });
  state.choose("room");
  assert.equal(state.layout, "large");
});

test("the layouts follow each other in a round", () => {
  const state = new LayoutState();
  assert.deepEqual([state.next(), state.next(), state.next()], ["grid", "pair", "large"]);
});

test("a grid has the columns with which the pictures are largest", () => {
  assert.equal(gridColumns(1, 1280, 600), 1);
  assert.equal(gridColumns(2, 1280, 600), 2);
  assert.equal(gridColumns(2, 700, 1000), 1);
  assert.equal(gridColumns(4, 1280, 720), 2);
  assert.equal(gridColumns(9, 1280, 720), 3);
  assert.equal(gridColumns(0, 0, 0), 1);
});
