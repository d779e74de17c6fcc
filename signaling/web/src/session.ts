// One stay in a session: token, event socket, feeds, conversation, and the view that shows them.

import { CaptureMaps } from "./age.ts";
import { Control } from "./control/control.ts";
import { Conversation } from "./conversation.ts";
import { DeviceDialog } from "./device-dialog.ts";
import { EventSocket, type Link } from "./events.ts";
import { Feed } from "./feed.ts";
import { IceServers } from "./ice.ts";
import { STATS_EVERY_MS, TICK_MS } from "./limits.ts";
import type { StartChoice } from "./memory.ts";
import type { Sending } from "./names.ts";
import { onReach, reached } from "./reach.ts";
import { sessionKeys } from "./session-keys.ts";
import { t } from "./strings.ts";
import { TokenKeeper, type Invitation } from "./token.ts";
import type { ChatMessage, FeedInfo, ParticipantInfo, ServerEvent, SessionInfo, TokenGrant } from "./types.ts";
import { View, type ViewActions } from "./view.ts";

export class Session {
  readonly view: View;
  readonly #token: TokenKeeper;
  readonly #events: EventSocket;
  readonly #ice: IceServers;
  readonly #captures = new CaptureMaps();
  readonly #feeds = new Map<string, Feed>();
  /** Everything that is announced, sound as well. */
  readonly #infos = new Map<string, FeedInfo>();
  readonly #people = new Map<string, ParticipantInfo>();
  readonly #ended = new AbortController();
  readonly #conversation: Conversation;
  readonly #control: Control;
  readonly #devices: DeviceDialog;
  #title = "";
  #participant: string;
  #statsMs = -Infinity;

  /** `onEnd` is called once: with an empty text where the person left, else with what the relay said. */
  constructor(
    invitation: Invitation,
    grant: TokenGrant,
    private readonly start_: StartChoice,
    private readonly onEnd: (fault: string) => void,
  ) {
    this.#participant = grant.participant;
    this.#token = new TokenKeeper(invitation, grant);
    this.#ice = new IceServers(this.#token);
    this.#conversation = new Conversation({
      token: this.#token,
      participant: () => this.#participant,
      iceServers: () => this.#ice.current(),
      devices: start_.devices,
      onBlocked: (blocked) => this.view.renderSound(blocked),
      onFault: (what, why) => this.view.toasts.show(t.publish.refused(what === "screen" ? t.publish.screen : t.devices[what], why)),
    });
    this.#control = new Control({
      grant,
      send: (event) => this.#events.send(event),
      link: () => this.#events.link(),
      self: () => this.#participant,
      people: () => [...this.#people.values()],
      toggleSide: () => this.view.toggleSide("control"),
    });
    this.view = new View(this.#actions(), this.#control);
    this.#devices = new DeviceDialog(start_, (kind) => {
      if (kind === "speaker") this.#conversation.player.setSpeaker(start_.devices.speaker);
      else void this.#conversation.publisher.handleChoice(kind);
    });
    this.view.element.append(this.#conversation.player.element, this.#devices.element);
    this.view.renderSelf(grant);
    this.#events = new EventSocket(this.#token, {
      handleEvent: (event) => this.#handleEvent(event, performance.now()),
      handleLink: (link) => this.#handleLink(link, performance.now()),
      handleRefused: (detail) => this.#end(detail),
    });
    this.#renderFeeds();
    this.#renderPeople();
  }

  start(): void {
    const signal = this.#ended.signal;
    const timer = setInterval(() => this.#handleTick(performance.now()), TICK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    addEventListener("pagehide", () => this.#close(), { signal });
    addEventListener("online", () => reached(), { signal });
    document.addEventListener("visibilitychange", () => this.#handleVisibility(), { signal });
    for (const name of ["pointerdown", "keydown"]) addEventListener(name, () => this.#unblock(), { signal, capture: true });
    onReach((nowMs) => this.#handleReach(nowMs), signal);
    sessionKeys({ view: this.view, publisher: this.#maySend() ? this.#conversation.publisher : null, promote: (feed) => this.#promote(feed), devices: () => this.#devices.toggle(), control: this.#control }, signal);
    this.#control.start(signal);
    void this.#ice.current();
    this.#events.start(performance.now());
    this.#handleVisibility();
    if (!this.#maySend()) return;
    if (this.start_.checked.microphone && this.start_.microphone) void this.#conversation.publisher.start("microphone");
    if (this.start_.checked.camera && this.start_.camera) void this.#conversation.publisher.start("camera");
  }

  #maySend(): boolean {
    return this.#token.grant.verbs.includes("publish");
  }

  #actions(): ViewActions {
    const { publisher, chat } = this.#conversation;
    const render = () => this.#renderSending();
    const also = (act: () => void) => () => {
      act();
      publisher.applyTalk();
      render();
    };
    return {
      send: !this.#maySend()
        ? null
        : {
            microphone: also(() => publisher.toggle("microphone")),
            press: also(() => publisher.talk.press("button")),
            release: also(() => publisher.talk.release("button")),
            latch: also(() => publisher.talk.toggleLatch()),
            camera: also(() => publisher.toggle("camera")),
            screen: also(() => publisher.toggle("screen")),
            devices: () => this.#devices.toggle(),
          },
      leave: () => this.#end(""),
      chat: (text) => this.#events.send({ type: "chat", text }),
      sideShown: (side) => {
        if (side === "chat") chat.handleRead();
        this.#statsMs = -Infinity;
        // The view is not there yet while it is being made.
        queueMicrotask(() => this.#renderChat());
      },
      languageChanged: () => this.#renderAll(),
      soundOn: () => this.#unblock(),
    };
  }

  #handleTick(nowMs: number): void {
    this.#events.handleTick(nowMs);
    this.#control.handleTick(nowMs);
    const link = this.#events.link();
    let anyMoves = false;
    for (const feed of this.#feeds.values()) {
      feed.handleTick(nowMs);
      anyMoves ||= feed.state() === "live";
    }
    if (link.kind === "open" || link.kind === "silent") this.#conversation.handleTick(nowMs);
    else this.#conversation.publisher.applyTalk();
    this.view.renderLink(link, nowMs, anyMoves);
    this.view.toasts.handleTick(nowMs);
    this.view.renderWindow();
    this.#renderSending();
    if (nowMs - this.#statsMs < STATS_EVERY_MS) return;
    this.#statsMs = nowMs;
    this.view.renderStatistics((feeds) => feeds.map((feed) => ({ feed: feed.key, title: feed.title(), history: feed.history })));
  }

  #handleReach(nowMs: number): void {
    this.#events.handleReach(nowMs);
    for (const feed of this.#feeds.values()) feed.handleReach(nowMs);
    this.#conversation.handleReach(nowMs);
  }

  #handleLink(link: Link, nowMs: number): void {
    if (link.kind === "open") this.view.renderGoodbye("");
    if (link.kind === "lost") {
      this.#conversation.handleLost();
      this.#renderSpeaking();
    }
    // Written at once, not at the next tick: tiles first, so that the banner finds their new states.
    for (const feed of this.#feeds.values()) feed.handleTick(nowMs);
    this.#control.handleLink(link, nowMs);
    this.view.renderLink(link, nowMs, false);
    this.#renderSending();
  }

  #handleEvent(event: ServerEvent, nowMs: number): void {
    switch (event.type) {
      case "welcome":
        return this.#handleWelcome(event.participant, event.session, event.chat ?? [], nowMs);
      case "capture":
        return this.#captures.handlePoint(nowMs, event);
      case "feed":
        return this.#handleFeed(event.feed, nowMs);
      case "feed_removed":
        return this.#removeFeed(event.feed);
      case "switched":
        for (const feed of this.#feeds.values()) feed.handleSwitched(event.leg, event.feed);
        return;
      case "leg":
        for (const feed of this.#feeds.values()) feed.handleLeg(nowMs, event.leg, event.state);
        return this.#conversation.handleLeg(nowMs, event.leg, event.state);
      case "publication":
        return this.#conversation.publisher.handlePublication(nowMs, event.publication, event.state);
      case "voices":
        return this.#conversation.handleVoices(event.leg, event.slots);
      case "speaking":
        this.#conversation.handleSpeaking(event.feeds);
        return this.#renderSpeaking();
      case "chat":
        return this.#handleChat(event.message);
      case "participant_joined":
        return this.#handlePerson(event.participant);
      case "participant_left":
        return this.#handleLeft(event.participant);
      case "refused":
        return event.what === "chat" ? this.view.renderRefused() : this.#control.handleEvent(event, nowMs);
      case "control":
      case "control_gone":
      case "control_notice":
        return this.#control.handleEvent(event, nowMs);
      case "goodbye":
        return this.view.renderGoodbye(event.reason);
      case "clock_reply":
        return;
    }
  }

  #handleWelcome(participant: string, session: SessionInfo, chat: readonly ChatMessage[], nowMs: number): void {
    // Another participant's legs are not ours any more: the relay sends their capture points to nobody.
    const renamed = participant !== this.#participant;
    this.#participant = participant;
    this.#title = session.title;
    this.view.renderTitle(session.title);
    this.view.renderSelf(this.#token.grant);
    this.#people.clear();
    for (const person of session.participants) this.#people.set(person.participant, person);
    const present = new Set(session.feeds.map((feed) => feed.descriptor.feed));
    for (const name of [...this.#infos.keys()]) if (!present.has(name)) this.#removeFeed(name);
    for (const feed of this.#feeds.values()) {
      if (renamed) feed.restart(nowMs);
      else feed.handleLinkOpen(nowMs);
    }
    for (const feed of session.feeds) this.#handleFeed(feed, nowMs);
    this.#conversation.handleWelcome(nowMs, renamed, chat);
    this.#renderPeople();
    this.#renderChat();
  }

  #handleFeed(info: FeedInfo, nowMs: number): void {
    const name = info.descriptor.feed;
    const isNew = !this.#infos.has(name);
    this.#infos.set(name, info);
    this.#conversation.handleFeeds([info]);
    if (isNew) this.#renderPeople();
    // One's own pictures are not sent back to oneself.
    if (info.descriptor.kind !== "video" || info.publisher === this.#participant) return;
    const known = this.#feedOf(name);
    // A picture that its device takes up as a new participant is still what it was. One of several views out of another hand
    // may be anything, and one of another source is another picture.
    const isOther = known !== undefined && !known.isOf(info) && (known.count() > 1 || known.source() !== info.descriptor.source);
    if (isOther) this.#dropView(name, nowMs);
    const feed = this.#feedOf(name) ?? [...this.#feeds.values()].find((feed) => feed.isOf(info));
    if (feed !== undefined) {
      feed.handleInfo(nowMs, info);
    } else {
      for (const other of this.#feeds.values()) other.handleOther(nowMs);
      const around = {
        token: this.#token,
        iceServers: () => this.#ice.current(),
        captures: this.#captures,
        shown: (leg: string) => this.#events.tellShown(leg),
        link: () => this.#events.link(),
        clock: (at: number) => this.#events.clock(at),
        nameOf: (participant: string) => this.#people.get(participant)?.name ?? "",
      };
      const { source } = info.descriptor;
      let key = source;
      for (let n = 2; this.#feeds.has(key); n += 1) key = `${source} ${n}`;
      const actions = { promote: (tile: string) => this.#promote(tile), instead: (other: string) => this.#showInstead(other) };
      this.#feeds.set(key, new Feed(around, key, info, actions));
    }
    this.#renderFeeds();
  }

  #feedOf(view: string): Feed | undefined {
    return [...this.#feeds.values()].find((feed) => feed.has(view));
  }

  #dropView(name: string, nowMs: number): void {
    const feed = this.#feedOf(name);
    if (feed === undefined || feed.handleGone(nowMs, name)) return;
    feed.close();
    this.#feeds.delete(feed.key);
  }

  #removeFeed(name: string): void {
    this.#infos.delete(name);
    this.#dropView(name, performance.now());
    this.#renderFeeds();
    this.#renderPeople();
  }

  #handlePerson(person: ParticipantInfo): void {
    const isNew = !this.#people.has(person.participant);
    this.#people.set(person.participant, person);
    this.#renderPeople();
    if (isNew && person.participant !== this.#participant) {
      const said = person.break_glass === undefined ? t.toast.joined(person.name) : t.emergency.joined(person.name);
      this.view.toasts.show(said);
    }
  }

  #handleLeft(participant: string): void {
    const person = this.#people.get(participant);
    this.#people.delete(participant);
    this.#renderPeople();
    if (person !== undefined) this.view.toasts.show(t.toast.left(person.name));
  }

  #handleChat(message: ChatMessage): void {
    const isNew = this.#conversation.chat.handleMessage(message);
    if (this.view.isShown("chat") && !document.hidden) this.#conversation.chat.handleRead();
    else if (isNew && message.participant !== this.#participant) this.view.toasts.show(`${message.name}: ${message.text}`);
    this.#renderChat();
  }

  #promote(key: string): void {
    this.view.promote(key);
  }

  /** That feed is to be seen where another cannot be: in its own tile, which shows the view of it that fits. */
  #showInstead(name: string): void {
    const feed = this.#feedOf(name);
    if (feed !== undefined) this.#promote(feed.key);
  }

  #unblock(): void {
    if (document.body.dataset["sound"] === "blocked") this.#conversation.player.unblock();
  }

  #handleVisibility(): void {
    if (document.hidden) return;
    for (const feed of this.#feeds.values()) feed.handleResume(performance.now());
    // A wall display must not go dark in the middle of an operation. Refused on battery or by policy: no harm.
    void navigator.wakeLock?.request("screen").catch(() => undefined);
  }

  #renderAll(): void {
    this.view.renderTitle(this.#title);
    this.view.renderSelf(this.#token.grant);
    this.#renderPeople();
    this.#renderChat();
    this.#statsMs = -Infinity;
  }

  #renderFeeds(): void {
    this.view.renderFeeds([...this.#feeds.values()]);
  }

  #renderPeople(): void {
    this.view.renderPeople({ people: [...this.#people.values()], self: this.#participant, feeds: [...this.#infos.values()] });
    this.#renderSpeaking();
  }

  #renderSpeaking(): void {
    this.view.renderSpeaking(this.#conversation.speakers((feed) => this.#infos.get(feed)?.publisher ?? null));
  }

  #renderChat(): void {
    this.view.renderChat(this.#conversation.chat, this.#participant);
  }

  #renderSending(): void {
    const { publisher } = this.#conversation;
    // The browser calls a connection connected for seconds after the path has died: without the relay nobody is told that
    // they are heard.
    const lost = this.#events.link().kind === "lost" || this.#events.link().kind === "silent";
    const state = (what: Sending) => (lost && publisher.state(what) === "sending" ? "again" : publisher.state(what));
    this.view.renderSending({
      microphone: state("microphone"),
      camera: state("camera"),
      screen: state("screen"),
      open: publisher.talk.isOpen(),
      latched: publisher.talk.isLatched(),
      self: publisher.track("camera"),
    });
  }

  #end(fault: string): void {
    if (this.#ended.signal.aborted) return;
    this.#close();
    this.onEnd(fault);
  }

  #close(): void {
    this.#ended.abort();
    this.#events.stop();
    this.#token.stop();
    this.#conversation.close();
    this.#devices.close();
    this.view.close();
    for (const feed of this.#feeds.values()) feed.close();
    this.#feeds.clear();
  }
}
