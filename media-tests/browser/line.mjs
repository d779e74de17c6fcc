// A Chromium views a feed (WHEP) several times at once, each time by a line of its own: media goes to the address that is given
// for it instead of the relay's. Prints what getStats() says of each as one line of JSON.
// `node line.mjs '{"origin", "invitation", "feed", "seconds", "lines": [{"name", "to": "HOST:PORT", "fec"}]}'`; with `fec` FlexFEC is
// asked for. Seconds count from the moment at which all show a picture; figures count from each line's beginning.
import { launch } from "./chromium.mjs";

const wanted = JSON.parse(process.argv[2]);
const fieldTrials = "WebRTC-FlexFEC-03-Advertised/Enabled/WebRTC-FlexFEC-03/Enabled/";
const browser = await launch(wanted.lines.some((line) => line.fec) ? { fieldTrials } : {});
const page = await browser.newPage();
await page.goto(wanted.origin);
try {
  console.log(JSON.stringify(await page.evaluate(run, wanted)));
} finally {
  await browser.close();
}

async function run({ invitation, feed, seconds, lines }) {
  const ask = async (path, token, type, body) => {
    const headers = { "Content-Type": type, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(path, { method: "POST", headers, body });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  const joined = await ask("/v1/join", "", "application/json", JSON.stringify({ invitation, name: "Viewer" }));
  const viewer = await joined.json();
  const session = viewer.session.session ?? viewer.session;

  // One way only: by UDP, to that address.
  const leadTo = (sdp, to) => {
    const [host, port] = to.split(":");
    const udp = sdp.replace(/a=candidate:.* tcp .*\r\n/g, "");
    return udp.replace(/(a=candidate:\S+ 1 udp \d+ )\S+ \d+/g, `$1${host} ${port}`);
  };
  // The offer as a browser makes it that knows no FlexFEC.
  const withoutFec = (sdp) => {
    const type = sdp.match(/a=rtpmap:(\d+) flexfec-03/)?.[1];
    if (!type) return sdp;
    const lines = sdp.split("\r\n").filter((l) => !new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):${type} `).test(l));
    return lines.map((l) => (l.startsWith("m=video ") ? l.replace(new RegExp(` ${type}\\b`), "") : l)).join("\r\n");
  };

  const open = async ({ name, to, fec }) => {
    const video = document.createElement("video");
    [video.muted, video.autoplay, video.playsInline, video.width] = [true, true, true, 160];
    document.body.append(video);
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.ontrack = (event) => (video.srcObject = event.streams[0]);
    await pc.setLocalDescription();
    const offer = fec ? pc.localDescription.sdp : withoutFec(pc.localDescription.sdp);
    const path = `/v1/sessions/${session}/feeds/${feed}/whep`;
    const answer = await (await ask(path, viewer.token, "application/sdp", offer)).text();
    await pc.setRemoteDescription({ type: "answer", sdp: leadTo(answer, to) });
    // Times of new pictures on the screen.
    const shown = [];
    const note = (now) => {
      shown.push(now);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    const agreed = answer.split("\r\n").filter((l) => /flexfec|FEC-FR/.test(l));
    return { name, pc, shown, offered: /flexfec-03/.test(offer), agreed };
  };

  const look = async ({ pc }) => {
    const all = [...(await pc.getStats()).values()];
    const media = all.find((s) => s.type === "inbound-rtp" && s.kind === "video") ?? {};
    const pair = all.find((s) => s.type === "candidate-pair" && s.nominated) ?? {};
    return { media, roundTrip: pair.currentRoundTripTime };
  };

  const opened = await Promise.all(lines.map(open));
  const patience = performance.now() + 15_000;
  for (const line of opened) {
    while (!((await look(line)).media.framesDecoded > 0)) {
      if (performance.now() > patience) throw new Error(`no picture by ${line.name}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  await new Promise((done) => setTimeout(done, seconds * 1000));

  const out = { seconds };
  for (const line of opened) {
    const { media, roundTrip } = await look(line);
    const gaps = line.shown.slice(1).map((t, i) => t - line.shown[i]);
    const { framesDecoded, framesDropped, keyFramesDecoded, freezeCount, totalFreezesDuration, packetsReceived } = media;
    const { packetsLost, nackCount, pliCount, retransmittedPacketsReceived = 0, bytesReceived, framesPerSecond } = media;
    const { fecPacketsReceived = 0, fecPacketsDiscarded = 0, totalDecodeTime } = media;
    out[line.name] = {
      framesDecoded, framesDropped, keyFramesDecoded, freezeCount, totalFreezesDuration, packetsReceived, packetsLost,
      nackCount, pliCount, retransmittedPacketsReceived, bytesReceived, framesPerSecond, fecPacketsReceived,
      fecPacketsDiscarded,
      roundTripMs: roundTrip * 1000,
      decodeMs: (totalDecodeTime * 1000) / framesDecoded,
      // Beyond what two frames of 30 a second are apart, and the longest.
      late: gaps.filter((g) => g > 90).length,
      longestGapMs: Math.max(0, ...gaps),
      offered: line.offered,
      agreed: line.agreed,
    };
    line.pc.close();
  }
  return out;
}
