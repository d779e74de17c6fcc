import assert from "node:assert/strict";
import test from "node:test";
import { join, logIn, logOut, Refused } from "../src/api.ts";
import { keepTabIdentity, tabIdentity } from "../src/memory.ts";

interface Asked {
  url: string;
  bearer: string | undefined;
}

/** A tab of its own whose relay gives these answers, one after the other. */
function tab(...answers: { status: number; body: object }[]): Asked[] {
  const kept = new Map<string, string>();
  const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => kept.set(key, value) };
  Object.assign(globalThis, { sessionStorage: storage, localStorage: storage });
  const asked: Asked[] = [];
  const fetch = async (url: string, init: { headers?: Record<string, string> }) => {
    asked.push({ url, bearer: init.headers?.["authorization"] });
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
