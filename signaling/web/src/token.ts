// The bearer token: refreshed at 60 % of its life, and by a second joining where the relay no longer takes it.

import { join, refreshToken, Refused } from "./api.ts";
import { BACKOFF_MAX_MS, TOKEN_REFRESH_PART } from "./limits.ts";
import type { TokenGrant } from "./types.ts";

export interface Invitation {
  secret: string;
  name: string;
  organisation: string;
}

export type Renewal = { kind: "ok" } | { kind: "unreachable" } | { kind: "refused"; detail: string };

export class TokenKeeper {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #renewing: Promise<Renewal> | null = null;

  constructor(
    private readonly invitation: Invitation,
    public grant: TokenGrant,
  ) {
    this.#schedule(TOKEN_REFRESH_PART * lifeMs(grant));
  }

  /** The token to show now. */
  bearer(): string {
    return this.grant.token;
  }

  /** A fresh token, whatever it takes. Calls that come meanwhile get the same answer. */
  renew(): Promise<Renewal> {
    this.#renewing ??= this.#renew().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #renew(): Promise<Renewal> {
    try {
      this.grant = await this.#fresh();
      this.#schedule(TOKEN_REFRESH_PART * lifeMs(this.grant));
      return { kind: "ok" };
    } catch (error) {
      this.#schedule(BACKOFF_MAX_MS);
      if (error instanceof Refused && error.isFinal()) return { kind: "refused", detail: error.words() };
      return { kind: "unreachable" };
    }
  }

  async #fresh(): Promise<TokenGrant> {
    try {
      return await refreshToken(this.grant.token);
    } catch (error) {
      if (!(error instanceof Refused) || !error.isFinal()) throw error;
      return join(this.invitation.secret, this.invitation.name, this.invitation.organisation);
    }
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => void this.renew(), Math.max(1000, ms));
  }
}

/** Life of a token from its own claims, so that a wrong clock on this machine does not matter. */
export function lifeMs(grant: Pick<TokenGrant, "token" | "expires">): number {
  const { iat, exp } = claims(grant.token);
  if (typeof iat === "number" && typeof exp === "number" && exp > iat) return (exp - iat) * 1000;
  return Math.max(0, grant.expires / 1000 - Date.now());
}

function claims(token: string): { iat?: unknown; exp?: unknown } {
  try {
    const body = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(atob(body)) as { iat?: unknown; exp?: unknown };
  } catch {
    return {};
  }
}
