import assert from "node:assert/strict";
import test from "node:test";
import { Mirror, randomNonce, SleepWatch, type ControlView } from "../src/control/mirror.ts";
import { PROBES_KEPT } from "../src/limits.ts";
import type { ControlInfo } from "../src/types.ts";

const LOCAL: ControlInfo = {
  mode: "local",
  epoch: 7,
  participant: null,
  expert: null,
  set: { camera: false, instruments: false, energy: false },
  since_ms: 0,
  stopped: [],
  alarms: [],
  colours: ["unmeasured", "unmeasured", "unmeasured", "unmeasured"],
  figures: [null, null, null, null, null],
  answers: [],
  status_age_ms: 500,
};
const status = (over: Partial<ControlInfo>) => ({ ...LOCAL, ...over });
const mode = (view: ControlView) => (view.kind === "known" ? view.control.mode : view.kind);

/** Has asked with `nonce` at 0 and was answered at once. */
function answered(over: Partial<ControlInfo> = {}, nonce = "a"): Mirror {
  const mirror = new Mirror(0);
  mirror.probed(0, nonce);
  mirror.handle(0, status({ ...over, answers: [nonce] }));
  return mirror;
}

test("a register is as old as the probe that it answers, and after 500 ms it is unknown", () => {
  // HO-V-001, HO-V-002
  const mirror = answered();
  assert.equal(mode(mirror.view(500)), "local");
  assert.equal(mode(mirror.view(501)), "unknown");
  assert.deepEqual(mirror.view(1700), { kind: "unknown", forMs: 1200 });
});

test("a late answer is as old as its probe, however late it comes", () => {
  // HO-V-001
  const mirror = new Mirror(0);
  mirror.probed(0, "a");
  mirror.handle(450, status({ answers: ["a"] }));
  assert.equal(mode(mirror.view(500)), "local");
  assert.equal(mode(mirror.view(501)), "unknown");
  // The control: the same answer to a probe that was sent when it came is good for 500 ms from then on.
  const prompt = new Mirror(0);
  prompt.probed(450, "b");
  prompt.handle(450, status({ answers: ["b"] }));
  assert.equal(mode(prompt.view(950)), "local");
});

test("an answer that comes later than it may be believed is never shown", () => {
  const mirror = new Mirror(0);
  mirror.probed(0, "a");
  mirror.handle(2000, status({ answers: ["a"] }));
  assert.equal(mode(mirror.view(2000)), "unknown");
});

test("an answer to a nonce that was never sent does not count", () => {
  // HO-V-004
  const mirror = new Mirror(0);
  mirror.handle(0, status({ answers: ["a"] }));
  assert.equal(mode(mirror.view(0)), "unknown");
  mirror.probed(10, "mine");
  mirror.handle(20, status({ mode: "remote", answers: ["another's"] }));
  assert.equal(mode(mirror.view(20)), "unknown");
  // The control: the same message with the nonce that was sent counts.
  mirror.handle(20, status({ mode: "remote", answers: ["another's", "mine"] }));
  assert.equal(mode(mirror.view(20)), "remote");
});

test("a nonce counts once: what is sent again does not become young", () => {
  const mirror = answered({ mode: "remote" });
  mirror.handle(400, status({ mode: "remote", answers: ["a"] }));
  assert.equal(mode(mirror.view(501)), "unknown");
});

test("a message without any answer makes nothing younger and changes nothing", () => {
  const mirror = answered();
  for (let now = 100; now <= 1000; now += 100) mirror.handle(now, status({ mode: "remote" }));
  assert.equal(mode(mirror.view(500)), "local");
  assert.equal(mode(mirror.view(501)), "unknown");
});

test("a lower epoch does not count, whatever it answers", () => {
  // HO-V-004
  const mirror = answered({ epoch: 9, mode: "hold" });
  mirror.probed(100, "b");
  mirror.handle(150, status({ epoch: 8, mode: "remote", answers: ["b"] }));
  assert.equal(mode(mirror.view(150)), "hold");
  assert.equal(mode(mirror.view(501)), "unknown");
  // The control: the same answer from the epoch that is known counts.
  mirror.handle(160, status({ epoch: 9, mode: "remote", answers: ["b"] }));
  assert.equal(mode(mirror.view(600)), "remote");
});

test("news of a higher epoch counts at once but makes nothing younger", () => {
  // HO-V-001, HO-V-004
  const mirror = answered({ epoch: 8, mode: "remote" });
  mirror.handle(300, status({ epoch: 9, mode: "hold" }));
  assert.equal(mode(mirror.view(400)), "hold");
  assert.equal(mode(mirror.view(501)), "unknown");
});

test("an answer that was overtaken does not replace the newer one", () => {
  const mirror = new Mirror(0);
  mirror.probed(0, "a");
  mirror.probed(200, "b");
  mirror.handle(250, status({ mode: "hold", answers: ["b"] }));
  mirror.handle(260, status({ mode: "remote", answers: ["a"] }));
  assert.equal(mode(mirror.view(700)), "hold");
});

test("the table of probes is bounded, and the oldest is forgotten", () => {
  // HO-V-005
  const mirror = new Mirror(0);
  for (let i = 0; i < 3 * PROBES_KEPT; i += 1) mirror.probed(i, String(i));
  assert.equal(mirror.pending(), PROBES_KEPT);
  mirror.handle(100, status({ answers: ["0"] }));
  assert.equal(mode(mirror.view(100)), "unknown");
  mirror.handle(100, status({ answers: [String(3 * PROBES_KEPT - 1)] }));
  assert.equal(mode(mirror.view(100)), "local");
});

test("what was forgotten does not come back by an answer that was under way", () => {
  const mirror = answered({ mode: "remote" });
  mirror.probed(100, "b");
  mirror.forget(200);
  mirror.handle(210, status({ mode: "remote", answers: ["b"] }));
  assert.deepEqual(mirror.view(260), { kind: "unknown", forMs: 60 });
  mirror.probed(300, "c");
  mirror.handle(310, status({ mode: "local", answers: ["c"] }));
  assert.equal(mode(mirror.view(310)), "local");
});

test("unknown counts on from when it began, however often it is forgotten", () => {
  const mirror = answered();
  mirror.forget(900);
  mirror.forget(1000);
  assert.deepEqual(mirror.view(1500), { kind: "unknown", forMs: 1000 });
});

test("the gate may ask for a shorter time than 500 ms, and for no longer one", () => {
  assert.equal(mode(answered({ status_age_ms: 300 }).view(301)), "unknown");
  assert.equal(mode(answered({ status_age_ms: 60_000 }).view(500)), "local");
  assert.equal(mode(answered({ status_age_ms: 60_000 }).view(501)), "unknown");
});

test("what this page cannot read does not count", () => {
  const bad: object[] = [{ mode: "yours" }, { epoch: 2 ** 60 }, { epoch: -1 }, { status_age_ms: "500" }, { alarms: null }, { set: null }, { since_ms: Number.NaN }];
  for (const over of bad) assert.equal(mode(answered(over as Partial<ControlInfo>).view(0)), "unknown", JSON.stringify(over));
});

test("how long a state has lasted goes on while it is looked at", () => {
  const view = answered({ since_ms: 5000 }).view(250);
  assert.equal(view.kind === "known" ? view.elapsedMs : 0, 5250);
});

test("nonces are sixteen hexadecimal digits, and never the same", () => {
  const nonces = Array.from({ length: 1000 }, randomNonce);
  assert.ok(nonces.every((nonce) => /^[0-9a-f]{16}$/.test(nonce)));
  assert.equal(new Set(nonces).size, 1000);
});

test("a machine that slept is found by its wall clock; one whose clock is set back did not sleep", () => {
  const watch = new SleepWatch();
  assert.ok(!watch.slept(0, 1_000_000));
  assert.ok(!watch.slept(50, 1_000_051));
  assert.ok(!watch.slept(100, 1_000_101));
  // The monotonic clock stood still for a minute.
  assert.ok(watch.slept(150, 1_060_151));
  assert.ok(!watch.slept(200, 1_060_201));
  assert.ok(!watch.slept(250, 900_000));
});
