import assert from "node:assert/strict";
import test from "node:test";
import { ageAt, ageLevel, CaptureMap, CaptureMaps, onClientClock, rtpSince } from "../src/age.ts";
import { LEGS_KEPT, POINTS_KEPT, POINT_TRUST_MS } from "../src/limits.ts";

const point = (over: object = {}) => ({
  leg: "leg-1",
  rtp: 90_000,
  clock_rate: 90_000,
  capture: 1_700_000_000_000_000 as number | null,
  received: 1_700_000_000_020_000,
  uncertainty_us: 400,
  ...over,
});

test("RTP distance is signed and right across the wrap", () => {
  assert.equal(rtpSince(5, 0xffff_fffb), 10);
  assert.equal(rtpSince(0xffff_fffb, 5), -10);
  assert.equal(rtpSince(0x8000_0000, 0x7fff_ffff), 1);
});

test("a frame after the point is captured later by its media time", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point());
  const origin = map.origin(10, 90_000 + 3000);
  assert.deepEqual(origin, { kind: "capture", atUs: 1_700_000_000_033_333 + 1 / 3, uncertaintyUs: 400 });
});

test("a frame before the point, across the wrap, is captured earlier", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point({ rtp: 1000 }));
  assert.equal(map.origin(0, 0x1_0000_0000 - 8000)?.atUs, 1_700_000_000_000_000 - 100_000);
});

test("the nearest point is taken, on either side", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point({ rtp: 0, uncertainty_us: 1 }));
  map.handlePoint(1, point({ rtp: 9000, uncertainty_us: 2 }));
  map.handlePoint(2, point({ rtp: 18_000, uncertainty_us: 3 }));
  assert.equal(map.origin(3, 4000)?.uncertaintyUs, 1);
  assert.equal(map.origin(3, 12_000)?.uncertaintyUs, 2);
  assert.equal(map.origin(3, 90_000)?.uncertaintyUs, 3);
});

test("a point older than three seconds, or that far away in media time, is not trusted", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point());
  assert.ok(map.origin(POINT_TRUST_MS, 90_000));
  assert.equal(map.origin(POINT_TRUST_MS + 1, 90_000), null);
  assert.ok(map.origin(0, 90_000 + 3 * 90_000));
  assert.equal(map.origin(0, 90_000 + 3 * 90_000 + 90), null);
});

test("a clock rate of zero is not divided by, and the number of points is bounded", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point({ clock_rate: 0 }));
  assert.equal(map.origin(0, 90_000), null);
  for (let i = 0; i <= POINTS_KEPT; i += 1) map.handlePoint(0, point({ rtp: i * 90_000 }));
  assert.equal(map.origin(0, 0)?.atUs, 1_700_000_000_000_000 - 1_000_000);
});

test("legs are kept apart, and only so many of them", () => {
  const maps = new CaptureMaps();
  maps.handlePoint(0, point({ leg: "first" }));
  assert.ok(maps.origin(0, "first", 90_000));
  assert.equal(maps.origin(0, "second", 90_000), null);
  for (let i = 0; i < LEGS_KEPT; i += 1) maps.handlePoint(0, point({ leg: `leg-${i}` }));
  assert.equal(maps.origin(0, "first", 90_000), null);
});

test("age counts on the relay's clock, adds up what is uncertain, and grows while the picture stands still", () => {
  const clock = { offsetUs: 5_000_000, uncertaintyUs: 1500 };
  const origin = onClientClock({ kind: "capture", atUs: 1_700_000_000_000_000, uncertaintyUs: 400 }, clock);
  const presented = 1_700_000_000_084_000 - 5_000_000;
  assert.deepEqual(ageAt(presented, origin), { kind: "known", ms: 84, uncertaintyMs: 18 });
  assert.deepEqual(ageAt(presented + 1_250_000, origin), { kind: "known", ms: 1334, uncertaintyMs: 18 });
});

test("without the relay's clock or a trusted point the age is unknown, never a number", () => {
  const origin = { kind: "capture" as const, atUs: 1, uncertaintyUs: 0 };
  assert.equal(onClientClock(origin, null), null);
  assert.equal(onClientClock(null, { offsetUs: 0, uncertaintyUs: 0 }), null);
  assert.deepEqual(ageAt(5, null), { kind: "unknown" });
});

test("a publisher without capture time gives a lower bound, which is never green", () => {
  const map = new CaptureMap();
  map.handlePoint(0, point({ capture: null }));
  const origin = map.origin(0, 90_000);
  assert.equal(origin?.kind, "received");
  const age = ageAt(1_700_000_000_060_000, onClientClock(origin, { offsetUs: 0, uncertaintyUs: 0 }));
  assert.deepEqual(age, { kind: "atLeast", ms: 40, uncertaintyMs: 16 });
  assert.equal(ageLevel(age), "none");
  assert.equal(ageLevel({ kind: "atLeast", ms: 1300, uncertaintyMs: 16 }), "red");
});

test("amber begins at 600 ms and red at 1300 ms", () => {
  const level = (ms: number) => ageLevel({ kind: "known", ms, uncertaintyMs: 3 });
  assert.deepEqual([599, 600, 1299, 1300].map(level), ["good", "amber", "amber", "red"]);
  assert.equal(ageLevel({ kind: "unknown" }), "none");
});
