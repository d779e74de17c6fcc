// The event WebSocket: hello, clock exchange, answer watchdog, and coming back after a loss.

import { ClockFilter, clientClockUs, type Offset } from "./clock.ts";
import { AnswerWatchdog } from "./freeze.ts";
import { BACKOFF_FIRST_MS, BACKOFF_MAX_MS, CLOCK_EVERY_MS, SOCKET_TIMEOUT_MS } from "./limits.ts";
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
}

export class EventSocket {
  readonly #filter = new ClockFilter();
  #current: Opening | null = null;
  #link: Link = { kind: "joining" };
  #backoffMs = BACKOFF_FIRST_MS;
  /** The last attempt ended before the relay's welcome: the token may be at fault. */
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
    opening?.socket.close(1000);
  }

  /** To be called every tick. */
  handleTick(nowMs: number): void {
    if (this.#stopped) return;
    const opening = this.#current;
    if (opening === null) return this.#retryIfDue(nowMs);
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

  #open(nowMs: number): void {
    const url = new URL(`/v1/sessions/${encodeURIComponent(this.token.grant.session)}/events`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    const socket = new WebSocket(url, "trocar.v1");
    const opening: Opening = {
      socket,
      watchdog: new AnswerWatchdog(nowMs),
      openedMs: nowMs,
      askedMs: -Infinity,
      welcome: false,
    };
    this.#current = opening;
    socket.onopen = () => send(socket, { type: "hello", token: this.token.bearer() });
    socket.onmessage = (message) => this.#handleMessage(opening, message.data);
    socket.onerror = () => this.#handleLoss(opening, performance.now());
    socket.onclose = () => this.#handleLoss(opening, performance.now());
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
      // This may be another machine than the last time, so nothing learnt about its clock holds.
      this.#filter.reset();
      this.#backoffMs = BACKOFF_FIRST_MS;
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
    if (this.#current !== opening) return;
    this.#current = null;
    this.#doubtful = !opening.welcome;
    opening.socket.onopen = opening.socket.onmessage = opening.socket.onerror = opening.socket.onclose = null;
    opening.socket.close();
    const sinceMs = this.#link.kind === "lost" ? this.#link.sinceMs : nowMs;
    this.#setLink({ kind: "lost", sinceMs, nextTryMs: nowMs + this.#backoffMs });
    this.#backoffMs = Math.min(BACKOFF_MAX_MS, this.#backoffMs * 2);
  }

  #retryIfDue(nowMs: number): void {
    const link = this.#link;
    if (link.kind !== "lost" || link.nextTryMs === null || nowMs < link.nextTryMs || this.#busy) return;
    this.#setLink({ ...link, nextTryMs: null });
    if (!this.#doubtful) return this.#open(nowMs);
    this.#busy = true;
    void this.#renewAndOpen(link.sinceMs).finally(() => (this.#busy = false));
  }

  async #renewAndOpen(sinceMs: number): Promise<void> {
    const renewal = await this.token.renew();
    if (this.#stopped) return;
    if (renewal.kind === "refused") return this.handlers.handleRefused(renewal.detail);
    const nowMs = performance.now();
    if (renewal.kind === "ok") return this.#open(nowMs);
    this.#setLink({ kind: "lost", sinceMs, nextTryMs: nowMs + this.#backoffMs });
    this.#backoffMs = Math.min(BACKOFF_MAX_MS, this.#backoffMs * 2);
  }

  #setLink(link: Link): void {
    const changed = link.kind !== this.#link.kind;
    this.#link = link;
    if (changed && !this.#stopped) this.handlers.handleLink(link);
  }
}

function send(socket: WebSocket, event: ClientEvent): void {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(event));
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
