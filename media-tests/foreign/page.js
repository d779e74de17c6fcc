// What Chromium and Firefox run as WHIP publisher and WHEP viewer of the test card (card.py describes it). No framework
// and nothing of Trocar's own page: a second reading of RFC 9725.
"use strict";

const WIDTH = 320, HEIGHT = 240, FPS = 15, COLUMNS = 8, STEPS_PER_SECOND = 4;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function publish({ url, token, video, audio, hz, seconds }) {
  const pc = new RTCPeerConnection();
  const closing = [];
  if (video) {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    document.body.append(canvas);
    const timer = setInterval(() => draw(canvas.getContext("2d")), 1000 / FPS);
    closing.push(() => clearInterval(timer));
    draw(canvas.getContext("2d"));
    const [track] = canvas.captureStream(FPS).getVideoTracks();
    prefer(pc.addTransceiver(track, { direction: "sendonly" }), RTCRtpSender, "video", video);
  }
  if (audio) {
    const context = new AudioContext();
    const oscillator = new OscillatorNode(context, { frequency: hz });
    const out = context.createMediaStreamDestination();
    oscillator.connect(out);
    oscillator.start();
    pc.addTransceiver(out.stream.getAudioTracks()[0], { direction: "sendonly" });
    closing.push(() => context.close());
  }
  const resource = await connect(pc, url, token);
  if (resource.error) return resource;
  tell({ event: "publishing", location: resource.location });
  if (video && !(await encodes(pc))) {
    const reason = `connected, but its encoder has given no ${video} in 15 s`;
    return { event: "error", error: true, reason, deleted: await remove(resource, token), sdp: resource.sdp };
  }
  await wait(seconds * 1000);
  const sent = {};
  for (const s of (await pc.getStats()).values()) {
    if (s.type === "outbound-rtp") {
      sent[s.kind] = { packets: s.packetsSent, frames: s.framesEncoded, width: s.frameWidth, codec: s.codecId };
    } else if (s.type === "remote-inbound-rtp") (sent[s.kind] ??= {}).reported_lost = s.packetsLost;
  }
  for (const c of closing) c();
  return { event: "result", sent, deleted: await remove(resource, token), sdp: resource.sdp };
}

async function encodes(pc) {
  for (let i = 0; i < 75; i++) {
    const stats = [...(await pc.getStats()).values()];
    if (stats.some((s) => s.type === "outbound-rtp" && s.kind === "video" && s.framesEncoded > 0)) return true;
    await wait(200);
  }
  return false;
}

async function view({ url, token, video, audio, seconds }) {
  const pc = new RTCPeerConnection();
  if (video) prefer(pc.addTransceiver("video", { direction: "recvonly" }), RTCRtpReceiver, "video", video);
  if (audio) pc.addTransceiver("audio", { direction: "recvonly" });
  const picture = { frames: 0, columns: new Set() };
  let sound = null;
  pc.ontrack = ({ track }) => {
    if (track.kind === "video") watch(track, picture);
    else sound = listen(track);
  };
  const resource = await connect(pc, url, token);
  if (resource.error) return resource;
  await wait(seconds * 1000);
  const stats = [...(await pc.getStats()).values()].filter((s) => s.type === "inbound-rtp");
  const packets = Object.fromEntries(stats.map((s) => [s.kind, s.packetsReceived]));
  const lost = Object.fromEntries(stats.map((s) => [s.kind, s.packetsLost]));
  const decoded = Object.fromEntries(stats.filter((s) => s.kind === "video").map((s) => [s.kind, s.framesDecoded]));
  const heard = sound && packets.audio ? { frames: packets.audio, ...sound() } : null;
  const seen = picture.frames ? { ...picture, columns: picture.columns.size } : null;
  const connection = pc.connectionState;
  return {
    event: "result", video: seen, audio: heard, packets, lost, decoded, connection, sdp: resource.sdp,
    deleted: await remove(resource, token),
  };
}

// Offers, posts and waits for the connection. {error} where the server refuses or no connection comes.
async function connect(pc, url, token) {
  await pc.setLocalDescription(await pc.createOffer());
  const gathered = new Promise((resolve) => {
    const look = () => pc.iceGatheringState === "complete" && resolve();
    pc.addEventListener("icegatheringstatechange", look);
    look();
  });
  await Promise.race([gathered, wait(3000)]);
  const offer = pc.localDescription.sdp;
  const headers = { "Content-Type": "application/sdp", Authorization: `Bearer ${token}` };
  const answer = await fetch(url, { method: "POST", headers, body: offer });
  const sdp = await answer.text();
  if (answer.status !== 201) {
    pc.close();
    return { event: "error", error: true, status: answer.status, reason: `${answer.status} ${sdp.slice(0, 400)}` };
  }
  const location = new URL(answer.headers.get("Location"), url).href;
  const resource = { pc, location, etag: answer.headers.get("ETag"), sdp: { offer, answer: sdp } };
  await pc.setRemoteDescription({ type: "answer", sdp });
  const connected = new Promise((resolve) => {
    const look = () => (pc.connectionState === "connected" || pc.connectionState === "failed") && resolve();
    pc.addEventListener("connectionstatechange", look);
    look();
  });
  await Promise.race([connected, wait(15_000)]);
  if (pc.connectionState === "connected") return resource;
  const reason = `the connection is ${pc.connectionState}, ICE ${pc.iceConnectionState}`;
  return { event: "error", error: true, reason, deleted: await remove(resource, token), sdp: resource.sdp };
}

async function remove({ pc, location }, token) {
  const answer = await fetch(location, { method: "DELETE", headers: { Authorization: `Bearer ${token}` } });
  pc.close();
  return answer.status;
}

// Only the wanted codec is offered.
function prefer(transceiver, side, kind, codec) {
  const all = side.getCapabilities(kind).codecs;
  const wanted = all.filter((c) => c.mimeType.toLowerCase() === `${kind}/${codec.toLowerCase()}`);
  if (!wanted.length) throw new Error(`this browser has no ${codec}: ${[...new Set(all.map((c) => c.mimeType))]}`);
  transceiver.setCodecPreferences(wanted);
}

function draw(context) {
  const grey = (v) => (context.fillStyle = `rgb(${v},${v},${v})`);
  const strip = (HEIGHT * 3) / 4;
  grey(64);
  context.fillRect(0, 0, WIDTH / 2, strip);
  grey(192);
  context.fillRect(WIDTH / 2, 0, WIDTH / 2, strip);
  grey(0);
  context.fillRect(0, strip, WIDTH, HEIGHT - strip);
  grey(255);
  const column = Math.floor((performance.now() / 1000) * STEPS_PER_SECOND) % COLUMNS;
  context.fillRect((column * WIDTH) / COLUMNS, strip, WIDTH / COLUMNS, HEIGHT - strip);
}

function watch(track, picture) {
  const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
  video.srcObject = new MediaStream([track]);
  document.body.append(video);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const look = () => {
    const [w, h] = [video.videoWidth, video.videoHeight];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.drawImage(video, 0, 0);
    const mean = (x0, x1, y0, y1) => {
      const [x, y] = [Math.floor(w * x0), Math.floor(h * y0)];
      const { data } = context.getImageData(x, y, Math.max(1, Math.floor(w * (x1 - x0))), Math.max(1, Math.floor(h * (y1 - y0))));
      let sum = 0;
      for (let i = 1; i < data.length; i += 4) sum += data[i];
      return (sum * 4) / data.length;
    };
    picture.frames += 1;
    [picture.width, picture.height] = [w, h];
    picture.greys = [mean(0.05, 0.45, 0.05, 0.7), mean(0.55, 0.95, 0.05, 0.7)].map(Math.round);
    const columns = Array.from({ length: COLUMNS }, (_, i) => mean((i + 0.25) / COLUMNS, (i + 0.75) / COLUMNS, 0.8, 0.95));
    const order = [...columns].sort((a, b) => a - b);
    if (order[COLUMNS - 1] > 150 && order[COLUMNS - 2] < 100) picture.columns.add(columns.indexOf(order[COLUMNS - 1]));
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}

// A function that says what has been heard at the loudest moment: a stream's first blocks are silent.
function listen(track) {
  // Chromium hands a remote track to Web Audio only while an element plays it too.
  const element = Object.assign(new Audio(), { muted: true, srcObject: new MediaStream([track]) });
  element.play().catch(() => {});
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 16_384, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(element.srcObject).connect(analyser);
  const bins = new Float32Array(analyser.frequencyBinCount);
  const heard = { hz: 0, level: -Infinity };
  setInterval(() => {
    analyser.getFloatFrequencyData(bins);
    const loudest = bins.reduce((best, v, i) => (v > bins[best] ? i : best), 0);
    if (bins[loudest] < heard.level) return;
    heard.hz = Math.round((loudest * context.sampleRate) / analyser.fftSize);
    heard.level = bins[loudest];
  }, 200);
  return () => ({ hz: heard.hz, level: Math.max(-999, Math.round(heard.level)), context: context.state });
}

// Replaced by whoever drives the browser, to get lines out before the end.
var tell = globalThis.tell ?? (() => {});
