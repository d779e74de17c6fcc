import assert from "node:assert/strict";
import test from "node:test";
import { EventSocket } from "../src/events.ts";
import type { TokenKeeper } from "../src/token.ts";

/** A connection that the test answers. */
class FakeSocket {
  static readonly OPEN = 1;
  static last: FakeSocket;
  readyState = FakeSocket.OPEN;
  readonly sent: { type: string; leg?: string }[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;

  constructor() {
    FakeSocket.last = this;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.readyState = 3;
  }

  shown(): (string | undefined)[] {
    return this.sent.filter((event) => event.type === "shown").map((event) => event.leg);
  }

  welcome(more: object): void {
    this.onopen?.();
    this.onmessage?.({ data: JSON.stringify({ type: "welcome", participant: "p", now: 0, session: {}, ...more }) });
  }
}

function opened(): EventSocket {
  Object.assign(globalThis, { WebSocket: FakeSocket, location: { href: "https://relay.example/" } });
  const token = { grant: { session: "s" }, bearer: () => "bearer" } as unknown as TokenKeeper;
  const ignore = () => undefined;
  const events = new EventSocket(token, { handleEvent: ignore, handleLink: ignore, handleRefused: ignore });
  events.start(0);
  return events;
}

test("a first picture is told to a relay that traces joins, and at once or never", () => {
  const events = opened();
  events.tellShown("before");
  FakeSocket.last.welcome({ traced: true });
  events.tellShown("one");
  assert.deepEqual(FakeSocket.last.shown(), ["one"]);
  FakeSocket.last.onclose?.();
  events.tellShown("lost");
  assert.deepEqual(FakeSocket.last.shown(), ["one"]);
});

test("a relay that does not ask for it, or knows nothing of it, is told nothing", () => {
  for (const more of [{}, { traced: false }]) {
    const events = opened();
    FakeSocket.last.welcome(more);
    events.tellShown("one");
    assert.deepEqual(FakeSocket.last.shown(), []);
    assert.ok(FakeSocket.last.sent.length > 0, "the control: the socket takes other messages");
  }
});
