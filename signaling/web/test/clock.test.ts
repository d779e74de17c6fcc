import assert from "node:assert/strict";
import test from "node:test";
import { ClockFilter } from "../src/clock.ts";
import { CLOCK_WINDOW_MS } from "../src/limits.ts";

/** An exchange over a path of so many microseconds each way, with a clock that is ahead of ours. */
function exchange(startUs: number, forthUs: number, backUs: number, aheadUs: number) {
  const t1 = startUs + forthUs + aheadUs;
  return { t0: startUs, t1, t2: t1 + 10, t3: startUs + forthUs + 10 + backUs };
}

test("the quickest exchange wins and its error is within half its round trip", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, exchange(1_000_000, 50_000, 1000, 7_000_000));
  filter.handleExchange(1, exchange(2_000_000, 300, 500, 7_000_000));
  const offset = filter.offset(2);
  assert.equal(offset?.uncertaintyUs, 400);
  assert.ok(Math.abs((offset?.offsetUs ?? 0) - 7_000_000) <= 400);
});

test("samples age out after thirty seconds", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, exchange(1_000_000, 10, 10, 5));
  assert.ok(filter.offset(CLOCK_WINDOW_MS));
  assert.equal(filter.offset(CLOCK_WINDOW_MS + 1), null);
});

test("an exchange during which a clock was set, or that is no number, is dropped", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, { ...exchange(1_000_000, 10, 10, 0), t3: 900_000 });
  filter.handleExchange(0, { ...exchange(1_000_000, 10, 10, 0), t1: NaN });
  assert.equal(filter.offset(0), null);
});

test("a step of a clock voids quicker samples from before it", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, exchange(1_000_000, 100, 100, 0));
  filter.handleExchange(500, exchange(2_000_000, 900, 900, 60_000_000));
  assert.equal(filter.offset(500)?.offsetUs, 60_000_000);
});

test("a slow exchange does not void a quick one that it agrees with", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, exchange(1_000_000, 100, 100, 0));
  filter.handleExchange(500, exchange(2_000_000, 400_000, 100, 0));
  assert.deepEqual(filter.offset(500), { offsetUs: 0, uncertaintyUs: 100 });
});

test("after a reset nothing is known", () => {
  const filter = new ClockFilter();
  filter.handleExchange(0, exchange(1_000_000, 10, 10, 5));
  filter.reset();
  assert.equal(filter.offset(0), null);
});
