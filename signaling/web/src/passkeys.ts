// Passkeys of this node's accounts (WebAuthn): logging in with one, and registering one with a link. The authenticator asks for a PIN, a finger or
// a face, and tells nobody but this origin.

import { post } from "./api.ts";
import { base64url, fromBase64url } from "./base64url.ts";
import { LOGIN_TIMEOUT_MS } from "./limits.ts";
import { keepTabIdentity } from "./memory.ts";
import { t } from "./strings.ts";
import type { BegunPasskey, BegunRegistration, CreationOptions, IdentityGrant, RequestOptions } from "./types.ts";

/** The browser or the authenticator did not do it; the message is for the person. */
export class NoPasskey extends Error {}

/** Whether this browser has passkeys, which it gives to https pages and to those of this machine only. */
export function hasPasskeys(): boolean {
  return typeof PublicKeyCredential !== "undefined" && navigator.credentials !== undefined;
}

/** Says who one is; this tab keeps the answer. */
export async function logInByPasskey(): Promise<void> {
  const { ceremony, options } = (await (await post("/v1/login/passkey/begin", {}, {}, LOGIN_TIMEOUT_MS)).json()) as BegunPasskey;
  const publicKey = requested(options);
  const credential = answer(await asked(() => navigator.credentials.get({ publicKey })));
  const response = await post("/v1/login/passkey/finish", {}, { ceremony, credential }, LOGIN_TIMEOUT_MS);
  const { identity, name } = (await response.json()) as IdentityGrant;
  keepTabIdentity({ token: identity, name });
}

/** Whose passkey the link registers, and what the authenticator is to make. */
export async function beginRegistration(link: string): Promise<BegunRegistration> {
  return (await (await post("/v1/passkeys/begin", {}, { link }, LOGIN_TIMEOUT_MS)).json()) as BegunRegistration;
}

/** Has the authenticator make a passkey, and registers it under that label; the link is used up by it. */
export async function register({ ceremony, options }: BegunRegistration, label: string): Promise<void> {
  const publicKey = created(options);
  const credential = answer(await asked(() => navigator.credentials.create({ publicKey })));
  await post("/v1/passkeys/finish", {}, { ceremony, credential, ...(label === "" ? {} : { label }) }, LOGIN_TIMEOUT_MS);
}

function requested({ challenge, timeout, rpId, userVerification }: RequestOptions): PublicKeyCredentialRequestOptions {
  return { challenge: fromBase64url(challenge), timeout, rpId, userVerification };
}

function created(options: CreationOptions): PublicKeyCredentialCreationOptions {
  const { rp, user, challenge, pubKeyCredParams, timeout, excludeCredentials, authenticatorSelection, attestation } = options;
  return {
    rp,
    user: { ...user, id: fromBase64url(user.id) },
    challenge: fromBase64url(challenge),
    pubKeyCredParams,
    timeout,
    excludeCredentials: (excludeCredentials ?? []).map(({ type, id }) => ({ type, id: fromBase64url(id) })),
    authenticatorSelection,
    attestation,
  };
}

async function asked(ask: () => Promise<Credential | null>): Promise<PublicKeyCredential> {
  try {
    const credential = await ask();
    if (credential !== null) return credential as PublicKeyCredential;
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    if (name === "InvalidStateError") throw new NoPasskey(t.passkey.already);
    // Cancelled, timed out, or nobody was verified: browsers do not say which.
    if (name !== "NotAllowedError") throw new NoPasskey(t.passkey.failed(name));
  }
  throw new NoPasskey(t.passkey.cancelled);
}

/** As the relay takes it: what the authenticator made or signed, bytes as text. */
function answer(credential: PublicKeyCredential): object {
  const raw = credential.response as Partial<AuthenticatorAttestationResponse & AuthenticatorAssertionResponse>;
  const response: Record<string, string> = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"] as const) {
    const bytes = raw[name];
    if (bytes instanceof ArrayBuffer) response[name] = base64url(new Uint8Array(bytes));
  }
  const rawId = base64url(new Uint8Array(credential.rawId));
  return { id: credential.id, rawId, type: credential.type, response };
}
