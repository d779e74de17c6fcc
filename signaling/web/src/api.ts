// The HTTP API: login, join, token, ICE servers, and how errors look.

import { REQUEST_TIMEOUT_MS } from "./limits.ts";
import type { LoginAnswer } from "./login-fields.ts";
import { forgetTabIdentity, keepTabIdentity, tabIdentity } from "./memory.ts";
import { reached } from "./reach.ts";
import { problemName } from "./strings/en.ts";
import { problemText, t } from "./strings.ts";
import type { BreakGlass, IceServer, IdentityGrant, Problem, TokenGrant } from "./types.ts";

/** A request that the relay answered with a problem document (RFC 9457). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    /** NAME of `urn:trocar:problem:NAME`; empty where it was no problem document. */
    readonly problem = "",
    /** Feeds that can be had instead. */
    readonly alternatives: readonly string[] = [],
    /** How one can log in, where that is asked for. */
    readonly ways: readonly string[] = [],
    /** Where a login is asked for: one may come in without, in an emergency. */
    readonly breakGlass = false,
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

/** Redeems an invitation; whoever has logged in in this tab is known by it. With an emergency, without the login that it asks for. */
export async function join(invitation: string, name: string, organisation: string, emergency: BreakGlass | null = null): Promise<TokenGrant> {
  const body = {
    invitation,
    ...(name === "" ? {} : { name }),
    ...(organisation === "" ? {} : { organisation }),
    ...(emergency === null ? {} : { break_glass: emergency }),
  };
  const { token } = tabIdentity();
  const redeem = (headers: Record<string, string>): Promise<Response> => post("/v1/join", headers, body);
  if (token === "") return (await (await redeem({})).json()) as TokenGrant;
  try {
    return (await (await redeem(authorization(token))).json()) as TokenGrant;
  } catch (error) {
    if (!isLoginNeeded(error)) throw error;
    forgetTabIdentity();
    // The login has ended or is too old. Where none is asked for, that is no matter; where one is, the first answer says why.
    try {
      return (await (await redeem({})).json()) as TokenGrant;
    } catch (second) {
      throw isLoginNeeded(second) ? error : second;
    }
  }
}

/** Refused for want of a login, or of a better one. */
export function isLoginNeeded(error: unknown): error is Refused {
  return error instanceof Refused && ["identity-needed", "second-factor-needed"].includes(error.problem);
}

/** Says who one is; this tab keeps the answer. */
export async function logIn(answer: LoginAnswer): Promise<void> {
  const response = await post("/v1/login", {}, answer);
  const { identity, name } = (await response.json()) as IdentityGrant;
  keepTabIdentity({ token: identity, name });
}

/** Ends the login. What the relay does not hear of now ends there by its time. */
export function logOut(): void {
  const { token } = tabIdentity();
  forgetTabIdentity();
  if (token !== "") void request("/v1/logout", { method: "POST", headers: authorization(token) }).catch(() => undefined);
}

export function post(url: string, headers: Record<string, string>, body: object, timeoutMs = REQUEST_TIMEOUT_MS): Promise<Response> {
  const signal = AbortSignal.timeout(timeoutMs);
  return request(url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body), signal });
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
    const ways = Array.isArray(problem.ways) ? problem.ways.map(String) : [];
    return new Refused(response.status, typeof text === "string" && text !== "" ? text : status, name, alternatives, ways, problem.break_glass === true);
  } catch {
    // Not a problem document, so not from the relay itself: the status is all there is.
    return new Refused(response.status, status);
  }
}
