import assert from "node:assert/strict";
import test from "node:test";
import type { FeedInfo, FeedState } from "../src/types.ts";
import { mainViews, viewNames, Views } from "../src/views.ts";

function view(feed: string, width: number, more: { state?: FeedState; codec?: string; view?: string; publisher?: string } = {}): FeedInfo {
  const descriptor = {
    feed, source: "cam", view: more.view ?? feed.replace("cam", "overview"), kind: "video" as const, purpose: "room" as const,
    codec: more.codec ?? "H264", clock_rate: 90_000, width, height: (width * 9) / 16, fps: 30, max_bitrate: width * 1000 + 1,
    budget_ms: 200, priority: 1, protected: false, replay: false,
  };
  return { descriptor, publisher: more.publisher ?? "p1", state: more.state ?? "live", since: 0 };
}

function layers(): Views {
  const views = new Views(view("cam", 1920));
  views.set(view("cam-half", 960));
  views.set(view("cam-quarter", 480));
  return views;
}

const room = (width: number) => ({ width, height: (width * 9) / 16 });

test("the first choice fits the tile at once, and the smallest view that has enough pixels is taken", () => {
  assert.equal(layers().wanted(0, room(1280)), "cam");
  assert.equal(layers().wanted(0, room(960)), "cam-half");
  assert.equal(layers().wanted(0, room(300)), "cam-quarter");
  assert.equal(layers().wanted(0, room(4000)), "cam");
});

test("a tile that grows or shrinks goes over once the new size has lasted", () => {
  const views = layers();
  assert.equal(views.wanted(0, room(300)), "cam-quarter");
  assert.equal(views.wanted(100, room(900)), "cam-quarter");
  assert.equal(views.wanted(1000, room(900)), "cam-quarter");
  assert.equal(views.wanted(1100, room(900)), "cam-half");
  // The control: a size that did not last changes nothing.
  views.wanted(1200, room(1900));
  views.wanted(1300, room(900));
  assert.equal(views.wanted(2250, room(1900)), "cam-half");
});

test("a size between two views does not make the tile go to and fro", () => {
  const views = layers();
  assert.equal(views.wanted(0, room(960)), "cam-half");
  for (let at = 0; at < 10_000; at += 100) assert.equal(views.wanted(at, room(at % 200 === 0 ? 1100 : 1250)), "cam-half");
});

test("a view that brings nothing is left at once for one that does", () => {
  const views = layers();
  assert.equal(views.wanted(0, room(1900)), "cam");
  views.set(view("cam", 1920, { state: "stalled" }));
  assert.equal(views.wanted(1, room(1900)), "cam-half");
  views.set(view("cam", 1920));
  views.wanted(2, room(1900));
  assert.equal(views.wanted(1002, room(1900)), "cam");
  // Where nothing comes at all, it stays where it is called for.
  for (const [feed, width] of [["cam", 1920], ["cam-half", 960], ["cam-quarter", 480]] as const) views.set(view(feed, width, { state: "stalled" }));
  assert.equal(views.wanted(1003, room(1900)), "cam");
});

test("what a person chose stays, whatever the size and whatever comes, until it is gone or given back", () => {
  const views = layers();
  views.choose("cam-quarter");
  views.set(view("cam-quarter", 480, { state: "stalled" }));
  assert.equal(views.wanted(0, room(1900)), "cam-quarter");
  assert.equal(views.wanted(9000, room(1900)), "cam-quarter");
  views.choose(null);
  assert.equal(views.wanted(9000, room(1900)), "cam");
  views.choose("cam-half");
  assert.ok(views.remove("cam-half"));
  assert.equal(views.wanted(9100, room(1900)), "cam");
  views.choose("nothing");
  assert.equal(views.chosen(), null);
});

test("what the browser cannot show is passed over, and told of only where nothing else is left", () => {
  const views = new Views(view("cam", 1920, { codec: "H265" }));
  assert.equal(views.handleBeyond("cam"), false);
  assert.equal(views.wanted(0, room(1900)), "cam");
  views.set(view("cam-half", 960));
  assert.equal(views.handleBeyond("cam"), true);
  assert.equal(views.wanted(0, room(1900)), "cam-half");
  views.choose("cam");
  assert.ok(views.handleBeyond("cam"));
  assert.equal(views.wanted(0, room(1900)), "cam-half");
  // Its publisher has changed the codec.
  views.set(view("cam", 1920));
  assert.ok(!views.isBeyond("cam"));
  views.wanted(1, room(1900));
  assert.equal(views.wanted(1001, room(1900)), "cam");
});

test("sizes that are not known yet and a tile that nobody sees change nothing", () => {
  const views = new Views(view("cam", 0));
  views.set(view("cam-half", 0));
  assert.equal(views.wanted(0, room(300)), "cam");
  assert.equal(views.wanted(5000, room(300)), "cam");
  views.set(view("cam", 1920));
  views.set(view("cam-half", 960));
  assert.equal(views.wanted(5001, null), "cam");
  assert.equal(views.wanted(5002, room(300)), "cam-half");
});

test("an enlarged part of the field is another picture: only a person chooses it", () => {
  const views = new Views(view("cam", 1920));
  views.set(view("detail", 640, { view: "detail" }));
  assert.equal(views.wanted(0, room(600)), "cam");
  assert.equal(views.wanted(5000, room(600)), "cam");
  views.choose("detail");
  assert.equal(views.wanted(5001, room(600)), "detail");
});

test("views are told from each other by size, then codec, then name", () => {
  assert.deepEqual(viewNames([view("cam", 1920), view("cam-half", 960)]), ["1920×1080", "960×540"]);
  assert.deepEqual(viewNames([view("cam", 1920, { codec: "H265" }), view("b", 1920, { view: "overview" })]), ["1920×1080 H265", "1920×1080 H264"]);
  assert.deepEqual(viewNames([view("cam", 960), view("b", 960, { view: "overview" })]), ["960×540 H264 (cam)", "960×540 H264 (b)"]);
  assert.deepEqual(viewNames([view("cam", 1920), view("x", 640, { view: "detail" })]), ["overview 1920×1080", "detail 640×360"]);
  assert.deepEqual(viewNames([view("cam", 0), view("cam-half", 0)]), ["overview", "overview-half"]);
});

test("a source is named by the view of its own name, and counts once", () => {
  const all = [view("cam-half", 960), view("cam", 480), view("cam-quarter", 240)];
  assert.deepEqual(mainViews(all).map((v) => v.descriptor.feed), ["cam"]);
  const other = view("us", 640);
  other.descriptor.source = "us";
  assert.deepEqual(mainViews([...all, other]).map((v) => v.descriptor.feed), ["cam", "us"]);
});
