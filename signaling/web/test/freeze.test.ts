import assert from "node:assert/strict";
import test from "node:test";
import { AnswerWatchdog, FreezeWatchdog, freezeLimitMs } from "../src/freeze.ts";
import { FREEZE_MS, GIVE_UP_MS, SILENT_MS, TICK_MS } from "../src/limits.ts";

test("a picture is called frozen within 500 ms of its last frame, and not before 400 ms", () => {
  const watchdog = new FreezeWatchdog();
  watchdog.handleFrame(1000);
  assert.ok(!watchdog.isFrozen(1400, FREEZE_MS));
  assert.ok(watchdog.isFrozen(1401, FREEZE_MS));
  // Seen by the first tick after that, so well within 500 ms.
  assert.ok(FREEZE_MS + TICK_MS < 500);
});

test("a new frame ends the freeze, and the time of standstill counts from the last one", () => {
  const watchdog = new FreezeWatchdog();
  watchdog.handleFrame(0);
  assert.equal(watchdog.stillMs(1200), 1200);
  assert.ok(watchdog.isFrozen(1200, FREEZE_MS));
  watchdog.handleFrame(1201);
  assert.ok(!watchdog.isFrozen(1300, FREEZE_MS));
  assert.equal(watchdog.stillMs(1300), 99);
});

test("before the first frame nothing is frozen: there is no picture", () => {
  const watchdog = new FreezeWatchdog();
  assert.ok(!watchdog.hasFrame());
  assert.ok(!watchdog.isFrozen(1e6, FREEZE_MS));
  assert.equal(watchdog.stillMs(1e6), null);
});

test("a page that was hidden gets its 400 ms anew, but the age of the picture is not forgotten", () => {
  const watchdog = new FreezeWatchdog();
  watchdog.handleFrame(0);
  watchdog.handleResume(60_000);
  assert.ok(!watchdog.isFrozen(60_400, FREEZE_MS));
  assert.ok(watchdog.isFrozen(60_401, FREEZE_MS));
  assert.equal(watchdog.stillMs(60_401), 60_401);
});

test("slow feeds are given two and a half of their frame times", () => {
  assert.equal(freezeLimitMs(60), FREEZE_MS);
  assert.equal(freezeLimitMs(0), FREEZE_MS);
  assert.equal(freezeLimitMs(2), 1250);
});

/** Runs ticks up to `untilMs`, with an exchange every 500 ms that is answered until `deadMs`. */
function run(untilMs: number, deadMs: number): { atMs: number; answer: string }[] {
  const watchdog = new AnswerWatchdog(0);
  const seen: { atMs: number; answer: string }[] = [];
  for (let now = 0; now <= untilMs; now += TICK_MS) {
    if (now % 500 === 0) watchdog.handleQuestion(now);
    if (now % 500 === 50 && now < deadMs) watchdog.handleMessage(now);
    const answer = watchdog.check(now);
    if (answer !== seen[seen.length - 1]?.answer) seen.push({ atMs: now, answer });
  }
  return seen;
}

test("a relay that answers is never called silent", () => {
  assert.deepEqual(run(60_000, Infinity), [{ atMs: 0, answer: "answering" }]);
});

test("a relay that falls silent is noticed within a second, and given up after three", () => {
  const seen = run(10_000, 5000);
  assert.deepEqual(seen.map((s) => s.answer), ["answering", "silent", "giveUp"]);
  const lastHeard = 4550;
  assert.ok((seen[1]?.atMs ?? 0) - lastHeard <= 1000);
  assert.ok((seen[2]?.atMs ?? 0) - lastHeard <= GIVE_UP_MS + TICK_MS);
});

test("silence without an open question is no fault", () => {
  const watchdog = new AnswerWatchdog(0);
  for (let now = 0; now < 20_000; now += TICK_MS) assert.equal(watchdog.check(now), "answering");
});

test("a page that was held up lets the answers in its queue in before it complains", () => {
  const watchdog = new AnswerWatchdog(0);
  watchdog.handleQuestion(0);
  assert.equal(watchdog.check(5000), "answering");
  watchdog.handleMessage(5001);
  assert.equal(watchdog.check(5050), "answering");
  // The negative control: without the answer the next tick does complain.
  const dead = new AnswerWatchdog(0);
  dead.handleQuestion(0);
  dead.check(5000);
  assert.ok(dead.check(5050) !== "answering");
  assert.ok(dead.quietMs(5050) > SILENT_MS);
});
