// Logging in at an issuer of identities (OpenID Connect): there, and back into this tab. No cookie is involved: what finishes a login is a random
// value that this tab alone keeps, so that a login that somebody else began is finished by nobody here.

import { post, Refused } from "./api.ts";
import { base64url } from "./base64url.ts";
import { LOGIN_TIMEOUT_MS } from "./limits.ts";
import { keepTabIdentity, keepTabLogin } from "./memory.ts";
import { t } from "./strings.ts";
import type { BegunLogin, IdentityGrant } from "./types.ts";

/** Where issuers send the browser back to. */
const RETURN_PATH = "/login";

/** What the browser came back with. */
export interface Returned {
  state: string;
  code?: string;
  iss?: string;
  error?: string;
}

/** Begins a login; the address to go to. `ways`, and whether one may come in without, are shown again should it come to nothing. */
export async function beginAt(issuer: string, isStepUp: boolean, ways: readonly string[], breakGlass: boolean): Promise<string> {
  const value = base64url(crypto.getRandomValues(new Uint8Array(32)));
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value));
  const body = { issuer, tab: base64url(new Uint8Array(hash)), step_up: isStepUp };
  const response = await post("/v1/login/begin", {}, body, LOGIN_TIMEOUT_MS);
  const { url } = (await response.json()) as BegunLogin;
  // Nothing but an address is followed.
  if (!/^https?:\/\//.test(url)) throw new Refused(502, t.join.unreachable);
  keepTabLogin({ value, isStepUp, ways: [...ways], breakGlass });
  return url;
}

/** Whether the browser is back from an issuer, and with what. */
export function returned(path: string, query: string): Returned | null {
  if (path !== RETURN_PATH) return null;
  const fields = new URLSearchParams(query);
  const found: Returned = { state: fields.get("state") ?? "" };
  for (const name of ["code", "iss", "error"] as const) {
    const value = fields.get(name);
    if (value !== null) found[name] = value;
  }
  return found;
}

/** Finishes the login of this tab; the identity is kept in it. */
export async function finishLogin(back: Returned, value: string): Promise<void> {
  const response = await post("/v1/login/finish", {}, { ...back, tab: value }, LOGIN_TIMEOUT_MS);
  const { identity, name } = (await response.json()) as IdentityGrant;
  keepTabIdentity({ token: identity, name });
}
