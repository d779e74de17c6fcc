// Takes a screenshot of every screen of the page, in both languages and the sizes that are promised, and looks at each with
// axe-core. `node screenshots.mjs OUTDIR [NAME,NAME…]`: all, or those with such a name or part of a name. Builds the page and needs nothing
// else: the relay is signaling/web/test/fake-relay.js. Prints one JSON object per line; ends with 1 where anything is amiss.
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { launch } from "./chromium.mjs";
import { servePage } from "./page-server.mjs";

const axeSource = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [outDir = "var/artifacts/screenshots", only = ""] = process.argv.slice(2);
const CONTROL = "amiss";
await mkdir(outDir, { recursive: true });
const { origin, fakeRelay, close } = await servePage();

const LAPTOP = { width: 1280, height: 720 };
const WIDE = { width: 1024, height: 768 };
const UPRIGHT = { width: 768, height: 1024 };
const live = (n) => (page) => page.waitForFunction((n) => document.querySelectorAll(".tile[data-state=live][data-age-kind=known]").length >= n, n, { timeout: 15_000 });
const joined = { hash: "#invitation=x&name=Dr.%20Maria%20Keller&join=1" };
const chat = (page) => page.evaluate(() => {
  window.__relay.say("p2sato00bb", "胆嚢管の同定をお願いします。\n画面中央の索状物です。");
  window.__relay.say("p1self00aa", "I see it. Please retract a little further to the left.");
  window.__relay.say("p3coord0cc", "OR 3: the second camera will be moved in two minutes.");
});
const keys = (...names) => async (page) => { for (const name of names) await page.keyboard.press(name); };
const steps = (...all) => async (page) => { for (const step of all) await step(page); };
const controlIs = (mode) => (page) => page.waitForSelector(`body[data-control="${mode}"]`);
const settle = (ms = 1500) => (page) => page.waitForTimeout(ms);

/** Each with its name; taken in English and Japanese unless it says otherwise. */
const shots = [
  { name: "lobby", hash: "#invitation=x" },
  { name: "lobby-checked", hash: "#invitation=x", run: steps((p) => p.waitForSelector('.check[data-camera="good"][data-microphone="good"]'), settle()) },
  { name: "lobby-denied", hash: "#invitation=x", denied: true, run: steps((p) => p.waitForSelector('.check[data-camera="denied"]')) },
  { name: "lobby-observer", hash: "#invitation=x&role=observer" },
  { name: "lobby-refused", hash: "#invitation=x&name=Dr.%20Sato&join=1", fake: { refuse: true }, run: (p) => p.waitForSelector(".fault:not([hidden])") },
  { name: "layout-large", ...joined, run: live(3) },
  { name: "layout-grid", ...joined, run: steps(live(3), keys("l"), settle()) },
  { name: "layout-pair", ...joined, run: steps(live(3), keys("l", "l"), settle()) },
  { name: "layout-menu", ...joined, run: steps(live(3), (p) => p.click('[data-control="bar.view"]')) },
  { name: "one-picture", ...joined, fake: { feeds: ["endoscope"] }, run: live(1) },
  { name: "two-side-by-side", ...joined, fake: { feeds: ["endoscope", "room"] }, run: steps(live(2), keys("l", "l"), settle()) },
  { name: "ages", ...joined, fake: { ages: { endoscope: 760, room: 1540 } }, run: steps(live(3), settle()) },
  { name: "people-speaking", ...joined, run: steps(live(3), keys("p"), (p) => p.evaluate(() => window.__relay.speak(["voice-p2sato00"])), settle(300)) },
  { name: "chat", ...joined, run: steps(live(3), chat, keys("t"), settle(300)) },
  { name: "chat-unread", ...joined, run: steps(live(3), chat, settle(300)) },
  { name: "statistics", ...joined, run: steps(live(3), keys("g"), settle(9000)) },
  { name: "sending", ...joined, run: steps(live(3), (p) => p.click('[data-control="talk.connect"]'), (p) => p.click('[data-control="publish.camera"]'), (p) => p.waitForSelector('body[data-mic="muted"][data-camera="sending"]'), keys("m"), (p) => p.waitForSelector('body[data-mic="open"]')) },
  { name: "observer", ...joined, fake: { role: "observer" }, run: live(3) },
  { name: "views", ...joined, fake: { layered: ["endoscope", "room"] }, run: steps(live(3), keys("l", "l"), settle(2500)) },
  { name: "views-chosen", ...joined, fake: { layered: ["endoscope"] }, run: steps(live(3), (p) => p.selectOption('.tile[data-source="endoscope"] .view', "endoscope-quarter"), (p) => p.waitForSelector('.tile[data-feed="endoscope-quarter"]'), settle(2500)) },
  { name: "frozen", ...joined, run: steps(live(3), (p) => p.evaluate(() => { window.__relay.freeze("endoscope"); window.__relay.state("room", "stalled"); }), (p) => p.waitForSelector('.tile[data-state="frozen"]'), settle(800)) },
  { name: "no-publisher", ...joined, fake: { feeds: [], voice: false }, run: (p) => p.waitForSelector(".empty:not([hidden])") },
  { name: "undecodable", ...joined, run: steps(live(3), (p) => p.evaluate(() => window.__relay.announce("robot-4k", { codec: "H265", purpose: "scope", priority: 0 })), keys("1"), (p) => p.waitForSelector("[data-alternative]")) },
  { name: "relay-lost", ...joined, run: steps(live(3), (p) => p.evaluate(() => window.__relay.lose()), (p) => p.waitForSelector('body[data-connection="lost"]'), settle(3500)) },
  ...[
    ["control-local", { mode: "local", since_ms: 754_000 }],
    ["control-offered", { mode: "offered", since_ms: 6_000 }],
    ["control-ready-amber", { mode: "ready", since_ms: 9_000, colours: ["amber", "green", "green", "green"], figures: [96_000, 128_000, 6_200, 400, 161_000] }, keys("o")],
    ["control-granting", { mode: "granting" }],
    ["control-remote", { mode: "remote", since_ms: 125_000 }],
    ["control-own-station", { mode: "remote", since_ms: 65_000, participant: "p1self00aa" }],
    ["control-stopped", { mode: "remote", since_ms: 133_000, stopped: ["waiting for the re-clutch", "presence released", "clutch open"] }, keys("o")],
    ["control-hold-alarm", { mode: "hold", since_ms: 14_000, alarms: ["expert lost", "audit log not written"] }, (p) => p.evaluate(() => window.__relay.notice("estop", "Yuki Tanaka", "bleeding at the left edge")), keys("o")],
    ["control-estop", { mode: "estop", since_ms: 31_000, alarms: ["hardware override in use"] }],
    ["control-unknown", { mode: "remote" }, (p) => p.evaluate(() => (window.__relay.gate.silent = true)), (p) => p.waitForSelector('body[data-control="unknown"]'), settle(3000)],
    ["control-request", { mode: "local", since_ms: 61_000 }, keys("r"), (p) => p.click("#request-dialog .checkbox >> nth=1"), (p) => p.fill("#request-reason", "難しい剥離のため / difficult dissection"), (p) => p.click("#request-dialog .send"), settle(300)],
    ["control-closed", { mode: "closed" }],
  ].map(([name, control, ...run]) => ({ name, ...joined, fake: { control }, run: steps(live(3), controlIs(control.mode), ...run, settle(700)) })),
  { name: "control-observer", ...joined, fake: { role: "observer", control: { mode: "remote", since_ms: 3_725_000 } }, run: steps(live(3), controlIs("remote")) },
  { name: "help", ...joined, run: steps(live(3), keys("?"), settle(300)) },
  { name: CONTROL, ...joined, run: (p) => p.evaluate(spoil) },
  { name: "devices", ...joined, run: steps(live(3), keys("d"), (p) => p.waitForSelector('.check[data-microphone="good"]'), settle()) },
];

/** Everything at 1280×720; what is crowded also on tablets. */
const ON_TABLETS = ["lobby-checked", "layout-large", "layout-grid", "layout-pair", "chat", "statistics", "sending", "people-speaking", "control-remote", "control-ready-amber", "control-unknown", "control-request"];

/** The control is taken only where it is asked for: what it does must be found amiss. */
const isWanted = ({ name }) => (name === CONTROL || only === CONTROL ? name === only : only.split(",").some((part) => name.includes(part)));

let bad = 0;
const wanted = shots.filter(isWanted);
const browser = await launch();
for (const shot of wanted) {
  const sizes = ON_TABLETS.includes(shot.name) ? [LAPTOP, WIDE, UPRIGHT] : [LAPTOP];
  for (const size of sizes) for (const lang of ["en", "ja"]) await take(shot, size, lang);
}
await browser.close();
await close();
process.exit(bad === 0 && wanted.length > 0 ? 0 : 1);

async function take(shot, size, lang) {
  const name = `${shot.name}-${size.width}x${size.height}-${lang}`;
  const context = await browser.newContext({ viewport: size });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
  await page.addInitScript((fake) => (window.__fake = fake), shot.fake ?? {});
  await page.addInitScript({ path: fakeRelay });
  if (shot.denied) await page.addInitScript(() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", "NotAllowedError"); }; });
  const report = { name, errors };
  try {
    await page.goto(`${origin}/?lang=${lang}${shot.hash ?? ""}`);
    await shot.run?.(page);
    await page.waitForTimeout(200);
    await page.screenshot({ path: join(outDir, `${name}.png`) });
    report.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    report.axe = await axe(page);
    report.untranslated = await page.evaluate(untranslated, lang);
  } catch (e) {
    errors.push(String(e.message ?? e).split("\n")[0]);
    await page.screenshot({ path: join(outDir, `${name}-failed.png`) }).catch(() => undefined);
  }
  if (errors.length > 0 || report.overflow > 0 || report.axe?.length > 0 || report.untranslated?.length > 0) bad += 1;
  console.log(JSON.stringify(report));
  await context.close();
}

async function axe(page) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 4).join("; ")}`);
}

// One of each fault.
function spoil() {
  const wide = document.createElement("div");
  wide.style.cssText = "position: absolute; left: 0; top: 0; height: 1px; width: calc(100vw + 5px)";
  const text = document.createElement("p");
  text.dataset.t = text.textContent = "forgotten";
  document.documentElement.style.overflow = "auto";
  for (const element of [wide, text, document.createElement("button")]) document.body.append(element);
  document.body.style.overflow = "visible";
  setTimeout(() => { throw new Error("thrown on purpose"); });
}

// Texts of our own that are still those of the other language after a switch there and back would show a forgotten text.
function untranslated(lang) {
  const odd = [];
  for (const element of document.querySelectorAll("[data-t]")) {
    if (element.textContent === element.dataset.t) odd.push(element.dataset.t);
    const latin = /[A-Za-z]{4,}/.test(element.textContent.replace(/trocar operate|Trocar|JSON|Enter|Shift|https|Esc/g, ""));
    if (lang === "ja" && latin) odd.push(element.textContent);
  }
  return odd;
}
