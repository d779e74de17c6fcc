import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import test from "node:test";
import { join, logIn, logOut, Refused } from "../src/api.ts";
import { beginAt, finishLogin, returned } from "../src/issuer-login.ts";
import { keepTabIdentity, tabIdentity, takeTabLogin } from "../src/memory.ts";

// Node 18 has it under another name.
if (globalThis.crypto === undefined) Object.assign(globalThis, { crypto: webcrypto });

interface Asked {
  url: string;
  bearer: string | undefined;
  body: Record<string, unknown>;
}

/** A tab of its own whose relay gives these answers, one after the other. */
function tab(...answers: { status: number; body: object }[]): Asked[] {
  const kept = new Map<string, string>();
  const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => kept.set(key, value) };
  Object.assign(globalThis, { sessionStorage: storage, localStorage: storage });
  const asked: Asked[] = [];
  const fetch = async (url: string, init: { headers?: Record<string, string>; body?: string }) => {
    asked.push({ url, bearer: init.headers?.["authorization"], body: JSON.parse(init.body ?? "{}") as Record<string, unknown> });
    const { status, body } = answers.shift() ?? { status: 500, body: {} };
    return { ok: status < 300, status, statusText: "", json: async () => body };
  };
  Object.assign(globalThis, { fetch });
  return asked;
}

const grant = { status: 200, body: { token: "t", name: "Dr Ada" } };
const needed = (detail: string) => ({
  status: 401,
  body: { type: "urn:trocar:problem:identity-needed", detail, ways: ["local"] },
});

test("a login is kept in the tab and shown when an invitation is redeemed, until it is ended", async () => {
  const asked = tab({ status: 200, body: { identity: "i.d", name: "Dr Ada Lovelace" } }, grant, { status: 204, body: {} }, grant);
  await logIn({ account: "ada", password: "a long enough password", code: "123456" });
  assert.deepEqual(tabIdentity(), { token: "i.d", name: "Dr Ada Lovelace" });
  await join("secret", "", "");
  logOut();
  assert.deepEqual(tabIdentity(), { token: "", name: "" });
  await join("secret", "Ada", "");
  const shown = asked.map(({ url, bearer }) => `${url} ${bearer ?? "-"}`);
  assert.deepEqual(shown, ["/v1/login -", "/v1/join Bearer i.d", "/v1/logout Bearer i.d", "/v1/join -"]);
});

test("a login that has ended is no matter where none is asked for", async () => {
  const asked = tab(needed("the login has ended"), grant);
  keepTabIdentity({ token: "i.d", name: "Ada" });
  assert.equal((await join("secret", "Ada", "")).token, "t");
  assert.deepEqual(asked.map(({ bearer }) => bearer), ["Bearer i.d", undefined]);
  assert.equal(tabIdentity().token, "");
});

test("where one is asked for, the first answer says why the old one is not enough", async () => {
  tab(needed("that was 901 s ago"), needed("a login is needed"));
  keepTabIdentity({ token: "i.d", name: "Ada" });
  const why = await join("secret", "Ada", "").catch((error: unknown) => error);
  const refused = why instanceof Refused ? why : null;
  assert.equal(refused?.detail, "that was 901 s ago", String(why));
  assert.deepEqual(refused?.ways, ["local"]);
});

test("another refusal keeps the login", async () => {
  tab({ status: 403, body: { type: "urn:trocar:problem:invitation-invalid", detail: "unknown" } });
  keepTabIdentity({ token: "i.d", name: "Ada" });
  const why = await join("secret", "Ada", "").catch((error: unknown) => error);
  assert.ok(why instanceof Refused, String(why));
  assert.equal(tabIdentity().token, "i.d");
});

test("a login without a second factor is given up, and the first answer says why", async () => {
  const lacks = { status: 401, body: { type: "urn:trocar:problem:second-factor-needed", detail: "no second factor", ways: ["North"] } };
  tab(lacks, needed("a login is needed"));
  keepTabIdentity({ token: "i.d", name: "Ada" });
  const why = await join("secret", "Ada", "").catch((error: unknown) => error);
  assert.equal(why instanceof Refused ? why.problem : String(why), "second-factor-needed");
  assert.equal(tabIdentity().token, "");
});

test("a login at an issuer is begun with the hash of what this tab keeps, and finished with the value, once", async () => {
  const url = "https://id.example/auth?state=s1";
  const asked = tab({ status: 200, body: { url } }, { status: 200, body: { identity: "i.d", name: "Dr Ada" } });
  assert.equal(await beginAt("North", true, ["local", "North"], true), url);
  const login = takeTabLogin();
  assert.deepEqual([login?.isStepUp, login?.ways, login?.breakGlass], [true, ["local", "North"], true]);
  assert.equal(takeTabLogin(), null);
  const value = login?.value ?? "";
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value)));
  const tabHash = btoa(String.fromCharCode(...hash)).replace(/\+/g, "-").replace(/\//g, "_").replace("=", "");
  assert.deepEqual(asked[0]?.body, { issuer: "North", tab: tabHash, step_up: true });
  assert.equal(value.length, 43);
  const back = returned("/login", "?code=c1&state=s1&iss=https%3A%2F%2Fid.example&session_state=x");
  assert.deepEqual(back, { state: "s1", code: "c1", iss: "https://id.example" });
  if (back !== null) await finishLogin(back, value);
  assert.deepEqual(asked[1]?.body, { state: "s1", code: "c1", iss: "https://id.example", tab: value });
  assert.deepEqual(tabIdentity(), { token: "i.d", name: "Dr Ada" });
});

test("only the address that issuers send back to is a way back, and nothing but an address is gone to", async () => {
  assert.equal(returned("/", "?code=c1&state=s1"), null);
  assert.deepEqual(returned("/login", "?error=access_denied&state=s1"), { state: "s1", error: "access_denied" });
  tab({ status: 200, body: { url: "javascript:alert(1)" } });
  const why = await beginAt("North", false, [], false).catch((error: unknown) => error);
  assert.ok(why instanceof Refused, String(why));
  assert.equal(takeTabLogin(), null);
});

test("in an emergency the reason goes along, and whether that is possible the first answer says", async () => {
  const lacks = { type: "urn:trocar:problem:identity-needed", detail: "a login is needed", ways: ["North"] };
  const asked = tab({ status: 401, body: lacks }, { status: 401, body: { ...lacks, break_glass: true } }, { status: 200, body: {} });
  const impossible = await join("secret", "Ada", "").catch((error: unknown) => error);
  assert.equal(impossible instanceof Refused ? impossible.breakGlass : null, false);
  const possible = await join("secret", "Ada", "").catch((error: unknown) => error);
  assert.equal(possible instanceof Refused ? possible.breakGlass : null, true);
  await join("secret", "Ada", "", { reason: "bleeding", confirm: true });
  assert.deepEqual(asked[2]?.body, { invitation: "secret", name: "Ada", break_glass: { reason: "bleeding", confirm: true } });
  assert.equal(asked[1]?.body["break_glass"], undefined);
});
