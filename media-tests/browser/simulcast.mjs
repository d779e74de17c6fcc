// A Chromium publishes its camera in three simulcast layers (WHIP), and views it (WHEP) on one leg that goes from layer to
// layer; then the page shows it as one picture, whose layer follows the size of its tile or what the person chooses. Prints what it
// saw as one line of JSON. `node simulcast.mjs ORIGIN EXPERT_INVITATION OBSERVER_INVITATION PAGE_LINK SCREENSHOT`.
import { launch } from "./chromium.mjs";

const [, , origin, expert, observer, link, screenshot] = process.argv;
const browser = await launch({});
const tab = async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 760 } });
  await page.addInitScript(tools);
  return page;
};
const [publisher, viewer, page] = [await tab(), await tab(), await tab()];
await Promise.all([publisher.goto(origin), viewer.goto(origin)]);
try {
  const published = await publisher.evaluate(publish, expert);
  const seen = await viewer.evaluate(watch, { observer, session: published.session });
  seen.answer = published.answer;
  seen.page = await lookAtPage(page);
  await publisher.evaluate(unpublish);
  seen.left = await viewer.evaluate(feedsLeft);
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}

/** One tile, one leg, one connection, whichever layer it shows. */
async function lookAtPage(page) {
  const requests = [];
  page.on("request", (r) => /\/(whep|legs\/)/.test(r.url()) && requests.push(`${r.method()} ${r.url().replace(/.*\/(legs|feeds)\//, "$1/")}`));
  await page.goto(`${link}&name=Viewer&join=1`);
  const at = (feed, timeout = 15_000) =>
    page.waitForSelector(`.tile[data-feed="${feed}"][data-state="live"]:not([data-age-kind="unknown"])`, { timeout, state: "attached" });
  const steps = [];
  const step = async (what, feed, act) => {
    const began = Date.now();
    await act();
    await at(feed);
    await page.waitForTimeout(700);
    const now = await page.evaluate(() => {
      const [tile, ...others] = document.querySelectorAll(".tile");
      const video = tile.querySelector("video");
      return { feed: tile.dataset.feed, source: tile.dataset.source, others: others.length, state: tile.dataset.state, width: video.videoWidth, frames: Number(tile.dataset.frames) };
    });
    steps.push({ what, ...now, afterMs: Date.now() - began - 700 });
  };
  await step("large", "cam", () => undefined);
  const options = await page.$$eval(".tile .view option", (list) => list.map((o) => o.textContent));
  await page.screenshot({ path: screenshot });
  await step("small", "cam-half", () => page.setViewportSize({ width: 500, height: 620 }));
  await step("chosen", "cam-quarter", () => page.selectOption(".tile .view", "cam-quarter"));
  // Chosen is chosen: a tile of any size keeps it.
  await step("chosen and large", "cam-quarter", async () => {
    await page.setViewportSize({ width: 1280, height: 760 });
    await page.waitForTimeout(2000);
  });
  await step("automatic again", "cam", () => page.selectOption(".tile .view", ""));
  return { steps, options, requests };
}

// In every tab that speaks to the relay by itself.
function tools() {
  window.ask = async (path, method, token, type, body) => {
    const headers = { "Content-Type": type, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(path, { method, headers, body });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  window.join = async (invitation, name) =>
    (await ask("/v1/join", "POST", "", "application/json", JSON.stringify({ invitation, name }))).json();
  window.negotiate = async (pc, path, token) => {
    await pc.setLocalDescription();
    const response = await ask(path, "POST", token, "application/sdp", pc.localDescription.sdp);
    const sdp = await response.text();
    await pc.setRemoteDescription({ type: "answer", sdp });
    return { sdp, location: response.headers.get("location") };
  };
}

async function publish(expert) {
  const me = await window.join(expert, "Publisher");
  const session = me.session.session ?? me.session;
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 960, height: 540, frameRate: 15 } });
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const { sender } = pc.addTransceiver(stream.getVideoTracks()[0], {
    direction: "sendonly",
    sendEncodings: [
      { rid: "q", scaleResolutionDownBy: 4, maxBitrate: 150_000 },
      { rid: "h", scaleResolutionDownBy: 2, maxBitrate: 400_000 },
      { rid: "f", maxBitrate: 1_000_000 },
    ],
  });
  // On a busy machine there are fewer pictures, not smaller ones: layers are told apart by their size.
  await sender.setParameters({ ...sender.getParameters(), degradationPreference: "maintain-resolution" });
  const { sdp, location } = await window.negotiate(pc, `/v1/sessions/${session}/whip?feed=cam&max_bitrate=3000000`, me.token);
  window.published = { pc, location, token: me.token };
  return { session, answer: sdp.split("\r\n").filter((l) => /^a=(rid|simulcast)/.test(l)) };
}

async function unpublish() {
  const { pc, location, token } = window.published;
  await window.ask(location, "DELETE", token, "application/json");
  pc.close();
}

async function feedsLeft() {
  const { session, token } = window.viewer;
  return (await (await window.ask(`/v1/sessions/${session}/feeds`, "GET", token, "application/json")).json()).length;
}

async function watch({ observer, session }) {
  const PATIENCE_MS = 30_000;
  const { ask, join, negotiate } = window;
  const until = async (what, good) => {
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
      if (await good()) return;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`${what} did not come; frames: ${JSON.stringify(frames.slice(-3))}`);
  };
  const frames = [];
  const inbound = async (pc) => [...(await pc.getStats()).values()].find((s) => s.type === "inbound-rtp" && s.kind === "video");

  const viewer = await join(observer, "Viewer");
  window.viewer = { session, token: viewer.token };
  // Shows a feed and keeps note of its pictures.
  const view = async (feed, into) => {
    const video = document.createElement("video");
    [video.muted, video.autoplay, video.playsInline] = [true, true, true];
    document.body.append(video);
    const frame = (now, meta) => {
      into.push({ at: now, width: meta.width, rtp: meta.rtpTimestamp });
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.ontrack = (event) => (video.srcObject = event.streams[0]);
    const answer = await negotiate(pc, `/v1/sessions/${session}/feeds/${feed}/whep`, viewer.token);
    return { pc, leg: answer.location.split("/").at(-1) };
  };
  // The relay knows what a layer is once its first packet came.
  const { pc, leg } = await view("cam", frames);

  const widthIs = (width) => () => frames.at(-1)?.width === width;
  await until("the largest layer", widthIs(960));
  // One on each layer who never switches: what the browser's encoder or the machine holds up, it holds up for them too.
  const still = { cam: [], "cam-half": [], "cam-quarter": [] };
  const others = [];
  for (const [feed, list] of Object.entries(still)) others.push((await view(feed, list)).pc);
  await until("every layer of those who stay", () => Object.values(still).every((list) => list.length > 0));
  await new Promise((done) => setTimeout(done, 3000));
  const freezesOf = async (pcs) => (await Promise.all(pcs.map(inbound))).reduce((sum, { freezeCount }) => sum + freezeCount, 0);
  const [before, freezesBefore] = [await inbound(pc), await freezesOf(others)];
  const started = frames.length;
  // The longest time without a picture that reaches into the time between two moments.
  const longest = (list, from, to) =>
    Math.max(0, ...list.slice(1).map((f, i) => (f.at >= from && list[i].at <= to ? f.at - list[i].at : 0)));
  const switches = [];
  let [shown, was] = ["cam", before];
  for (const [feed, width] of [["cam-half", 480], ["cam-quarter", 240], ["cam", 960], ["cam-quarter", 240]]) {
    const asked = performance.now();
    const path = `/v1/sessions/${session}/legs/${leg}`;
    await ask(path, "PATCH", viewer.token, "application/json", JSON.stringify({ feed }));
    await until(feed, widthIs(width));
    const there = performance.now();
    await new Promise((done) => setTimeout(done, 2000));
    const gaps = [shown, feed].map((layer) => longest(still[layer], asked - 300, there + 800));
    const now = await inbound(pc);
    const [received, decoded, keys, plis] = ["framesReceived", "framesDecoded", "keyFramesDecoded", "pliCount"].map((n) => now[n] - was[n]);
    was = now;
    switches.push({ feed, after: there - asked, gap: longest(frames, asked, there + 500), still: Math.max(...gaps), received, decoded, keys, plis });
    shown = feed;
  }
  const [after, freezesAfter] = [await inbound(pc), await freezesOf(others)];
  const seen = frames.slice(started - 1);
  const back = seen.slice(1).filter((f, i) => ((f.rtp - seen[i].rtp) | 0) <= 0).length;
  const feeds = await (await ask(`/v1/sessions/${session}/feeds`, "GET", viewer.token, "application/json")).json();
  // What nobody has: a layer of that name, and a leg of somebody else.
  const refused = await ask(`/v1/sessions/${session}/legs/${leg}`, "PATCH", viewer.token, "application/json", '{"feed":"none"}')
    .then(() => "taken", (error) => error.message);
  const result = {
    feeds: feeds.map(({ descriptor: d }) => ({ feed: d.feed, view: d.view, source: d.source, width: d.width })),
    switches,
    frames: seen.length - 1,
    back,
    freezes: after.freezeCount - before.freezeCount,
    stillFreezes: freezesAfter - freezesBefore,
    lost: after.packetsLost - before.packetsLost,
    decoded: after.framesDecoded - before.framesDecoded,
    refused,
  };
  [pc, ...others].forEach((each) => each.close());
  return result;
}
