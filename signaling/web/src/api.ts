// The HTTP API: join, token, ICE servers, and how errors look.

import { REQUEST_TIMEOUT_MS } from "./limits.ts";
import { reached } from "./reach.ts";
import { problemName } from "./strings/en.ts";
import { problemText, t } from "./strings.ts";
import type { IceServer, Problem, TokenGrant } from "./types.ts";

/** A request that the relay answered with a problem document (RFC 9457). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    /** NAME of `urn:trocar:problem:NAME`; empty where it was no problem document. */
    readonly problem = "",
    /** Feeds that can be had instead. */
    readonly alternatives: readonly string[] = [],
  ) {
    super(detail);
  }

  /** What was asked is not to be had: trying the same again soon is of no use. */
  isFinal(): boolean {
    return this.status >= 400 && this.status < 500 && ![408, 409, 425, 429].includes(this.status);
  }

  /** In the words of the page's language. */
  words(): string {
    return this.problem === "" ? this.detail : problemText(this.problem, this.detail);
  }
}

/** A request that got no answer. */
export class Unreachable extends Error {}

export async function join(invitation: string, name: string, organisation: string): Promise<TokenGrant> {
  const body = { invitation, ...(name === "" ? {} : { name }), ...(organisation === "" ? {} : { organisation }) };
  const response = await request("/v1/join", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return (await response.json()) as TokenGrant;
}

export async function refreshToken(bearer: string): Promise<TokenGrant> {
  const response = await request("/v1/token", { method: "POST", headers: authorization(bearer) });
  return (await response.json()) as TokenGrant;
}

export async function iceServers(session: string, bearer: string): Promise<IceServer[]> {
  const response = await request(`${sessionPath(session)}/ice-servers`, { headers: authorization(bearer) });
  const list: unknown = await response.json();
  return Array.isArray(list) ? (list as IceServer[]) : [];
}

export function sessionPath(session: string): string {
  return `/v1/sessions/${encodeURIComponent(session)}`;
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
  reached();
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<Refused> {
  const status = `${response.status} ${response.statusText}`.trim();
  try {
    const problem = (await response.json()) as Partial<Problem>;
    const text = problem.detail || problem.title;
    const alternatives = Array.isArray(problem.alternatives) ? problem.alternatives.map(String) : [];
    const name = typeof problem.type === "string" ? problemName(problem.type) : "";
    return new Refused(response.status, typeof text === "string" && text !== "" ? text : status, name, alternatives);
  } catch {
    // Not a problem document, so not from the relay itself: the status is all there is.
    return new Refused(response.status, status);
  }
}
