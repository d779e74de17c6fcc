import assert from "node:assert/strict";
import test from "node:test";
import { figuresBetween, FrameRate, readingOf } from "../src/stats.ts";

const inbound = {
  id: "I1",
  type: "inbound-rtp",
  kind: "video",
  timestamp: 1000,
  bytesReceived: 1_000_000,
  headerBytesReceived: 10_000,
  packetsReceived: 900,
  packetsLost: 5,
  jitterBufferDelay: 3,
  jitterBufferEmittedCount: 100,
};

test("the round trip is that of the selected pair, and without video there is no reading", () => {
  const report = [
    { id: "P1", type: "candidate-pair", nominated: true, state: "succeeded", currentRoundTripTime: 0.5 },
    { id: "P2", type: "candidate-pair", currentRoundTripTime: 0.004 },
    { id: "T1", type: "transport", selectedCandidatePairId: "P2" },
  ];
  assert.equal(readingOf([inbound, ...report])?.roundTripSeconds, 0.004);
  assert.equal(readingOf(report), null);
  assert.equal(readingOf([inbound])?.roundTripSeconds, null);
});

test("figures are differences over time", () => {
  const before = readingOf([inbound]);
  const after = readingOf([
    {
      ...inbound,
      timestamp: 2000,
      bytesReceived: 2_240_000,
      headerBytesReceived: 20_000,
      packetsReceived: 1890,
      packetsLost: 15,
      jitterBufferDelay: 4.2,
      jitterBufferEmittedCount: 160,
    },
  ]);
  assert.ok(before !== null && after !== null);
  if (before === null || after === null) return;
  const figures = figuresBetween(before, after);
  assert.equal(figures.bitsPerSecond, 10_000_000);
  assert.equal(figures.lossPercent, 1);
  assert.ok(Math.abs((figures.bufferMs ?? 0) - 20) < 1e-9);
  assert.equal(figures.roundTripMs, null);
});

test("a late packet does not make loss negative, and no frames give no buffer figure", () => {
  const before = readingOf([inbound]);
  const after = readingOf([{ ...inbound, timestamp: 2000, packetsReceived: 910, packetsLost: 4 }]);
  if (before === null || after === null) return assert.ok(false);
  assert.equal(figuresBetween(before, after).lossPercent, 0);
  assert.equal(figuresBetween(before, after).bufferMs, null);
});

test("the frame rate counts presented frames, also those without a callback, and falls to zero", () => {
  const rate = new FrameRate();
  assert.equal(rate.perSecond(0), 0);
  for (let i = 0; i <= 60; i += 2) rate.handleFrame((i * 1000) / 60, i);
  assert.ok(Math.abs(rate.perSecond(1000) - 60) < 0.01);
  assert.equal(rate.perSecond(2001), 0);
});
