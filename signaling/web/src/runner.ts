// Keeps one leg alive: opens it, opens it anew when it died or shows nothing, and waits longer after each failure.

import { Refused } from "./api.ts";
import { BACKOFF_FIRST_MS, BACKOFF_MAX_MS, LEG_REFUSED_MS, LEG_RESTART_MS } from "./limits.ts";
import { t } from "./strings.ts";
import type { TokenKeeper } from "./token.ts";
import { WhepLeg } from "./whep.ts";

export class LegRunner {
  #leg: WhepLeg | null = null;
  #opening = false;
  #closed = false;
  #openedMs = 0;
  #nextMs = 0;
  #backoffMs = BACKOFF_FIRST_MS;
  #patienceMs = LEG_RESTART_MS;
  #fault: string | null = null;

  constructor(
    private readonly token: TokenKeeper,
    private readonly feed: string,
    private readonly onStream: (stream: MediaStream, leg: WhepLeg) => void,
  ) {}

  leg(): WhepLeg | null {
    return this.#leg;
  }

  /** Why the last attempt failed; null where it did not. */
  fault(): string | null {
    return this.#fault;
  }

  /** To be called every tick while the relay can be reached. */
  handleTick(nowMs: number): void {
    if (this.#leg?.isDead()) this.restart(nowMs);
    if (this.#leg === null && !this.#opening && !this.#closed && nowMs >= this.#nextMs) void this.#open();
  }

  /** The feed is live and its picture stands still since `sinceMs`: opens the leg anew when that lasts. */
  handleStandstill(nowMs: number, sinceMs: number): void {
    if (this.#leg === null || nowMs - Math.max(sinceMs, this.#openedMs) < this.#patienceMs) return;
    // A new leg costs the relay a key frame, so asking is made rarer as long as it does not help.
    this.#patienceMs = Math.min(4 * LEG_RESTART_MS, 2 * this.#patienceMs);
    this.restart(nowMs);
  }

  handleFrame(): void {
    this.#backoffMs = BACKOFF_FIRST_MS;
    this.#patienceMs = LEG_RESTART_MS;
    this.#fault = null;
  }

  /** Drops the leg; the next tick opens another. */
  restart(nowMs: number): void {
    this.#leg?.close();
    this.#leg = null;
    this.#nextMs = nowMs;
  }

  close(): void {
    this.#closed = true;
    this.#leg?.close();
    this.#leg = null;
  }

  async #open(): Promise<void> {
    this.#opening = true;
    try {
      const leg = await WhepLeg.open({
        session: this.token.grant.session,
        feed: this.feed,
        bearer: () => this.token.bearer(),
        onStream: (stream, leg) => !this.#closed && this.onStream(stream, leg),
      });
      if (this.#closed) return leg.close();
      this.#leg = leg;
      this.#fault = null;
      this.#openedMs = performance.now();
    } catch (error) {
      await this.#handleFailure(error);
    } finally {
      this.#opening = false;
    }
  }

  async #handleFailure(error: unknown): Promise<void> {
    const final = error instanceof Refused && error.isFinal();
    this.#fault = error instanceof Refused ? error.detail : t.whep.unreachable;
    if (error instanceof Refused && error.status === 401) await this.token.renew();
    // A feed that is just going or coming is not found for a moment; other refusals last.
    const wait = final && ![401, 404].includes((error as Refused).status) ? LEG_REFUSED_MS : this.#backoffMs;
    this.#nextMs = performance.now() + wait;
    this.#backoffMs = Math.min(BACKOFF_MAX_MS, 2 * this.#backoffMs);
  }
}
