// A Chromium that takes FlexFEC-03 views a feed (WHEP), through an emulator where its port is given: media then goes to that
// port of 127.0.0.1 instead of the relay's. Prints what it saw as one line of JSON.
// `node flexfec.mjs ORIGIN OBSERVER_INVITATION FEED SECONDS [EMULATOR_PORT]`.
import { launch } from "./chromium.mjs";

const [, , origin, observer, feed, seconds, port] = process.argv;
const browser = await launch({ fieldTrials: "WebRTC-FlexFEC-03-Advertised/Enabled/WebRTC-FlexFEC-03/Enabled/" });
const page = await browser.newPage();
await page.goto(origin);
try {
  console.log(JSON.stringify(await page.evaluate(run, { observer, feed, seconds: Number(seconds), port })));
} finally {
  await browser.close();
}

async function run({ observer, feed, seconds, port }) {
  const ask = async (path, token, type, body) => {
    const headers = { "Content-Type": type, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(path, { method: "POST", headers, body });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  const joined = await ask("/v1/join", "", "application/json", JSON.stringify({ invitation: observer, name: "Viewer" }));
  const viewer = await joined.json();
  const session = viewer.session.session ?? viewer.session;
  const video = document.createElement("video");
  [video.muted, video.autoplay, video.playsInline] = [true, true, true];
  document.body.append(video);
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  pc.addTransceiver("video", { direction: "recvonly" });
  pc.ontrack = (event) => (video.srcObject = event.streams[0]);
  await pc.setLocalDescription();
  const offer = pc.localDescription.sdp;
  let answer = await (await ask(`/v1/sessions/${session}/feeds/${feed}/whep`, viewer.token, "application/sdp", offer)).text();
  if (port) {
    // One way only: by UDP, through the emulator.
    answer = answer.replace(/a=candidate:.* tcp .*\r\n/g, "");
    answer = answer.replace(/(a=candidate:\S+ 1 udp \d+ )\S+ \d+/, `$1127.0.0.1 ${port}`);
  }
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const stats = [...(await pc.getStats()).values()].find((s) => s.type === "inbound-rtp" && s.kind === "video");
  pc.close();
  const { framesDecoded, freezeCount, packetsReceived, packetsLost, nackCount } = stats;
  const { fecPacketsReceived = 0, fecPacketsDiscarded = 0, retransmittedPacketsReceived = 0 } = stats;
  const fec = answer.split("\r\n").filter((l) => /flexfec|FEC-FR/.test(l));
  return {
    offered: /flexfec-03/.test(offer), fec, framesDecoded, freezeCount, packetsReceived, packetsLost, nackCount,
    fecPacketsReceived, fecPacketsDiscarded, retransmittedPacketsReceived,
  };
}
