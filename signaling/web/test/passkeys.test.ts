import assert from "node:assert/strict";
import test from "node:test";
import { Refused } from "../src/api.ts";
import { base64url, fromBase64url } from "../src/base64url.ts";
import { passkeyLink } from "../src/link-invitation.ts";
import { tabIdentity } from "../src/memory.ts";
import { beginRegistration, hasPasskeys, logInByPasskey, NoPasskey, register } from "../src/passkeys.ts";

const bytes = (...values: number[]): ArrayBuffer => new Uint8Array(values).buffer;
const credential = (response: object) => ({ id: "AQI", rawId: bytes(1, 2), type: "public-key", response });

interface Asked {
  url: string;
  body: Record<string, unknown>;
}

/** A browser whose authenticator and relay answer like this; what the relay was asked, and what the authenticator. */
function browser(authenticator: (options: unknown) => unknown, ...answers: { status: number; body: object }[]): { relay: Asked[]; key: unknown[] } {
  const kept = new Map<string, string>();
  const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => kept.set(key, value) };
  const seen = { relay: [] as Asked[], key: [] as unknown[] };
  const ask = async (options: unknown): Promise<unknown> => {
    seen.key.push(options);
    return authenticator(options);
  };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { credentials: { get: ask, create: ask } } });
  const fetch = async (url: string, init: { body: string }) => {
    seen.relay.push({ url, body: JSON.parse(init.body) as Record<string, unknown> });
    const { status, body } = answers.shift() ?? { status: 500, body: {} };
    return { ok: status < 300, status, statusText: "", json: async () => body };
  };
  Object.assign(globalThis, { sessionStorage: storage, localStorage: storage, fetch, PublicKeyCredential: class {} });
  return seen;
}

function fails(name: string): () => never {
  return () => {
    throw Object.assign(new Error("in the browser's own words"), { name });
  };
}

const login = { ceremony: "c", expires: 1, options: { challenge: "_-8", rpId: "trocar.example", timeout: 9, userVerification: "required" } };
const registration = {
  ceremony: "c",
  expires: 1,
  account: "ada",
  name: "Dr Ada",
  options: {
    rp: { id: "trocar.example", name: "Trocar" },
    user: { id: "AAE", name: "ada", displayName: "Dr Ada" },
    challenge: "_-8",
    pubKeyCredParams: [{ type: "public-key", alg: -7 }],
    excludeCredentials: [{ type: "public-key", id: "AgM" }],
    authenticatorSelection: { residentKey: "required", requireResidentKey: true, userVerification: "required" },
    attestation: "none",
  },
} as const;

test("bytes become text and bytes again, in the alphabet of addresses", () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  assert.deepEqual(fromBase64url(base64url(all)), all);
  assert.equal(base64url(new Uint8Array([0xff, 0xef])), "_-8");
});

test("what the authenticator signed logs the tab in", async () => {
  const response = { clientDataJSON: bytes(1), authenticatorData: bytes(2), signature: bytes(3), userHandle: bytes(4) };
  const granted = { identity: "i.d", name: "Dr Ada" };
  const seen = browser(() => credential(response), { status: 200, body: login }, { status: 200, body: granted });
  await logInByPasskey();
  assert.deepEqual(tabIdentity(), { token: "i.d", name: "Dr Ada" });
  const publicKey = { challenge: new Uint8Array([0xff, 0xef]), timeout: 9, rpId: "trocar.example", userVerification: "required" };
  assert.deepEqual(seen.key, [{ publicKey }]);
  const shown = { id: "AQI", rawId: "AQI", type: "public-key", response: { clientDataJSON: "AQ", authenticatorData: "Ag", signature: "Aw", userHandle: "BA" } };
  assert.deepEqual(seen.relay[1], { url: "/v1/login/passkey/finish", body: { ceremony: "c", credential: shown } });
});

test("a refusal and a browser that does not do it leave the tab without a login", async () => {
  const response = { clientDataJSON: bytes(1) };
  browser(() => credential(response), { status: 200, body: login }, { status: 401, body: { type: "urn:trocar:problem:passkey-refused", detail: "no" } });
  const refused = await logInByPasskey().catch((error: unknown) => error);
  assert.equal(refused instanceof Refused ? refused.problem : String(refused), "passkey-refused");
  assert.equal(tabIdentity().token, "");
  for (const [name, said] of [["NotAllowedError", /cancelled/], ["InvalidStateError", /already/], ["SecurityError", /SecurityError/]] as const) {
    const seen = browser(fails(name), { status: 200, body: login });
    const why = await logInByPasskey().catch((error: unknown) => error);
    assert.ok(why instanceof NoPasskey && said.test(why.message), String(why));
    assert.equal(seen.relay.length, 1, "nothing is sent");
  }
});

test("a passkey is made for whom the link is of, and not beside one that is there", async () => {
  const response = { clientDataJSON: bytes(1), attestationObject: bytes(5) };
  const seen = browser(() => credential(response), { status: 200, body: registration }, { status: 201, body: {} });
  const begun = await beginRegistration("secret");
  await register(begun, "Key ring");
  const made = seen.key[0] as { publicKey: PublicKeyCredentialCreationOptions };
  assert.deepEqual(made.publicKey.user.id, new Uint8Array([0, 1]));
  assert.deepEqual(made.publicKey.excludeCredentials, [{ type: "public-key", id: new Uint8Array([2, 3]) }]);
  assert.equal(made.publicKey.authenticatorSelection?.residentKey, "required");
  const shown = { id: "AQI", rawId: "AQI", type: "public-key", response: { clientDataJSON: "AQ", attestationObject: "BQ" } };
  assert.deepEqual(seen.relay, [
    { url: "/v1/passkeys/begin", body: { link: "secret" } },
    { url: "/v1/passkeys/finish", body: { ceremony: "c", credential: shown, label: "Key ring" } },
  ]);
});

test("a link to register is told from an invitation, and a browser without passkeys is known", () => {
  assert.equal(passkeyLink("#passkey=s_-1"), "s_-1");
  for (const other of ["", "#", "#invitation=x", "#passkey="]) assert.equal(passkeyLink(other), "");
  browser(() => null);
  assert.equal(hasPasskeys(), true);
  Object.assign(globalThis, { PublicKeyCredential: undefined });
  assert.equal(hasPasskeys(), false);
});
