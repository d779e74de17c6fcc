import assert from "node:assert/strict";
import test from "node:test";
import { BACKOFF_MAX_MS, LEG_REFUSED_MS, RESTART_WAIT_MS, UNREACHABLE_MAX_MS } from "../src/limits.ts";
import { Backoff, RepairPlan } from "../src/reconnect.ts";
import { candidatesOf, fragmentOf, restarted, withStartBitrate } from "../src/sdpfrag.ts";

/** Waits that follow one failure after the other. */
function waits(failure: "unreachable" | "passing" | "final", count: number): number[] {
  const backoff = new Backoff();
  let nowMs = 0;
  return Array.from({ length: count }, () => {
    backoff.handleFailure(nowMs, failure);
    const wait = backoff.nextMs() - nowMs;
    nowMs = backoff.nextMs();
    return wait;
  });
}

test("a network that is gone is tried every second, a relay that refuses is spared", () => {
  assert.equal(Math.max(...waits("unreachable", 9)), UNREACHABLE_MAX_MS);
  assert.ok(UNREACHABLE_MAX_MS <= 1000);
  assert.deepEqual(waits("passing", 5), [500, 1000, 2000, 4000, BACKOFF_MAX_MS]);
  assert.deepEqual(waits("final", 2), [LEG_REFUSED_MS, LEG_REFUSED_MS]);
});

test("the first sign of the relay ends a wait for the network, but not the wait after a refusal", () => {
  const backoff = new Backoff();
  for (let i = 0; i < 5; i += 1) backoff.handleFailure(0, "unreachable");
  assert.ok(!backoff.isDue(10));
  backoff.handleReach(10);
  assert.ok(backoff.isDue(10));
  backoff.handleFailure(10, "passing");
  backoff.handleReach(11);
  assert.ok(!backoff.isDue(11));
});

test("after a success the waits begin anew", () => {
  const backoff = new Backoff();
  for (let i = 0; i < 5; i += 1) backoff.handleFailure(0, "passing");
  backoff.handleSuccess();
  backoff.handleFailure(0, "passing");
  assert.equal(backoff.nextMs(), 500);
});

test("a lost path is repaired by one restart of ICE, and by a new connection where that does not help", () => {
  const plan = new RepairPlan();
  assert.equal(plan.next(0, "connecting"), "none");
  assert.equal(plan.next(1, "connected"), "none");
  assert.equal(plan.next(2, "disconnected"), "restart");
  assert.equal(plan.next(3, "connecting"), "none");
  assert.equal(plan.next(2 + RESTART_WAIT_MS, "disconnected"), "none");
  assert.equal(plan.next(3 + RESTART_WAIT_MS, "connecting"), "replace");
});

test("a restart that helped is forgotten, so that the next loss gets one again", () => {
  const plan = new RepairPlan();
  plan.next(0, "disconnected");
  assert.equal(plan.next(1, "connected"), "none");
  assert.equal(plan.next(9000, "disconnected"), "restart");
});

test("what has failed is replaced at once", () => {
  assert.equal(new RepairPlan().next(0, "failed"), "replace");
  assert.equal(new RepairPlan().next(0, "closed"), "replace");
});

const OFFER = [
  "v=0", "a=group:BUNDLE 0 1", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=ice-ufrag:abcd", "a=ice-pwd:secret", "a=mid:0",
  "a=candidate:1 1 udp 5 10.0.0.1 9 typ host", "m=video 9 UDP/TLS/RTP/SAVPF 96", "a=ice-ufrag:abcd", "a=ice-pwd:secret", "a=mid:1",
  "a=candidate:1 1 udp 5 10.0.0.1 9 typ host", "",
].join("\r\n");

test("a fragment has the credentials, each candidate once, and only m= and a= lines", () => {
  const candidates = candidatesOf(OFFER);
  assert.equal(candidates.length, 1);
  const fragment = fragmentOf(OFFER, candidates, true) ?? "";
  assert.equal(fragment.match(/a=candidate:/g)?.length, 1);
  for (const line of ["a=group:BUNDLE 0 1", "a=ice-ufrag:abcd", "a=ice-pwd:secret", "a=mid:0", "a=end-of-candidates"]) {
    assert.ok(fragment.includes(`${line}\r\n`), line);
  }
  assert.ok(fragment.split("\r\n").every((line) => /^([am]=|$)/.test(line)));
  assert.equal(fragmentOf("v=0\r\n", [], false), null);
});

test("the answer to a restart takes the place of the old credentials and candidates, and of nothing else", () => {
  const news = "a=ice-lite\r\na=ice-ufrag:new\r\na=ice-pwd:newer\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:7 1 udp 5 10.0.0.2 9 typ host\r\n";
  const answer = restarted(OFFER, news) ?? "";
  assert.ok(!answer.includes("abcd") && !answer.includes("10.0.0.1"));
  assert.equal(answer.match(/a=ice-ufrag:new\r\n/g)?.length, 2);
  assert.equal(answer.match(/10\.0\.0\.2/g)?.length, 2);
  assert.ok(answer.includes("a=group:BUNDLE 0 1"));
  assert.equal(restarted(OFFER, "a=mid:0\r\n"), null);
});

test("the bit rate to begin with goes to each video codec, not to RTX and not to sound", () => {
  const answer = [
    "m=audio 9 X 111", "a=rtpmap:111 opus/48000/2", "a=fmtp:111 useinbandfec=1", "m=video 9 X 96 97 98", "a=rtpmap:96 H264/90000",
    "a=fmtp:96 packetization-mode=1", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96", "a=rtpmap:98 VP8/90000",
  ].join("\r\n");
  const lines = withStartBitrate(answer, 1500).split("\r\n");
  assert.deepEqual(lines.filter((l) => l.includes("x-google")), [
    "a=fmtp:96 packetization-mode=1;x-google-start-bitrate=1500",
    "a=fmtp:98 x-google-start-bitrate=1500",
  ]);
});
