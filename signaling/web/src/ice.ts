// The list of STUN and TURN servers, with credentials that end.

import { iceServers } from "./api.ts";
import { ICE_SERVERS_REFRESH_PART, ICE_SERVERS_WAIT_MS } from "./limits.ts";
import type { TokenKeeper } from "./token.ts";
import type { IceServer } from "./types.ts";

export class IceServers {
  #servers: RTCIceServer[] = [];
  #staleMs = -Infinity;
  #asking: Promise<void> | null = null;

  constructor(private readonly token: TokenKeeper) {}

  /** The list now. Waits only a moment: a relay that can be reached directly needs no list. */
  async current(): Promise<RTCIceServer[]> {
    if (performance.now() >= this.#staleMs) {
      this.#asking ??= this.#ask().finally(() => (this.#asking = null));
      await Promise.race([this.#asking, new Promise((done) => setTimeout(done, ICE_SERVERS_WAIT_MS))]);
    }
    return this.#servers;
  }

  async #ask(): Promise<void> {
    const askedMs = performance.now();
    const list = await iceServers(this.token.grant.session, this.token.bearer()).catch(() => null);
    this.#staleMs = askedMs + lifeMs(list ?? []);
    if (list !== null) this.#servers = list.map(toBrowser);
  }
}

/** How long a list may be used; a minute where nothing in it ends, so that a change of the configuration is noticed. */
function lifeMs(list: readonly IceServer[]): number {
  const ends = list.map((s) => s.expires).filter((e) => e !== undefined);
  if (ends.length === 0) return 60_000;
  return Math.max(5_000, ICE_SERVERS_REFRESH_PART * (Math.min(...ends) / 1000 - Date.now()));
}

function toBrowser({ urls, username, credential }: IceServer): RTCIceServer {
  return { urls, ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }) };
}
