// The HTTP API: join, token, and how errors look.

import { REQUEST_TIMEOUT_MS } from "./limits.ts";
import { t } from "./strings.ts";
import type { Problem, TokenGrant } from "./types.ts";

/** A request that the relay answered with a problem document (RFC 9457). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail);
  }

  /** What was asked is not to be had: trying the same again soon is of no use. */
  isFinal(): boolean {
    return this.status >= 400 && this.status < 500 && ![408, 409, 425, 429].includes(this.status);
  }
}

/** A request that got no answer. */
export class Unreachable extends Error {}

export async function join(invitation: string, name: string): Promise<TokenGrant> {
  const response = await request("/v1/join", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(name === "" ? { invitation } : { invitation, name }),
  });
  return (await response.json()) as TokenGrant;
}

export async function refreshToken(bearer: string): Promise<TokenGrant> {
  const response = await request("/v1/token", { method: "POST", headers: authorization(bearer) });
  return (await response.json()) as TokenGrant;
}

export function authorization(bearer: string): Record<string, string> {
  return { authorization: `Bearer ${bearer}` };
}

/** A fetch that ends in an answer of class 2xx, or in one of the two errors above. */
export async function request(url: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), cache: "no-store", ...init });
  } catch {
    throw new Unreachable(t.join.unreachable);
  }
  if (!response.ok) throw new Refused(response.status, await detailOf(response));
  return response;
}

async function detailOf(response: Response): Promise<string> {
  try {
    const problem = (await response.json()) as Partial<Problem>;
    const text = problem.detail || problem.title;
    if (typeof text === "string" && text !== "") return text;
  } catch {
    // Not a problem document, so not from the relay itself: the status is all there is.
  }
  return `${response.status} ${response.statusText}`.trim();
}
