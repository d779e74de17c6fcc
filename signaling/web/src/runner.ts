// Keeps one connection alive: opens it, restarts its ICE where the path is lost, replaces it where it died or shows nothing.

import { Refused, Unreachable } from "./api.ts";
import { LEG_RESTART_MS } from "./limits.ts";
import type { Peer } from "./peer.ts";
import { Backoff, RepairPlan, type Failure } from "./reconnect.ts";
import { t } from "./strings.ts";

export interface Connection {
  readonly peer: Peer;
  close(): Promise<void>;
}

export interface RunnerOptions<C extends Connection> {
  open: () => Promise<C>;
  /** The token was not taken: get another. */
  renew: () => Promise<unknown>;
  /** The old connection must be gone at the relay before a new one can take its name. */
  waitsForClose?: boolean;
}

/** How a connection is doing: `again` means that it was there and is coming back. */
export type RunnerState = "starting" | "connected" | "again";

/** How long a new connection waits for the end of the old one. */
const CLOSE_WAIT_MS = 1000;

export class Runner<C extends Connection> {
  readonly #backoff = new Backoff();
  readonly #plan = new RepairPlan();
  #current: C | null = null;
  #closing: Promise<void> = Promise.resolve();
  #opening = false;
  #closed = false;
  #wasConnected = false;
  #openedMs = 0;
  #patienceMs = LEG_RESTART_MS;
  #fault: Error | null = null;

  constructor(private readonly options: RunnerOptions<C>) {}

  current(): C | null {
    return this.#current;
  }

  /** Why the last attempt failed; null where it did not. */
  fault(): Error | null {
    return this.#fault;
  }

  state(): RunnerState {
    if (this.#current?.peer.state() === "connected") return "connected";
    return this.#wasConnected ? "again" : "starting";
  }

  /** To be called every tick while the relay can be reached. */
  handleTick(nowMs: number): void {
    if (this.#current !== null) this.#repair(nowMs, this.#current);
    if (this.#current === null && !this.#opening && !this.#closed && this.#backoff.isDue(nowMs)) void this.#open();
  }

  /** Nothing new came since `sinceMs` though it should have: opens anew when that lasts. */
  handleStandstill(nowMs: number, sinceMs: number): void {
    if (this.#current === null || nowMs - Math.max(sinceMs, this.#openedMs) < this.#patienceMs) return;
    // A new leg costs the relay a key frame, so asking is made rarer as long as it does not help.
    this.#patienceMs = Math.min(4 * LEG_RESTART_MS, 2 * this.#patienceMs);
    this.replace(nowMs);
  }

  /** Media came: it works. */
  handleMedia(): void {
    this.#backoff.handleSuccess();
    this.#patienceMs = LEG_RESTART_MS;
    this.#fault = null;
  }

  /** Something else reached the relay: a wait for the network is over. */
  handleReach(nowMs: number): void {
    this.#backoff.handleReach(nowMs);
  }

  /** The relay is back after a loss. What died meanwhile is opened anew at once; what may live has its ICE restarted. */
  handleLinkOpen(nowMs: number): void {
    this.#plan.reset();
    this.#backoff.reset(nowMs);
  }

  /** What made the relay refuse may have passed: the next tick asks again. */
  retry(nowMs: number): void {
    this.#backoff.reset(nowMs);
  }

  /** Drops the connection; the next tick opens another. */
  replace(nowMs: number): void {
    this.#drop();
    this.#backoff.reset(nowMs);
  }

  close(): void {
    this.#closed = true;
    this.#drop();
  }

  #drop(): void {
    if (this.#current !== null) this.#closing = this.#current.close();
    this.#current = null;
  }

  #repair(nowMs: number, current: C): void {
    const state = current.peer.state();
    if (state === "connected") this.#wasConnected = true;
    const repair = this.#plan.next(nowMs, state);
    if (repair === "replace") return this.replace(nowMs);
    if (repair === "none") return;
    current.peer.restart().catch((error: unknown) => {
      // The relay answered that this connection cannot be saved; without any answer the plan goes on by itself.
      if (error instanceof Refused && this.#current === current) this.replace(performance.now());
    });
  }

  async #open(): Promise<void> {
    this.#opening = true;
    this.#plan.reset();
    try {
      if (this.options.waitsForClose === true) await Promise.race([this.#closing, wait(CLOSE_WAIT_MS)]);
      const opened = await this.options.open();
      if (this.#closed) return void opened.close();
      this.#current = opened;
      this.#fault = null;
      this.#openedMs = performance.now();
    } catch (error) {
      this.#fault = error instanceof Error ? error : new Unreachable(t.whep.unreachable);
      if (error instanceof Refused && error.status === 401) await this.options.renew();
      this.#backoff.handleFailure(performance.now(), failureOf(error));
    } finally {
      this.#opening = false;
    }
  }
}

/** In words, for a person. */
export function faultWords(fault: Error): string {
  return fault instanceof Refused ? fault.words() : t.whep.unreachable;
}

function failureOf(error: unknown): Failure {
  if (!(error instanceof Refused)) return "unreachable";
  // A feed that is just going or coming is not found for a moment; other refusals last.
  return error.isFinal() && ![401, 404].includes(error.status) ? "final" : "passing";
}

function wait(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
