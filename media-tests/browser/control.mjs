// Whether the page tells the truth about who operates, and whether STOP stops. `node control.mjs [NAME,NAME…]`: all checks, or those with
// such a part of a name. Builds the page; the gate is signaling/web/test/fake-relay.js. Prints one JSON object per check and ends with 1
// where one fails. Each check does the same once more where it must come out otherwise.
import assert from "node:assert/strict";
import { launch } from "./chromium.mjs";
import { servePage } from "./page-server.mjs";

const [only = ""] = process.argv.slice(2);
const { origin, fakeRelay, close } = await servePage();
const browser = await launch();
/** What a screen may be late by: one frame of a busy machine, and the tick of the page. */
const SLACK_MS = 100;
const REMOTE = { mode: "remote", since_ms: 5_000 };

const checks = {
  async asks_five_times_a_second_with_nonces_that_nobody_can_guess() {
    const page = await open(REMOTE);
    const probes = await probesFor(page, 4_000);
    const gaps = probes.slice(1).map((probe, i) => probe.at - probes[i].at);
    assert.ok(probes.length >= 15 && probes.length <= 20, `${probes.length} probes in 4 s`);
    assert.ok(Math.min(...gaps) >= 199, `${Math.min(...gaps)} ms between two`);
    assert.ok(probes.every(({ nonce }) => /^[0-9a-f]{16}$/.test(nonce)));
    assert.equal(new Set(probes.map(({ nonce }) => nonce)).size, probes.length);
    // Otherwise: where no gate was ever heard of it asks seldom, and shows nothing.
    const alone = await open(null);
    assert.ok((await probesFor(alone, 4_000)).length <= 5);
    assert.equal(await control(alone), "none");
    assert.ok(await alone.locator(".control-banner").isHidden());
  },

  async never_shows_a_register_that_is_older_than_500_ms() {
    const page = await open(REMOTE);
    const good = await watch(page, 3_000, () => undefined);
    assert.ok(good.every(({ shown }) => shown === "remote"), "answered, and yet not shown");
    const silent = await watch(page, 2_000, () => (window.__relay.gate.silent = true));
    const late = silent.filter(({ shown, ageMs }) => shown !== "unknown" && ageMs > 500 + SLACK_MS);
    assert.deepEqual(late, [], "an old register is shown");
    const early = silent.filter(({ shown, ageMs }) => shown === "unknown" && ageMs < 500);
    assert.deepEqual(early, [], "a young register is not shown");
    assert.equal(silent.at(-1).shown, "unknown");
    await page.evaluate(() => (window.__relay.gate.silent = false));
    await is(page, "remote");
    // What comes ten times a second, and answers what was never asked, is as good as nothing.
    const lies = await watch(page, 2_000, () => (window.__relay.gate.lies = true));
    assert.equal(lies.at(-1).shown, "unknown");
    await says(page, "detail", /the gate does not answer/);
  },

  async is_unknown_at_once_without_gate_or_relay() {
    const page = await open(REMOTE);
    await page.evaluate(() => { window.__relay.gate.silent = true; window.__relay.tell({ type: "control_gone" }); });
    assert.equal(await control(page), "unknown");
    await says(page, "detail", /the gate is not connected/);
    await page.evaluate(() => (window.__relay.gate.silent = false));
    await is(page, "remote");
    await page.evaluate(() => window.__relay.lose());
    await is(page, "unknown");
    await page.waitForSelector('body[data-connection="lost"]');
    await says(page, "detail", /no connection to the relay/);
  },

  async a_page_that_comes_back_from_the_background_knows_nothing_until_it_is_answered() {
    const page = await open(REMOTE);
    await page.evaluate(hide, true);
    assert.equal(await control(page), "unknown");
    assert.deepEqual(await probesFor(page, 1_000), [], "asks while nobody looks");
    await page.evaluate(() => (window.__relay.gate.silent = true));
    await page.evaluate(hide, false);
    assert.equal(await control(page), "unknown");
    await says(page, "detail", /in the background/);
    await page.waitForTimeout(300);
    assert.equal(await control(page), "unknown");
    await page.evaluate(() => (window.__relay.gate.silent = false));
    await is(page, "remote");
  },

  async a_page_that_hangs_is_veiled_by_the_browser_itself() {
    const page = await open(REMOTE);
    const veiled = await bandWhileHung(page);
    assert.ok(veiled.before.every(isBlue), `remote is blue: ${JSON.stringify(veiled.before)}`);
    assert.ok(veiled.after.length > 0 && !veiled.after.some(isBlue), `a page that hangs shows ${JSON.stringify(veiled.after)}`);
    await is(page, "remote");
    // Otherwise: without the veil it goes on to show what it knew.
    await page.evaluate(() => (document.querySelector(".veil").style.display = "none"));
    const bare = await bandWhileHung(page);
    assert.ok(bare.after.length > 0 && bare.after.every(isBlue), JSON.stringify(bare.after));
  },

  async stop_is_sent_once_when_it_is_held_and_not_by_accident() {
    const page = await open(REMOTE);
    await holdKeys(page, 300);
    assert.deepEqual(await acts(page), [], "a touch of the keys stops");
    await says(page, "news", /STOP was not sent/);
    await page.keyboard.press("t");
    await page.locator("#chat-text").focus();
    await holdKeys(page, 900);
    assert.deepEqual(await acts(page), [], "who writes a capital letter stops");
    await page.keyboard.press("Escape");
    await page.locator("h1").click();
    await holdKeys(page, 900);
    assert.deepEqual(await acts(page), [{ type: "control_estop", reason: "" }]);
    await is(page, "hold");
    await says(page, "news", /everybody was told/);
    await holdKeys(page, 900);
    assert.equal((await acts(page)).length, 1, "a second one within ten seconds");
    assert.match(await page.locator(".stop .how").innerText(), /again in/);
  },

  async stop_can_be_reached_while_a_dialog_is_open_and_carries_its_reason() {
    const page = await open(REMOTE, { role: "observer" });
    await page.keyboard.press("o");
    await page.fill("#stop-reason", `出血 ${"止".repeat(60)}`);
    await page.locator("h1").click();
    await page.keyboard.press("?");
    await page.waitForSelector("#help-dialog[open]");
    await page.locator(".control-banner .stop").hover();
    await page.mouse.down();
    await page.waitForTimeout(900);
    await page.mouse.up();
    const [act, ...more] = await acts(page);
    assert.equal(more.length, 0);
    assert.ok(act.reason.startsWith("出血 止") && new TextEncoder().encode(act.reason).length <= 128, act.reason);
    assert.equal(await page.locator(".control-banner .ask").count(), 0, "an observer can ask for control");
  },

  async stop_that_is_not_confirmed_or_not_sent_says_so() {
    const page = await open(REMOTE);
    await page.evaluate(() => (window.__relay.gate.deaf = true));
    await holdKeys(page, 900);
    await says(page, "news", /NOT CONFIRMED/);
    assert.equal(await control(page), "remote", "the banner shows what the gate says, not what was wished");
    const offline = await open(REMOTE);
    await offline.evaluate(() => window.__relay.lose());
    await offline.waitForSelector('.link-banner:has-text("CONNECTION TO THE RELAY LOST")');
    await holdKeys(offline, 900);
    await says(offline, "news", /STOP NOT SENT/);
  },

  async a_request_asks_and_changes_nothing() {
    const page = await open({ mode: "local" });
    await page.keyboard.press("r");
    await page.check('#request-dialog .checkbox:has-text("energy") input');
    assert.ok(await page.isChecked('#request-dialog .checkbox:has-text("instruments") input'), "energy without instruments");
    await page.fill("#request-reason", "止".repeat(43));
    assert.ok(await page.isDisabled("#request-dialog .send"), "129 bytes can be sent");
    await page.fill("#request-reason", "止".repeat(42));
    await page.click("#request-dialog .send");
    await page.waitForSelector('#request-dialog .result[data-kind="told"]');
    assert.deepEqual(await acts(page), [{ type: "control_request", set: { camera: false, instruments: true, energy: true }, reason: "止".repeat(42) }]);
    assert.equal(await control(page), "local");
    await page.evaluate(() => (window.__relay.gate.refuses = "the grade does not cover the set"));
    await page.click("#request-dialog .send");
    await page.waitForSelector('#request-dialog .result[data-kind="refused"]');
    assert.match(await page.locator("#request-dialog .result").innerText(), /the grade does not cover the set/);
  },

  async no_text_moves_a_picture() {
    const page = await open({ mode: "local" });
    const places = [];
    const long = { stopped: ["presence released", "clutch open", "picture too old", "camera moved by somebody else"], alarms: ["expert lost", "audit log not written", "local console lost"] };
    for (const [width, height] of [[1280, 720], [768, 1024]]) {
      await page.setViewportSize({ width, height });
      const seen = new Set();
      for (const over of [{ mode: "local" }, { mode: "offered" }, REMOTE, { ...REMOTE, ...long }, { mode: "hold", ...long }, { mode: "estop" }]) {
        await page.evaluate((over) => window.__relay.control(over), over);
        await page.evaluate(() => window.__relay.notice("estop", "Somebody with a very long name ".repeat(6), "and a reason ".repeat(9)));
        await is(page, over.mode);
        seen.add(await place(page));
      }
      await page.evaluate(() => (window.__relay.gate.silent = true));
      await is(page, "unknown");
      seen.add(await place(page));
      await page.evaluate(() => (window.__relay.gate.silent = false));
      places.push([...seen]);
    }
    assert.ok(places.every((each) => each.length === 1), JSON.stringify(places));
    assert.notEqual(places[0][0], places[1][0], "the place does not follow the window");
  },

  async a_browser_never_says_that_it_has_control() {
    const page = await open({ ...REMOTE, participant: "p1self00aa" });
    assert.equal(await title(page), "REMOTE: your station has control");
    await page.evaluate(() => window.__relay.control({ mode: "remote", participant: "p4moreau0" }));
    await page.waitForFunction(() => document.querySelector(".control-banner .title").textContent === "REMOTE: Prof. Jean Moreau operates");
    await page.evaluate(() => window.__relay.control({ mode: "remote", participant: null }));
    await page.waitForFunction(() => document.querySelector(".control-banner .title").textContent === "REMOTE: expert c0ffee01 operates");
    const surgeon = await open({ ...REMOTE, participant: "p1self00aa" }, { role: "local" });
    assert.equal(await title(surgeon), "REMOTE: Dr. Maria Keller operates");
  },
};

let bad = 0;
const wanted = Object.entries(checks).filter(([name]) => only.split(",").some((part) => name.includes(part)));
for (const [name, check] of wanted) {
  const began = Date.now();
  const errors = [];
  try {
    await check();
  } catch (e) {
    errors.push(String(e?.message ?? e).split("\n").slice(0, 6).join(" "));
  }
  for (const context of browser.contexts()) {
    for (const page of context.pages()) errors.push(...page.thrown);
    await context.close();
  }
  if (errors.length > 0) bad += 1;
  console.log(JSON.stringify({ name, ms: Date.now() - began, errors }));
}
await browser.close();
await close();
process.exit(bad === 0 && wanted.length > 0 ? 0 : 1);

/** A page in the session, with its banner where there is a gate. */
async function open(register, fake = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, locale: "en-US" });
  const page = await context.newPage();
  page.thrown = [];
  page.on("pageerror", (e) => page.thrown.push(String(e)));
  await page.addInitScript((fake) => (window.__fake = fake), { feeds: ["endoscope"], control: register, ...fake });
  await page.addInitScript({ path: fakeRelay });
  await page.goto(`${origin}/#invitation=x&name=Dr.%20Maria%20Keller&join=1`);
  await page.waitForSelector('body[data-connection="open"]');
  if (register !== null) await is(page, register.mode);
  return page;
}

function control(page) {
  return page.evaluate(() => document.body.dataset.control);
}

function is(page, mode) {
  return page.waitForSelector(`body[data-control="${mode}"]`, { timeout: 10_000 });
}

/** Waits until that part of the banner says so. */
async function says(page, part, words) {
  const text = () => page.locator(`.control-banner .words > .${part}`).innerText();
  for (const end = Date.now() + 6_000; Date.now() < end && !words.test(await text()); ) await page.waitForTimeout(20);
  assert.match(await text(), words);
}

function title(page) {
  return page.locator(".control-banner .words > .title").innerText();
}

function acts(page) {
  return page.evaluate(() => window.__relay.log.acts.map(({ at, ...act }) => act));
}

async function probesFor(page, ms) {
  await page.evaluate(() => (window.__relay.log.probes.length = 0));
  await page.waitForTimeout(ms);
  return page.evaluate(() => window.__relay.log.probes);
}

async function holdKeys(page, ms) {
  await page.keyboard.down("Shift");
  await page.keyboard.down("S");
  await page.waitForTimeout(ms);
  await page.keyboard.up("S");
  await page.keyboard.up("Shift");
}

/** What was shown, twenty times a second and more, and how old the newest probe that was answered was then. */
async function watch(page, ms, change) {
  await page.evaluate(change);
  return page.evaluate((ms) => new Promise((done) => {
    const seen = [];
    const end = performance.now() + ms;
    const look = () => {
      const now = performance.now();
      seen.push({ shown: document.body.dataset.control, ageMs: now - window.__relay.gate.answered });
      if (now < end) setTimeout(look, 10);
      else done(seen);
    };
    look();
  }), ms);
}

/** Says that the page went to the background, or came back: headless Chromium has no background. */
function hide(hidden) {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}

function place(page) {
  return page.evaluate(() => {
    const { x, y, width, height } = document.querySelector(".floor").getBoundingClientRect();
    return [x, y, width, height].map(Math.round).join(" ");
  });
}

/** Colour of the banner's band as the browser paints it, just before the page hangs for 2.5 s and at the end of that time. */
async function bandWhileHung(page) {
  const session = await page.context().newCDPSession(page);
  const frames = [];
  session.on("Page.screencastFrame", ({ data, sessionId }) => {
    frames.push({ data, at: Date.now() });
    void session.send("Page.screencastFrameAck", { sessionId }).catch(() => undefined);
  });
  await session.send("Page.startScreencast", { format: "png", everyNthFrame: 1 });
  await page.waitForTimeout(1_000);
  const began = Date.now();
  await page.evaluate(() => { for (const end = performance.now() + 2_500; performance.now() < end; ) continue; });
  const ended = Date.now();
  await session.send("Page.stopScreencast");
  await session.detach();
  // A frame comes only when something changed: the newest one is what a person goes on seeing.
  const newest = (until) => frames.filter(({ at }) => at <= until).slice(-1).map(({ data }) => data);
  const colours = (data) => page.evaluate(bandColours, data);
  return { before: await colours(newest(began)), after: await colours(newest(ended - 100)) };
}

async function bandColours(pictures) {
  const seen = [];
  for (const data of pictures) {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    seen.push([...context.getImageData(Math.round(image.width * 0.6), 3, 1, 1).data.slice(0, 3)]);
  }
  return seen;
}

function isBlue([red, , blue]) {
  return blue > red + 60;
}
