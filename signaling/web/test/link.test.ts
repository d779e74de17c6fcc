import assert from "node:assert/strict";
import test from "node:test";
import { fromFragment, fromPasted } from "../src/link-invitation.ts";
import { ageText, span } from "../src/strings.ts";
import { lifeMs } from "../src/token.ts";

test("the fragment of a link carries invitation, name and the wish to join at once", () => {
  assert.deepEqual(fromFragment("#invitation=s3-cr_t&name=Dr%20Ito&join=1"), {
    invitation: "s3-cr_t",
    role: "",
    name: "Dr Ito",
    join: true,
  });
  assert.deepEqual(fromFragment(""), { invitation: "", name: "", role: "", join: false });
  assert.equal(fromFragment(`#name=${"x".repeat(99)}`).name.length, 64);
});

test("a whole link, a fragment or the bare secret may be pasted", () => {
  assert.equal(fromPasted(" https://relay.example/#invitation=abc "), "abc");
  assert.equal(fromPasted("invitation=abc&name=x"), "abc");
  assert.equal(fromPasted("abc"), "abc");
});

test("the life of a token is its own, whatever this machine's clock says", () => {
  const body = btoa(JSON.stringify({ iat: 1000, exp: 1300 })).replace(/=+$/, "");
  const grant = { token: `x.${body}.y`, expires: 0 };
  assert.equal(lifeMs(grant), 300_000);
  assert.equal(lifeMs({ token: "opaque", expires: 0 }), 0);
});

test("spans and ages are as exact as a person needs", () => {
  assert.deepEqual([400, 1249, 12_900, 185_000].map(span), ["0.4 s", "1.2 s", "12 s", "3 min 05 s"]);
  assert.deepEqual([84, 1340, 12_000].map(ageText), ["84 ms", "1340 ms", "12 s"]);
});
