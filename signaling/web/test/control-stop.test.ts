import assert from "node:assert/strict";
import test from "node:test";
import { Notices, participantOf, shortPerson } from "../src/control/notices.ts";
import { bytesLeft, bytesOf, cleanedReason, cutReason } from "../src/control/reason.ts";
import { StopModel } from "../src/control/stop.ts";
import { keyAction, isStopKey } from "../src/keys.ts";
import { CONFIRM_MS, NOTICE_MS, NOTICES_KEPT, STOP_ARMED_MS, STOP_EVERY_MS, STOP_HOLD_MS } from "../src/limits.ts";

function model(leaves = true): { stop: StopModel; sent: string[] } {
  const sent: string[] = [];
  const stop = new StopModel((reason) => {
    if (leaves) sent.push(reason);
    return leaves;
  });
  return { stop, sent };
}

/** Presses at `at` and holds for `ms`, with ticks of 50 ms. */
function hold(stop: StopModel, at: number, ms: number): void {
  stop.press(at);
  for (let now = at; now <= at + ms; now += 50) stop.handleTick(now, "why");
  stop.release(at + ms);
}

test("held for its time, STOP is sent once, however long it is held on", () => {
  const { stop, sent } = model();
  hold(stop, 1000, STOP_HOLD_MS + 3000);
  assert.deepEqual(sent, ["why"]);
});

test("let go too early, nothing is sent, and that is said", () => {
  const { stop, sent } = model();
  hold(stop, 1000, STOP_HOLD_MS - 50);
  assert.deepEqual([sent, stop.outcome().kind], [[], "short"]);
  stop.handleTick(20_000, "");
  assert.deepEqual([sent, stop.outcome().kind], [[], "none"]);
});

test("after one that left the next has to wait ten seconds; one that did not leave may be tried at once", () => {
  const { stop, sent } = model();
  hold(stop, 0, STOP_HOLD_MS);
  hold(stop, 2000, 2 * STOP_HOLD_MS);
  assert.equal(sent.length, 1);
  assert.equal(stop.phase(2000), "waiting");
  assert.equal(stop.waitMs(STOP_HOLD_MS + 4000), STOP_EVERY_MS - 4000);
  hold(stop, STOP_HOLD_MS + STOP_EVERY_MS, STOP_HOLD_MS);
  assert.equal(sent.length, 2);
  const offline = model(false);
  hold(offline.stop, 0, STOP_HOLD_MS);
  assert.deepEqual([offline.stop.outcome().kind, offline.stop.waitMs(STOP_HOLD_MS)], ["offline", 0]);
});

test("who cannot hold presses twice; once is not enough, and twice too slowly neither", () => {
  const { stop, sent } = model();
  stop.click(0, "");
  assert.deepEqual([sent, stop.phase(1)], [[], "armed"]);
  stop.click(STOP_ARMED_MS + 1, "");
  assert.deepEqual(sent, []);
  stop.click(STOP_ARMED_MS + 800, "two");
  assert.deepEqual(sent, ["two"]);
});

test("a STOP that nobody confirms is called so, until everybody was told or it was refused", () => {
  const { stop } = model();
  stop.handleNotice(0);
  assert.equal(stop.outcome().kind, "none");
  hold(stop, 0, STOP_HOLD_MS);
  assert.equal(stop.outcome().kind, "sent");
  stop.handleTick(STOP_HOLD_MS + CONFIRM_MS + 1, "");
  assert.equal(stop.outcome().kind, "silent");
  stop.handleNotice(5000);
  assert.equal(stop.outcome().kind, "told");
  stop.handleRefused(5001, "one in 10 s");
  assert.deepEqual(stop.outcome(), { kind: "refused", detail: "one in 10 s" });
});

test("reasons are counted in bytes, and cut between characters", () => {
  assert.equal(bytesOf("止血"), 6);
  assert.equal(bytesLeft("a".repeat(128)), 0);
  assert.equal(bytesLeft("止".repeat(43)), -1);
  assert.equal(bytesOf(cutReason("止".repeat(43))), 126);
  assert.equal(cutReason("😀".repeat(40)), "😀".repeat(32));
  assert.equal(cleanedReason("  two\nlines\u0007\u2028here "), "two lines here");
});

test("a STOP stays in the banner before a request that came after it, for its time, and the list is bounded", () => {
  const notices = new Notices();
  notices.handle(0, 0, { what: "estop", person: "A", reason: "" });
  notices.handle(10, 0, { what: "request", person: "B", reason: "" });
  assert.equal(notices.current(20)?.person, "A");
  assert.equal(notices.current(NOTICE_MS + 5)?.person, "B");
  assert.equal(notices.current(NOTICE_MS + 11), null);
  for (let i = 0; i < 2 * NOTICES_KEPT; i += 1) notices.handle(i, 0, { what: "request", person: String(i), reason: "" });
  assert.deepEqual([notices.all().length, notices.all()[0]?.person], [NOTICES_KEPT, String(2 * NOTICES_KEPT - 1)]);
});

test("a person is called by name alone where nobody else has it", () => {
  const person = (participant: string, name: string) => ({ participant, name, role: "expert" as const, realm: "r", since: 0 });
  const people = [person("p1", "Keller"), person("p2", "Sato"), person("p3", "Sato")];
  assert.equal(shortPerson("Keller (p1)", people), "Keller");
  assert.equal(shortPerson("Sato (p2)", people), "Sato (p2)");
  assert.equal(shortPerson("Keller (p9)", people), "Keller (p9)");
  assert.equal(shortPerson("Moreau (p1)", people), "Moreau (p1)");
  assert.deepEqual(["A (b) (p1)", "A", "A (b c)"].map(participantOf), ["p1", null, null]);
});

test("Shift + S is STOP and no longer the screen; S alone is the screen", () => {
  const key = (key: string, shiftKey: boolean, over: object = {}) => ({ key, shiftKey, ctrlKey: false, metaKey: false, altKey: false, ...over });
  assert.ok(isStopKey(key("S", true)));
  assert.equal(keyAction(key("S", true)), null);
  assert.ok(!isStopKey(key("s", false)));
  assert.deepEqual(keyAction(key("s", false)), { kind: "screen" });
  // Caps Lock makes no STOP, and no other combination does.
  assert.ok(!isStopKey(key("S", false)));
  assert.ok(!isStopKey(key("S", true, { ctrlKey: true })));
});
