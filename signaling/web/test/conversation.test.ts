import assert from "node:assert/strict";
import test from "node:test";
import { Chat, CHAT_KEPT, cleaned, lengthOf } from "../src/chat.ts";
import { deviceFault } from "../src/devices.ts";
import { keyAction } from "../src/keys.ts";
import { Voices, VOICE_SLOTS } from "../src/slots.ts";
import { levelOf } from "../src/sound.ts";
import { Talk } from "../src/talk.ts";

const message = (id: number, participant = "other") => ({ id, participant, name: participant, text: `no ${id}`, at: id });

test("a microphone is mute until it is held or latched, and mute again with each connection", () => {
  const talk = new Talk();
  talk.press("key");
  talk.toggleLatch();
  assert.ok(!talk.isOpen(), "without a microphone nothing is open");
  talk.handleConnected(true);
  assert.ok(!talk.isOpen());
  talk.press("key");
  assert.ok(talk.isOpen());
  talk.release("key");
  assert.ok(!talk.isOpen());
  talk.toggleLatch();
  assert.ok(talk.isOpen());
  talk.handleConnected(false);
  talk.handleConnected(true);
  assert.ok(!talk.isOpen());
});

test("letting go of one of two holders keeps the microphone open, losing the keyboard closes it", () => {
  const talk = new Talk();
  talk.handleConnected(true);
  talk.press("key");
  talk.press("button");
  talk.release("button");
  assert.ok(talk.isOpen());
  talk.releaseAll();
  assert.ok(!talk.isOpen());
  talk.toggleLatch();
  talk.releaseAll();
  assert.ok(talk.isOpen(), "a latch is no held key");
});

test("what was written before one came is read, what others write later is not, one's own always is", () => {
  const chat = new Chat();
  chat.handleWelcome([message(1), message(2)]);
  assert.equal(chat.unread("me"), 0);
  assert.ok(chat.handleMessage(message(3)));
  assert.ok(chat.handleMessage(message(4, "me")));
  assert.ok(!chat.handleMessage(message(3)), "the same message twice");
  assert.equal(chat.unread("me"), 1);
  chat.handleRead();
  assert.equal(chat.unread("me"), 0);
});

test("after a loss the relay's list counts, and what came meanwhile is unread", () => {
  const chat = new Chat();
  chat.handleWelcome([message(1)]);
  chat.handleWelcome([message(1), message(2), message(3)]);
  assert.equal(chat.unread("me"), 2);
  chat.handleWelcome([]);
  chat.handleMessage(message(1));
  assert.equal(chat.unread("me"), 1, "a new session of the relay counts from 1 again");
});

test("the number of messages kept is bounded", () => {
  const chat = new Chat();
  for (let i = 1; i <= CHAT_KEPT + 5; i += 1) chat.handleMessage(message(i));
  assert.equal(chat.messages().length, CHAT_KEPT);
  assert.equal(chat.messages()[0]?.id, 6);
});

test("a message keeps its line breaks, loses other control characters, and is at most 2,000 characters", () => {
  assert.equal(cleaned("  a\r\nb\u0007\tc \n"), "a\nb c");
  assert.equal(cleaned(" \n "), null);
  assert.equal(lengthOf("胃𠮟"), 2);
  assert.equal(cleaned("𠮟".repeat(2000))?.length, 4000);
  assert.equal(cleaned("𠮟".repeat(2001)), null);
});

test("voices are known by m-line, only so many, and speakers by who publishes", () => {
  const voices = new Voices();
  voices.handleSlots([{ mid: "0", feed: "voice-a" }, { mid: "1", feed: null }]);
  assert.deepEqual([voices.feedOf("0"), voices.feedOf("1"), voices.feedOf("9")], ["voice-a", null, null]);
  assert.deepEqual(voices.heard(), ["voice-a"]);
  voices.handleSpeaking(["voice-b", "voice-a", "voice-b2", "gone"]);
  const publishers: Record<string, string> = { "voice-a": "A", "voice-b": "B", "voice-b2": "B" };
  assert.deepEqual(voices.speakers((feed) => publishers[feed] ?? null), ["B", "A"]);
  voices.reset();
  assert.deepEqual([voices.heard(), voices.speakers((feed) => feed)], [[], []]);
  voices.handleSlots(Array.from({ length: 99 }, (_, i) => ({ mid: String(i), feed: `f${i}` })));
  assert.equal(voices.heard().length, VOICE_SLOTS);
});

test("keys ask for what the help says, and not with a modifier", () => {
  const key = (key: string, over: object = {}) => keyAction({ key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...over });
  assert.deepEqual(key("3"), { kind: "promote", index: 2 });
  assert.deepEqual(key("L"), { kind: "layout" });
  assert.deepEqual(key("?"), { kind: "help" });
  assert.equal(key("0"), null);
  assert.equal(key("c", { ctrlKey: true }), null);
});

test("each way that a device can fail has words of its own", () => {
  const names = ["NotAllowedError", "NotFoundError", "NotReadableError", "InsecureContext", "?"];
  assert.deepEqual(names.map(deviceFault), ["denied", "missing", "busy", "insecure", "failed"]);
});

test("the level is nothing for silence and full for full scale", () => {
  assert.equal(levelOf([0, 0, 0]), 0);
  assert.equal(levelOf([1, -1, 1, -1]), 1);
  assert.ok(Math.abs(levelOf([0.001, -0.001]) - 0) < 1e-6);
  assert.equal(levelOf([]), 0);
});
