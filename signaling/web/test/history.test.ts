import assert from "node:assert/strict";
import test from "node:test";
import { History, HISTORY_SAMPLES, linePath, scaleTop } from "../src/history.ts";

const sample = (atMs: number) => ({ atMs, framesPerSecond: 30, bitsPerSecond: 4e6, lossPercent: null, bufferMs: 8, roundTripMs: 2 });

test("a minute is kept, and no more", () => {
  const history = new History();
  for (let i = 0; i < HISTORY_SAMPLES + 7; i += 1) history.handleSample(sample(i));
  assert.equal(history.samples().length, HISTORY_SAMPLES);
  assert.equal(history.samples()[0]?.atMs, 7);
});

test("the age of a second is the highest that was shown in it, and unknown where none was", () => {
  const history = new History();
  history.handleAge(80);
  history.handleAge(640);
  history.handleAge(90);
  history.handleAge(null);
  history.handleSample(sample(0));
  history.handleSample(sample(1));
  assert.deepEqual(history.series("ageMs"), [640, null]);
});

test("a scale ends at 1, 2 or 5 times a power of ten above everything", () => {
  assert.equal(scaleTop([3, 61, null], 10), 100);
  assert.equal(scaleTop([120], 100), 200);
  assert.equal(scaleTop([4.2e6], 1e5), 5e6);
  assert.equal(scaleTop([], 10), 10);
});

test("a line ends at the right edge, breaks where nothing is known, and never leaves the graph", () => {
  assert.equal(linePath([0, 10], 10, 590, 50), "M580.0 50.0L590.0 0.0");
  assert.equal(linePath([5, null, 99], 10, 590, 50), "M570.0 25.0h.1M590.0 0.0h.1");
  assert.equal(linePath([null], 10, 590, 50), "");
});
