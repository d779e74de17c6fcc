// One stay in a session: token, event socket, feeds, and the view that shows them.

import { CaptureMaps } from "./age.ts";
import { EventSocket, type Link } from "./events.ts";
import { Feed } from "./feed.ts";
import { TICK_MS } from "./limits.ts";
import { TokenKeeper, type Invitation } from "./token.ts";
import type { FeedInfo, ParticipantInfo, ServerEvent, SessionInfo, TokenGrant } from "./types.ts";
import { View } from "./view.ts";

export class Session {
  readonly view: View;
  readonly #token: TokenKeeper;
  readonly #events: EventSocket;
  readonly #captures = new CaptureMaps();
  readonly #feeds = new Map<string, Feed>();
  readonly #people = new Map<string, ParticipantInfo>();
  readonly #ended = new AbortController();
  #participant: string;

  /** `onEnd` is called once: with an empty text where the person left, else with what the relay said. */
  constructor(
    invitation: Invitation,
    grant: TokenGrant,
    private readonly onEnd: (fault: string) => void,
  ) {
    this.#participant = grant.participant;
    this.#token = new TokenKeeper(invitation, grant);
    this.view = new View(() => this.#end(""));
    this.view.renderSelf(grant);
    this.#events = new EventSocket(this.#token, {
      handleEvent: (event) => this.#handleEvent(event, performance.now()),
      handleLink: (link) => this.#handleLink(link, performance.now()),
      handleRefused: (detail) => this.#end(detail),
    });
    this.#renderFeeds();
  }

  start(): void {
    const signal = this.#ended.signal;
    const timer = setInterval(() => this.#handleTick(performance.now()), TICK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    addEventListener("pagehide", () => this.#close(), { signal });
    addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    document.addEventListener("visibilitychange", () => this.#handleVisibility(), { signal });
    this.#events.start(performance.now());
    this.#handleVisibility();
  }

  #handleTick(nowMs: number): void {
    this.#events.handleTick(nowMs);
    let anyMoves = false;
    for (const feed of this.#feeds.values()) {
      feed.handleTick(nowMs);
      anyMoves ||= feed.state() === "live";
    }
    this.view.renderLink(this.#events.link(), nowMs, anyMoves);
  }

  #handleLink(link: Link, nowMs: number): void {
    if (link.kind === "open") this.view.renderGoodbye("");
    // Written at once, not at the next tick: tiles first, so that the banner finds their new states.
    this.#handleStates(nowMs, link);
  }

  #handleStates(nowMs: number, link: Link): void {
    for (const feed of this.#feeds.values()) feed.handleTick(nowMs);
    this.view.renderLink(link, nowMs, false);
  }

  #handleEvent(event: ServerEvent, nowMs: number): void {
    switch (event.type) {
      case "welcome":
        return this.#handleWelcome(event.participant, event.session, nowMs);
      case "capture":
        return this.#captures.handlePoint(nowMs, event);
      case "feed":
        return this.#handleFeed(event.feed, nowMs);
      case "feed_removed":
        return this.#removeFeed(event.feed);
      case "leg":
        for (const feed of this.#feeds.values()) feed.handleLeg(nowMs, event.leg, event.state);
        return;
      case "participant_joined":
        this.#people.set(event.participant.participant, event.participant);
        return this.#renderPeople();
      case "participant_left":
        this.#people.delete(event.participant);
        return this.#renderPeople();
      case "goodbye":
        return this.view.renderGoodbye(event.reason);
      case "clock_reply":
        return;
    }
  }

  #handleWelcome(participant: string, session: SessionInfo, nowMs: number): void {
    // Another participant's legs are not ours any more: the relay sends their capture points to nobody.
    const renamed = participant !== this.#participant;
    this.#participant = participant;
    this.view.renderTitle(session.title);
    this.view.renderSelf(this.#token.grant);
    this.#people.clear();
    for (const person of session.participants) this.#people.set(person.participant, person);
    this.#renderPeople();
    const present = new Set(session.feeds.map((feed) => feed.descriptor.feed));
    for (const name of [...this.#feeds.keys()]) if (!present.has(name)) this.#removeFeed(name);
    for (const feed of this.#feeds.values()) {
      if (renamed) feed.restart(nowMs);
      else feed.handleLinkOpen(nowMs);
    }
    for (const feed of session.feeds) this.#handleFeed(feed, nowMs);
  }

  #handleFeed(info: FeedInfo, nowMs: number): void {
    if (info.descriptor.kind !== "video") return;
    const name = info.descriptor.feed;
    const known = this.#feeds.get(name);
    if (known !== undefined) {
      known.handleInfo(nowMs, info);
    } else {
      const around = {
        token: this.#token,
        captures: this.#captures,
        link: () => this.#events.link(),
        clock: (at: number) => this.#events.clock(at),
      };
      this.#feeds.set(name, new Feed(around, info, () => this.#promote(name)));
    }
    this.#renderFeeds();
  }

  #removeFeed(name: string): void {
    this.#feeds.get(name)?.close();
    this.#feeds.delete(name);
    this.#renderFeeds();
  }

  #promote(name: string): void {
    this.view.promote(name);
    this.#renderFeeds();
  }

  #handleKey(event: KeyboardEvent): void {
    const feed = this.view.handleKey(event);
    if (feed !== null) this.#promote(feed);
  }

  #handleVisibility(): void {
    if (document.hidden) return;
    for (const feed of this.#feeds.values()) feed.handleResume(performance.now());
    // A wall display must not go dark in the middle of an operation. Refused on battery or by policy: no harm.
    void navigator.wakeLock?.request("screen").catch(() => undefined);
  }

  #renderFeeds(): void {
    this.view.renderFeeds([...this.#feeds.values()]);
  }

  #renderPeople(): void {
    this.view.renderPeople([...this.#people.values()], this.#participant);
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
    for (const feed of this.#feeds.values()) feed.close();
    this.#feeds.clear();
  }
}
