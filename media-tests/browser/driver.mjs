// Drives a real Chromium for the tests. One JSON object per line on standard input, one answer per line on standard
// output: {"id", "ok": result} or {"id", "error": text}. Ends with its standard input. `node driver.mjs [OPTIONS]`: how the
// browser is started, as a JSON object (chromium.mjs).
import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { launch } from "./chromium.mjs";
import { passkeyCommands } from "./passkeys.mjs";

const browser = await launch(JSON.parse(process.argv[2] ?? "{}"));
const pages = new Map();

// Runs inside the page before anything of the page's own: notes when things happened, by the page's wall clock.
function observe() {
  const log = { states: [], connections: [], errors: [], whep: [], requests: [], firstFrames: [], lastFrame: 0 };
  Object.defineProperty(window, "__test", { value: log });
  addEventListener("error", (e) => log.errors.push(String(e.message)));
  addEventListener("unhandledrejection", (e) => log.errors.push(String(e.reason)));
  const note = () => {
    const connection = document.body?.dataset.connection;
    if (connection && log.connections.at(-1)?.value !== connection) {
      log.connections.push({ value: connection, at: Date.now() });
    }
    for (const tile of document.querySelectorAll(".tile")) {
      const last = log.states.filter((s) => s.feed === tile.dataset.feed).at(-1);
      if (last?.value !== tile.dataset.state) {
        log.states.push({ feed: tile.dataset.feed, value: tile.dataset.state, at: Date.now(), lastFrame: log.lastFrame });
      }
      for (const video of tile.querySelectorAll("video")) {
        if (video.watched) continue;
        video.watched = true;
        const frame = () => {
          log.lastFrame = video.lastFrame = Date.now();
          if (!video.seen) {
            video.seen = true;
            log.firstFrames.push(Date.now());
          }
          video.requestVideoFrameCallback(frame);
        };
        video.requestVideoFrameCallback(frame);
      }
    }
  };
  const plain = window.fetch;
  window.fetch = async (...args) => {
    const url = String(args[0]?.url ?? args[0]);
    log.requests.push({ method: args[1]?.method ?? "GET", url, at: Date.now() });
    if (log.requests.length > 1000) log.requests.shift();
    const response = await plain(...args);
    if (url.endsWith("/whep")) log.whep.push(Date.now());
    return response;
  };
  document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver(note).observe(document.documentElement, { subtree: true, childList: true, attributes: true });
    note();
  });
}

// Reads the mark out of the pixels of frames as they are presented, for a while. The layout is that of
// proto/src/media/pixelmark.rs: cells of height/90 pixels, 32 columns, 3 rows, from (2, 20) cells.
async function marks(ms) {
  const video = document.querySelector(".tile.large video") ?? document.querySelector(".tile video");
  const tile = video.closest(".tile");
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const samples = [];
  const crc16 = (bytes) => {
    let crc = 0xffff;
    for (const b of bytes) {
      crc ^= b << 8;
      for (let i = 0; i < 8; i++) crc = ((crc & 0x8000) ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
    }
    return crc;
  };
  const read = () => {
    const cell = video.videoHeight / 90;
    const [w, h] = [Math.ceil(36 * cell), Math.ceil(24 * cell)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.drawImage(video, 0, 0, w, h, 0, 0, w, h);
    const { data } = context.getImageData(0, 0, w, h);
    const rows = [0, 1, 2].map((row) => {
      let bits = 0;
      for (let column = 0; column < 32; column++) {
        const x = Math.floor((2 + column + 0.5) * cell);
        const y = Math.floor((20 + row + 0.5) * cell);
        bits = ((bits << 1) | (data[4 * (y * w + x) + 1] > 127 ? 1 : 0)) >>> 0;
      }
      return bits;
    });
    const bytes = [];
    for (const r of rows.slice(0, 2)) bytes.push(r >>> 24, (r >>> 16) & 255, (r >>> 8) & 255, r & 255);
    bytes.push(rows[2] >>> 24, (rows[2] >>> 16) & 255);
    if (crc16(bytes) !== (rows[2] & 0xffff)) return null;
    return { frame: rows[0], capture: (rows[2] >>> 16) * 2 ** 32 + rows[1] };
  };
  await new Promise((resolve) => {
    const end = performance.now() + ms;
    const timer = setTimeout(resolve, ms + 1000);
    const frame = (now, meta) => {
      // The system's wall clock, which the publisher stamps with; the page's own clock is what is being tested.
      const displayed = Date.now();
      const mark = read();
      samples.push({
        mark,
        displayed,
        rtp: meta.rtpTimestamp,
        shownAge: tile.dataset.ageMs === "" ? null : Number(tile.dataset.ageMs),
      });
      if (performance.now() < end) video.requestVideoFrameCallback(frame);
      else { clearTimeout(timer); resolve(); }
    };
    video.requestVideoFrameCallback(frame);
  });
  return samples;
}

// How different the pixels of the large picture are: 0 for a single colour.
function spread() {
  const video = document.querySelector(".tile video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 36];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  const green = Array.from({ length: 64 * 36 }, (_, i) => data[4 * i + 1]);
  const mean = green.reduce((a, b) => a + b) / green.length;
  return Math.sqrt(green.reduce((a, b) => a + (b - mean) ** 2, 0) / green.length);
}

// The strongest tone that each playing audio element carries, in Hz, with its level in dB of full scale, and the highest
// level at each frequency of `at`; for a while of `ms`.
async function tones({ ms, at }) {
  const context = new AudioContext();
  await context.resume();
  const taps = [...document.querySelectorAll("audio")].filter((a) => a.srcObject !== null).map((audio) => {
    const analyser = context.createAnalyser();
    analyser.fftSize = 8192;
    analyser.smoothingTimeConstant = 0;
    context.createMediaStreamSource(audio.srcObject).connect(analyser);
    return { audio, analyser, db: -Infinity, hz: 0, at: at.map(() => -Infinity) };
  });
  const bins = new Float32Array(4096);
  for (const end = performance.now() + ms; performance.now() < end; ) {
    await new Promise((done) => setTimeout(done, 50));
    for (const tap of taps) {
      tap.analyser.getFloatFrequencyData(bins);
      const top = bins.reduce((best, value, i) => (value > bins[best] ? i : best), 1);
      if (bins[top] > tap.db) [tap.db, tap.hz] = [bins[top], (top * context.sampleRate) / 8192];
      tap.at = at.map((hz, i) => Math.max(tap.at[i], bins[Math.round((hz * 8192) / context.sampleRate)]));
    }
  }
  await context.close();
  const finite = (db) => (Number.isFinite(db) ? db : null);
  return taps.map(({ audio, db, hz, at }) => ({ ...audio.dataset, paused: audio.paused, db: finite(db), hz, at: at.map(finite) }));
}

// What the picture of a feed shows for a while: how many frames came, how bright its left and right half are (the upper three
// quarters of it), and at which eighths of its lowest quarter the bright mark was seen.
async function look({ feed, ms }) {
  const video = document.querySelector(`.tile[data-feed="${feed}"] video`);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 36];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const seen = { frames: 0, left: 0, right: 0, marks: [] };
  const mean = (x, y, w, h) => {
    const { data } = context.getImageData(x, y, w, h);
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += data[i + 1];
    return (sum * 4) / data.length;
  };
  await new Promise((done) => {
    const timer = setTimeout(done, ms + 500);
    const end = performance.now() + ms;
    const frame = () => {
      context.drawImage(video, 0, 0, 64, 36);
      seen.frames += 1;
      [seen.left, seen.right] = [Math.round(mean(4, 4, 24, 18)), Math.round(mean(36, 4, 24, 18))];
      const eighths = Array.from({ length: 8 }, (_, i) => mean(i * 8 + 2, 29, 4, 6));
      const brightest = eighths.indexOf(Math.max(...eighths));
      if (eighths[brightest] > 128 && !seen.marks.includes(brightest)) seen.marks.push(brightest);
      if (performance.now() < end) video.requestVideoFrameCallback(frame);
      else { clearTimeout(timer); done(); }
    };
    video.requestVideoFrameCallback(frame);
  });
  return seen;
}

// Notes twenty times a second what the page says and what is true, until `recorded` asks for it: for each picture its state,
// its age, and when its last frame was shown; for the sound the highest level at `hz`.
function record(hz) {
  const log = { samples: [], taps: new Map(), context: new AudioContext() };
  window.__record = log;
  const bins = new Float32Array(2048);
  const level = (audio) => {
    if (!(audio.srcObject instanceof MediaStream)) return null;
    let analyser = log.taps.get(audio.srcObject);
    if (analyser === undefined) {
      analyser = log.context.createAnalyser();
      analyser.fftSize = 4096;
      analyser.smoothingTimeConstant = 0;
      log.context.createMediaStreamSource(audio.srcObject).connect(analyser);
      log.taps.set(audio.srcObject, analyser);
    }
    analyser.getFloatFrequencyData(bins);
    const db = bins[Math.round((hz * 4096) / log.context.sampleRate)];
    return Number.isFinite(db) ? db : null;
  };
  log.timer = setInterval(() => {
    const levels = [...document.querySelectorAll("audio")].map(level).filter((db) => db !== null);
    log.samples.push({
      at: Date.now(),
      connection: document.body.dataset.connection,
      sends: [document.body.dataset.mic, document.body.dataset.camera],
      banner: document.querySelector(".link-banner:not([hidden]) strong")?.textContent ?? "",
      db: levels.length > 0 ? Math.max(...levels) : null,
      tiles: [...document.querySelectorAll(".tile")].map((tile) => ({
        feed: tile.dataset.feed,
        state: tile.dataset.state,
        age: tile.dataset.ageMs === "" ? null : Number(tile.dataset.ageMs),
        lastFrame: Math.max(0, ...[...tile.querySelectorAll("video")].map((video) => video.lastFrame ?? 0)),
      })),
    });
    if (log.samples.length > 4000) log.samples.shift();
  }, 50);
}

async function recorded() {
  const log = window.__record;
  clearInterval(log.timer);
  await log.context.close();
  return log.samples;
}

// Connections by TURN alone, as behind a firewall that lets nothing else out. Notes which candidates are gathered and taken.
function relayOnly() {
  const Plain = window.RTCPeerConnection;
  const ways = (window.__ways = { candidates: [], gathered: 0, peers: [] });
  window.RTCPeerConnection = class extends Plain {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
      ways.peers.push(this);
      this.addEventListener("icecandidate", (e) => (e.candidate?.candidate ? ways.candidates.push(e.candidate.type) : (ways.gathered += 1)));
    }
  };
}

// The types of the candidates that media really takes.
async function waysTaken() {
  const { candidates, gathered, peers } = window.__ways;
  const taken = [];
  for (const peer of peers) {
    const stats = new Map([...(await peer.getStats())]);
    for (const pair of stats.values()) {
      if (pair.type === "candidate-pair" && pair.nominated) taken.push(stats.get(pair.localCandidateId)?.candidateType);
    }
  }
  return { candidates, gathered, taken };
}

const commands = {
  ...passkeyCommands(pages),
  async open({ page, url, width = 1280, height = 800, locale = "en-US", turnOnly = false }) {
    const p = await browser.newPage({ viewport: { width, height }, locale });
    await p.addInitScript(observe);
    if (turnOnly) await p.addInitScript(relayOnly);
    pages.set(page, p);
    const began = Date.now();
    await p.goto(url, { timeout: 60_000 });
    return { began };
  },
  // On to another address in the same tab.
  async go({ page, url }) {
    await pages.get(page).goto(url, { timeout: 60_000 });
    return true;
  },
  async wait({ page, selector, timeout = 20_000 }) {
    await pages.get(page).waitForSelector(selector, { timeout, state: "attached" });
    return true;
  },
  // The same without a touch: whatever else looks into a page counts as a click to its browser, after which sound is let out.
  async untouched({ page, selector, timeout = 20_000 }) {
    const session = await pages.get(page).context().newCDPSession(pages.get(page));
    const expression = `document.querySelector(${JSON.stringify(selector)}) !== null`;
    const end = Date.now() + timeout;
    while (!(await session.send("Runtime.evaluate", { expression, userGesture: false })).result.value) {
      if (Date.now() > end) throw new Error(`no ${selector} within ${timeout} ms`);
      await new Promise((done) => setTimeout(done, 50));
    }
    await session.detach();
    return true;
  },
  async tiles({ page }) {
    return pages.get(page).evaluate(() => [...document.querySelectorAll(".tile")].map((t) => ({ ...t.dataset })));
  },
  async log({ page }) {
    return pages.get(page).evaluate(() => window.__test);
  },
  async text({ page, selector }) {
    return pages.get(page).evaluate((s) => [...document.querySelectorAll(s)].map((e) => e.innerText), selector);
  },
  async marks({ page, ms }) {
    return pages.get(page).evaluate(marks, ms);
  },
  async spread({ page }) {
    return pages.get(page).evaluate(spread);
  },
  async click({ page, selector }) {
    await pages.get(page).click(selector, { timeout: 10_000 });
    return true;
  },
  // What the page says of itself: connection, layout, mic, camera, screen, sound, side, role; and its language.
  async body({ page }) {
    return pages.get(page).evaluate(() => ({ ...document.body.dataset, lang: document.documentElement.lang }));
  },
  async fill({ page, selector, text }) {
    await pages.get(page).fill(selector, text, { timeout: 10_000 });
    return true;
  },
  async address({ page }) {
    return pages.get(page).url();
  },
  async press({ page, key }) {
    await pages.get(page).keyboard.press(key);
    return true;
  },
  // Holds a key, or lets it go.
  async key({ page, key, down }) {
    await (down ? pages.get(page).keyboard.down(key) : pages.get(page).keyboard.up(key));
    return true;
  },
  async tones({ page, ms = 1_000, at = [] }) {
    return pages.get(page).evaluate(tones, { ms, at });
  },
  async look({ page, feed, ms = 1_000 }) {
    return pages.get(page).evaluate(look, { feed, ms });
  },
  async record({ page, hz }) {
    await pages.get(page).evaluate(record, hz);
    return true;
  },
  async recorded({ page }) {
    return pages.get(page).evaluate(recorded);
  },
  // Of a page that was opened with `turnOnly`.
  async ways({ page }) {
    return pages.get(page).evaluate(waysTaken);
  },
  async gathered({ page }) {
    await pages.get(page).waitForFunction(() => window.__ways?.gathered > 0, undefined, { timeout: 30_000 });
    return true;
  },
  // The browser's own network switch: HTTP and new sockets only, WebRTC goes on.
  async offline({ page, offline }) {
    await pages.get(page).context().setOffline(offline);
    return true;
  },
  async resize({ page, width, height }) {
    await pages.get(page).setViewportSize({ width, height });
    return pages.get(page).evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  },
  // What axe-core finds amiss: [] where nothing.
  async axe({ page }) {
    const source = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    await pages.get(page).evaluate(source);
    const { violations } = await pages.get(page).evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return violations.map((v) => ({ id: v.id, help: v.help, nodes: v.nodes.map((n) => n.target.join(" ")) }));
  },
  // The figures as the page saves them.
  async figures({ page }) {
    const p = pages.get(page);
    const [download] = await Promise.all([p.waitForEvent("download"), p.click(".stats .save")]);
    return JSON.parse(await readFile(await download.path(), "utf8"));
  },
  async screenshot({ page, path }) {
    await pages.get(page).screenshot({ path, timeout: 60_000 });
    return path;
  },
  async close({ page }) {
    await pages.get(page).close({ runBeforeUnload: false });
    pages.delete(page);
    return true;
  },
};

process.stdout.write(`${JSON.stringify({ ready: browser.version() })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { id, ok: await commands[command](rest) };
  } catch (e) {
    answer = { id, error: String(e?.message ?? e) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
