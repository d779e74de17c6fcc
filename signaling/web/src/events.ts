// The event WebSocket: hello, clock exchange, answer watchdog, and coming back after a loss.

import { ClockFilter, clientClockUs, type Offset } from "./clock.ts";
import { AnswerWatchdog } from "./freeze.ts";
import { CLOCK_EVERY_MS, SOCKET_RACERS, SOCKET_RACE_MS, SOCKET_TIMEOUT_MS } from "./limits.ts";
import { reached } from "./reach.ts";
import { Backoff } from "./reconnect.ts";
import type { TokenKeeper } from "./token.ts";
import type { ClientEvent, ServerEvent } from "./types.ts";

/** How the relay can be reached. `lost`: `nextTryMs` is null while an attempt is under way. */
export type Link =
  | { kind: "joining" }
  | { kind: "open" }
  | { kind: "silent"; quietMs: number }
  | { kind: "lost"; sinceMs: number; nextTryMs: number | null };

export interface EventHandlers {
  handleEvent(event: ServerEvent): void;
  /** The way to the relay changed from one kind to another. */
  handleLink(link: Link): void;
  /** The relay takes this participant no more. */
  handleRefused(detail: string): void;
}

interface Opening {
  socket: WebSocket;
  watchdog: AnswerWatchdog;
  openedMs: number;
  askedMs: number;
  welcome: boolean;
  /** Signaling traces joins, and wants to hear of first pictures. */
  traced: boolean;
}

export class EventSocket {
  readonly #filter = new ClockFilter();
  readonly #backoff = new Backoff();
  /** The one that said hello. */
  #current: Opening | null = null;
  /** Handshakes under way; the first that ends becomes the current one, and the others are dropped. */
  #racers: Opening[] = [];
  #link: Link = { kind: "joining" };
  /** The last hello was not answered by a welcome: the token may be at fault. */
  #doubtful = false;
  #busy = false;
  #stopped = false;

  constructor(
    private readonly token: TokenKeeper,
    private readonly handlers: EventHandlers,
  ) {}

  link(): Link {
    return this.#link;
  }

  /** The relay's clock; null before the first answer. After a loss the last one known goes on for its 30 s. */
  clock(nowMs: number): Offset | null {
    return this.#filter.offset(nowMs);
  }

  start(nowMs: number): void {
    this.#open(nowMs);
  }

  stop(): void {
    this.#stopped = true;
    const opening = this.#current;
    this.#current = null;
    this.#dropRacers();
    opening?.socket.close(1000);
  }

  /** Returns whether there is a connection that takes it. */
  send(event: ClientEvent): boolean {
    if (this.#current?.welcome !== true || this.#link.kind === "lost") return false;
    return send(this.#current.socket, event);
  }

  /** A leg's first picture is on the screen. The message is the moment: where it cannot go now it is not sent later. */
  tellShown(leg: string): void {
    if (this.#current?.traced === true) this.send({ type: "shown", leg });
  }

  /** Something else reached the relay, or the system has a network again: tries at once. */
  handleReach(nowMs: number): void {
    if (this.#stopped || this.#link.kind !== "lost" || this.#current !== null || this.#busy) return;
    this.#backoff.handleReach(nowMs);
    const newest = this.#racers[this.#racers.length - 1];
    if (newest !== undefined && nowMs - newest.openedMs > SOCKET_RACE_MS / 4) this.#race(nowMs);
  }

  /** To be called every tick. */
  handleTick(nowMs: number): void {
    if (this.#stopped) return;
    const opening = this.#current;
    if (opening === null) return this.#racers.length > 0 ? this.#watchRace(nowMs) : this.#retryIfDue(nowMs);
    if (!opening.welcome) {
      if (nowMs - opening.openedMs > SOCKET_TIMEOUT_MS) this.#handleLoss(opening, nowMs);
      return;
    }
    if (nowMs - opening.askedMs >= CLOCK_EVERY_MS) this.#ask(opening, nowMs);
    const answer = opening.watchdog.check(nowMs);
    if (answer === "giveUp") this.#handleLoss(opening, nowMs);
    else if (answer === "silent") this.#setLink({ kind: "silent", quietMs: opening.watchdog.quietMs(nowMs) });
    else this.#setLink({ kind: "open" });
  }

  /** Those that hang too long are dropped; as long as all hang, another one is sent after them now and then. */
  #watchRace(nowMs: number): void {
    for (const racer of [...this.#racers]) if (nowMs - racer.openedMs > SOCKET_TIMEOUT_MS) this.#handleLoss(racer, nowMs);
    const newest = this.#racers[this.#racers.length - 1];
    if (newest !== undefined && nowMs - newest.openedMs > SOCKET_RACE_MS) this.#race(nowMs);
  }

  #race(nowMs: number): void {
    if (this.#racers.length < SOCKET_RACERS) this.#open(nowMs);
  }

  #open(nowMs: number): void {
    const url = new URL(`/v1/sessions/${encodeURIComponent(this.token.grant.session)}/events`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    url.search = "";
    const socket = new WebSocket(url, "trocar.v1");
    const opening: Opening = {
      socket,
      watchdog: new AnswerWatchdog(nowMs),
      openedMs: nowMs,
      askedMs: -Infinity,
      welcome: false,
      traced: false,
    };
    this.#racers.push(opening);
    socket.onopen = () => this.#handleOpen(opening);
    socket.onmessage = (message) => this.#handleMessage(opening, message.data);
    socket.onerror = () => this.#handleLoss(opening, performance.now());
    socket.onclose = () => this.#handleLoss(opening, performance.now());
  }

  #handleOpen(opening: Opening): void {
    this.#racers = this.#racers.filter((racer) => racer !== opening);
    this.#dropRacers();
    this.#current = opening;
    opening.openedMs = performance.now();
    send(opening.socket, { type: "hello", token: this.token.bearer() });
    reached();
  }

  #dropRacers(): void {
    for (const racer of this.#racers) silence(racer.socket);
    this.#racers = [];
  }

  #handleMessage(opening: Opening, data: unknown): void {
    if (this.#current !== opening) return;
    const nowMs = performance.now();
    opening.watchdog.handleMessage(nowMs);
    const event = parse(data);
    if (event === null) return;
    if (event.type === "clock_reply") {
      this.#filter.handleExchange(nowMs, { t0: event.t0, t1: event.t1, t2: event.t2, t3: clientClockUs(nowMs) });
      return;
    }
    if (event.type === "welcome") {
      opening.welcome = true;
      opening.traced = event.traced === true;
      // This may be another machine than the last time, so nothing learnt about its clock holds.
      this.#filter.reset();
      this.#backoff.handleSuccess();
      this.#doubtful = false;
      this.#setLink({ kind: "open" });
    }
    this.handlers.handleEvent(event);
    if (event.type === "welcome") this.#ask(opening, nowMs);
  }

  #ask(opening: Opening, nowMs: number): void {
    opening.askedMs = nowMs;
    opening.watchdog.handleQuestion(nowMs);
    // The clock is read again: what was done since the tick began must not count as travel.
    send(opening.socket, { type: "clock", t0: clientClockUs(performance.now()) });
  }

  #handleLoss(opening: Opening, nowMs: number): void {
    const wasCurrent = this.#current === opening;
    if (!wasCurrent && !this.#racers.includes(opening)) return;
    silence(opening.socket);
    if (wasCurrent) this.#current = null;
    this.#racers = this.#racers.filter((racer) => racer !== opening);
    if (this.#racers.length > 0) return;
    // A handshake that came to nothing says nothing about the token; a hello without a welcome does.
    this.#doubtful = wasCurrent && !opening.welcome;
    this.#backoff.handleFailure(nowMs, this.#doubtful ? "passing" : "unreachable");
    this.#setLost(nowMs, this.#backoff.nextMs());
  }

  #setLost(nowMs: number, nextTryMs: number | null): void {
    const before = this.#link;
    // Lost since the relay was heard last, not since it was given up.
    const sinceMs = before.kind === "lost" ? before.sinceMs : before.kind === "silent" ? nowMs - before.quietMs : nowMs;
    this.#setLink({ kind: "lost", sinceMs, nextTryMs });
  }

  #retryIfDue(nowMs: number): void {
    if (this.#link.kind !== "lost" || this.#busy || !this.#backoff.isDue(nowMs)) return;
    this.#setLost(nowMs, null);
    if (!this.#doubtful) return this.#open(nowMs);
    this.#busy = true;
    void this.#renewAndOpen().finally(() => (this.#busy = false));
  }

  async #renewAndOpen(): Promise<void> {
    const renewal = await this.token.renew();
    if (this.#stopped) return;
    if (renewal.kind === "refused") return this.handlers.handleRefused(renewal.detail);
    const nowMs = performance.now();
    if (renewal.kind === "ok") return this.#open(nowMs);
    this.#backoff.handleFailure(nowMs, "unreachable");
    this.#setLost(nowMs, this.#backoff.nextMs());
  }

  #setLink(link: Link): void {
    const changed = link.kind !== this.#link.kind;
    this.#link = link;
    if (changed && !this.#stopped) this.handlers.handleLink(link);
  }
}

function silence(socket: WebSocket): void {
  socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
  socket.close();
}

function send(socket: WebSocket, event: ClientEvent): boolean {
  if (socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(event));
  return true;
}

/** What cannot be read is left out: a newer relay may say more than this page understands. */
function parse(data: unknown): ServerEvent | null {
  try {
    const event: unknown = JSON.parse(String(data));
    return typeof event === "object" && event !== null && "type" in event ? (event as ServerEvent) : null;
  } catch {
    return null;
  }
}
