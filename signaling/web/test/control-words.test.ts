import assert from "node:assert/strict";
import test from "node:test";
import { faceOf, linkRows, minutes, setWords, worst, type Around, pathWords } from "../src/control/words.ts";
import { noticeWords } from "../src/control/notices.ts";
import { setLanguage } from "../src/strings.ts";
import { CONTROL_MODES, type ControlInfo, type ParticipantInfo } from "../src/types.ts";

const person = (participant: string, name: string, role: ParticipantInfo["role"] = "expert"): ParticipantInfo => ({ participant, name, role, realm: "r", since: 0 });
const ME = person("me", "Keller");
const MOREAU = person("m", "Moreau");
const AROUND: Around = { self: ME, people: [ME, MOREAU, person("s", "Sato", "local")], silence: "unknownSilent" };
const REMOTE: ControlInfo = {
  mode: "remote",
  epoch: 1,
  participant: "m",
  expert: "c0ffee0123456789",
  set: { camera: true, instruments: true, energy: false },
  since_ms: 0,
  stopped: [],
  alarms: [],
  colours: ["green", "amber", "green", "green"],
  figures: [61_000, 84_000, 3_900, 300, 142_000],
  answers: [],
  status_age_ms: 500,
};
const face = (over: Partial<ControlInfo>, around: Partial<Around> = {}) =>
  faceOf({ kind: "known", control: { ...REMOTE, ...over }, ageMs: 0, elapsedMs: 125_000 }, { ...AROUND, ...around });

test("who operates is the first thing that is said, in every state and both languages", () => {
  const first = { hold: "HOLD", local: "LOCAL", offered: "LOCAL", ready: "LOCAL", granting: "LOCAL", remote: "REMOTE", estop: "EMERGENCY STOP", closed: "CLOSED" };
  for (const mode of CONTROL_MODES) assert.ok(face({ mode }).title.startsWith(first[mode]), mode);
  setLanguage("ja");
  assert.equal(new Set(CONTROL_MODES.map((mode) => face({ mode }).title)).size, CONTROL_MODES.length);
  setLanguage("en");
});

test("two paths are said, the loss of one is said, and one alone is nothing to say", () => {
  assert.deepEqual([pathWords(REMOTE), pathWords({ ...REMOTE, paths: "single" })], ["", ""]);
  assert.ok(pathWords({ ...REMOTE, paths: "protected" }).endsWith("protected"));
  assert.ok(pathWords({ ...REMOTE, paths: "unprotected" }).endsWith("unprotected"));
  setLanguage("ja");
  assert.ok(pathWords({ ...REMOTE, paths: "unprotected" }).includes("保護なし"));
  assert.deepEqual(face({ alarms: ["one of two paths lost", "second gate at the device"] }).alarms, ["二経路の一方が切断", "装置に二つ目のゲートが接続を要求"]);
  setLanguage("en");
});

test("a second gate is nobody's news", () => {
  const notice = { what: "second_gate", person: "second gate", reason: "" };
  assert.ok(noticeWords(notice as Parameters<typeof noticeWords>[0]).startsWith("A second gate is in this session"));
});

test("unknown says nothing of what was known, but how long and why", () => {
  const unknown = faceOf({ kind: "unknown", forMs: 3200 }, AROUND);
  assert.deepEqual([unknown.title, unknown.detail], ["CONTROL UNKNOWN — HANDS OFF", "for 3.2 s · the gate does not answer"]);
  assert.deepEqual([unknown.motion, unknown.link, unknown.alarms], ["none", null, []]);
});

test("a browser is never told that it has control: a station is, and only where the participant is the same", () => {
  assert.equal(face({ participant: "me" }).title, "REMOTE: your station has control");
  assert.equal(face({ participant: "m" }).title, "REMOTE: Moreau operates");
  // The same name proves nothing, and neither does a participant that is no expert.
  const namesake = [...AROUND.people, person("k2", "Keller")];
  assert.equal(face({ participant: "k2" }, { people: namesake }).title, "REMOTE: a station named Keller has control");
  const local = person("me", "Keller", "local");
  assert.equal(face({ participant: "me" }, { self: local, people: [local] }).title, "REMOTE: Keller operates");
  assert.equal(face({ participant: null }).title, "REMOTE: expert c0ffee01 operates");
  assert.equal(face({ participant: null, expert: null }).title, "REMOTE: an expert who is not known here operates");
});

test("stopped motion comes first, its causes before the re-clutch that every stop needs", () => {
  const stopped = face({ stopped: ["waiting for the re-clutch", "presence released"] });
  assert.deepEqual([stopped.motion, stopped.detail], ["stopped", "MOTION STOPPED: presence released, waiting for the re-clutch"]);
  assert.equal(stopped.also, "camera, instruments · for 02:05");
  assert.deepEqual([face({}).motion, face({}).detail], ["runs", "motion enabled · camera, instruments · for 02:05"]);
  assert.equal(face({ mode: "hold", stopped: ["presence released"] }).motion, "none");
});

test("red outweighs unmeasured, and unmeasured outweighs amber", () => {
  assert.equal(worst(["green", "red", "unmeasured", "amber"]), "red");
  assert.equal(worst(["green", "unmeasured", "amber", "green"]), "unmeasured");
  assert.equal(worst(["green", "amber", "green", "green"]), "amber");
  assert.equal(worst([]), "unmeasured");
  assert.deepEqual([face({}).link, face({ mode: "local" }).link], ["amber", null]);
});

test("figures have their units, and what is unmeasured has none", () => {
  const [loop, jitter, loss, frame] = linkRows(REMOTE);
  assert.deepEqual([loop?.value, jitter?.value, loss?.value, frame?.value], ["84 ms", "3.9 ms", "0.03 %", "142 ms"]);
  assert.equal(linkRows({ ...REMOTE, figures: [null, null, null, null, null] })[0]?.value, "–");
  assert.equal(linkRows({ ...REMOTE, colours: [] })[3]?.colour, "unmeasured");
});

test("sets and times are words", () => {
  assert.equal(setWords({ camera: false, instruments: true, energy: true }), "instruments, energy");
  assert.equal(setWords({ camera: false, instruments: false, energy: false }), "nothing");
  assert.deepEqual([0, 59_999, 125_000, 3_725_000].map(minutes), ["00:00", "00:59", "02:05", "1:02:05"]);
});
