// A relay inside the page, for looking at the page without one: it answers fetch and WebSocket as docs/API.md says, and its
// pictures and voices come over WebRTC from a second connection in the same page. Run before the page's own script.
// What it shows is steered by `window.__relay`. Not a test of the protocol: that is what the real relay is for.
(() => {
  const wall = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
  const began = wall();
  const setup = Object.assign({ role: "expert", feeds: ["endoscope", "room", "ultrasound"], people: true, ageMs: 110 }, window.__fake ?? {});
  const verbs = { local: ["view", "publish", "invite"], expert: ["view", "publish"], observer: ["view"] }[setup.role];
  const self = "p1self00aa";
  const scenes = new Map();
  const feeds = new Map();
  const legs = new Map();
  const sockets = new Set();
  let chatId = 0;
  const chat = [];
  const people = [
    person("p2sato00bb", "佐藤 健一", "local", "国立中央病院 手術室3", "or-3"),
    person(self, setup.name ?? "Dr. Maria Keller", setup.role, "University Hospital Ulm", "expert"),
    person("p3coord0cc", "Yuki Tanaka", "coordinator", "Telesurgery Office", "local"),
    ...(setup.control ? [person("p4moreau0", "Prof. Jean Moreau", "expert", "CHU de Strasbourg", "expert-2")] : []),
  ];
  if (!setup.people) people.splice(0, people.length, people[1]);

  function person(participant, name, role, organisation, realm) {
    return { participant, name, role, realm, organisation, since: began - 600e6 };
  }

  function descriptor(feed, kind, over) {
    return {
      feed, source: feed, view: "overview", kind, purpose: "room", codec: "H264", clock_rate: 90000, width: 1280, height: 720, fps: 30,
      max_bitrate: 8e6, budget_ms: 200, priority: 1, protected: false, replay: false, ...over,
    };
  }

  function announce(feed, over = {}, publisher = "p2sato00bb", state = "live") {
    const purpose = { endoscope: "scope", room: "room" }[feed] ?? "secondary";
    const info = { descriptor: descriptor(feed, "video", { purpose, ...over }), publisher, state, since: wall() };
    feeds.set(feed, info);
    tell({ type: "feed", feed: info });
  }

  function tell(event) {
    for (const socket of sockets) socket.deliver(event);
  }

  const sceneTrack = (feed) => scene(feed).stream.getVideoTracks()[0].clone();

  // A round field of view with tissue and an instrument that moves, cheap enough for three at a time. Layers are smaller.
  function scene(feed) {
    if (scenes.has(feed)) return scenes.get(feed);
    const canvas = document.createElement("canvas");
    const part = feed.endsWith("-quarter") ? 4 : feed.endsWith("-half") ? 2 : 1;
    [canvas.width, canvas.height] = [960 / part, 540 / part];
    const c = canvas.getContext("2d");
    c.scale(1 / part, 1 / part);
    const made = { canvas, frozen: false, stream: null };
    const kind = feed.replace(/-(half|quarter)$/, "");
    const round = kind === "endoscope";
    let n = 0;
    const draw = () => {
      if (made.frozen) return;
      n += 1;
      c.fillStyle = kind === "ultrasound" ? "#05070a" : "#161a1c";
      c.fillRect(0, 0, 960, 540);
      c.save();
      if (round) {
        c.fillStyle = "#000";
        c.fillRect(0, 0, 960, 540);
        c.beginPath();
        c.arc(480, 270, 262, 0, 7);
        c.clip();
      }
      const shade = c.createRadialGradient(480, 250, 40, 480, 270, 420);
      const colours = { endoscope: ["#f0a48c", "#8c2d24"], room: ["#b9c9cf", "#31424a"], ultrasound: ["#5d6b73", "#05070a"] }[kind] ?? ["#7ea0b0", "#20303a"];
      shade.addColorStop(0, colours[0]);
      shade.addColorStop(1, colours[1]);
      c.fillStyle = shade;
      c.fillRect(0, 0, 960, 540);
      c.strokeStyle = "rgb(90 10 10 / 40%)";
      c.lineWidth = 7;
      for (let i = 0; i < 7; i += 1) {
        c.beginPath();
        c.moveTo(120 + i * 110, 0);
        c.bezierCurveTo(40 + i * 130, 180, 260 + i * 80 + 12 * Math.sin(n / 20 + i), 330, 90 + i * 120, 540);
        c.stroke();
      }
      const x = 500 + 90 * Math.sin(n / 25);
      const y = 290 + 40 * Math.cos(n / 18);
      c.strokeStyle = "#d8dee1";
      c.lineWidth = 26;
      c.beginPath();
      c.moveTo(900, 520);
      c.lineTo(x, y);
      c.stroke();
      c.fillStyle = "#f6f8f9";
      c.beginPath();
      c.arc(x, y, 17, 0, 7);
      c.fill();
      c.restore();
    };
    draw();
    setInterval(draw, 40);
    made.stream = canvas.captureStream(25);
    scenes.set(feed, made);
    return made;
  }

  async function answerOf(offer, prepare) {
    const peer = new RTCPeerConnection();
    await peer.setRemoteDescription({ type: "offer", sdp: offer });
    prepare(peer);
    await peer.setLocalDescription();
    if (peer.iceGatheringState !== "complete") {
      await new Promise((done) => {
        peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
        setTimeout(done, 1000);
      });
    }
    return { peer, sdp: peer.localDescription.sdp };
  }

  const created = (id, sdp, kind) =>
    new Response(sdp, { status: 201, headers: { "content-type": "application/sdp", location: `/v1/sessions/s1/${kind}/${id}`, etag: `"${id}"` } });
  const problem = (status, name, detail, more = {}) =>
    new Response(JSON.stringify({ type: `urn:trocar:problem:${name}`, title: name, status, detail, ...more }), { status, headers: { "content-type": "application/problem+json" } });
  const json = (value, status = 200) => new Response(JSON.stringify(value), { status, headers: { "content-type": "application/json" } });

  let counter = 0;
  const log = { posts: [], patches: 0, deletes: 0, probes: [], acts: [] };

  // The gate: silent unless `setup.control` says how its register is. Ten STATUS a second, each with the answers that are due.
  const nobody = { participant: null, expert: null, set: { camera: false, instruments: false, energy: false } };
  const gate = { silent: false, deaf: false, lies: false, answered: -Infinity, refuses: "", since: performance.now(), control: {
    mode: "local", epoch: 41, ...nobody, stopped: [], alarms: [], colours: Array(4).fill("unmeasured"), figures: Array(5).fill(null), status_age_ms: 500,
  } };
  const expert = { participant: "p4moreau0", expert: "c0ffee0123456789".repeat(4), set: { camera: true, instruments: true, energy: false } };

  function change(over) {
    const withExpert = ["offered", "ready", "granting", "remote"].includes(over.mode);
    const rises = over.mode === "remote" || gate.control.mode === "remote" ? 1 : 0;
    const measured = { colours: Array(4).fill("green"), figures: [61_000, 84_000, 3_900, 300, 142_000] };
    Object.assign(gate.control, withExpert ? expert : nobody, { stopped: [], alarms: [] }, withExpert && over.mode !== "offered" ? measured : {}, { epoch: gate.control.epoch + rises }, over);
    gate.since = performance.now() - (over.since_ms ?? 0);
  }

  function act({ type, reason }) {
    relay.notice(type === "control_estop" ? "estop" : "request", `${people.find((p) => p.participant === self).name} (${self})`, reason);
    if (type === "control_estop" && gate.control.mode === "remote") relay.control({ mode: "hold", alarms: ["stop pressed on the network"] });
  }

  function status() {
    if (gate.silent || relay.down) return;
    for (const socket of sockets) {
      const answers = gate.lies ? ["0123456789abcdef"] : (socket.probes ?? []);
      socket.probes = [];
      gate.answered = Math.max(gate.answered, ...log.probes.filter((probe) => answers.includes(probe.nonce)).map((probe) => probe.at));
      socket.deliver({ type: "control", control: { ...gate.control, since_ms: Math.round(performance.now() - gate.since), answers } });
    }
  }

  const grant = () => ({ token: "t.e30.s", expires: wall() + 300e6, participant: self, name: people.find((p) => p.participant === self).name, session: "s1", realm: "expert", role: setup.role, grade: setup.grade ?? (setup.role === "expert" ? "energy" : "observe"), verbs });

  async function handle(path, query, method, body) {
    if (relay.down) throw new TypeError("network");
    if (path === "/v1/join" && setup.refuse) return problem(403, "invitation-invalid", "the invitation is unknown or expired: ask for a new link");
    if (path === "/v1/join" || path === "/v1/token") {
      const { name, organisation } = path === "/v1/join" ? JSON.parse(body) : {};
      const me = people.find((p) => p.participant === self);
      if (name) me.name = name;
      if (organisation) me.organisation = organisation;
      return json(grant());
    }
    if (path.endsWith("/ice-servers")) return json([]);
    if (method === "DELETE") {
      log.deletes += 1;
      const id = path.split("/").pop();
      legs.get(id)?.peer.close();
      for (const feed of legs.get(id)?.feeds ?? []) {
        feeds.delete(feed);
        tell({ type: "feed_removed", feed });
      }
      legs.delete(id);
      return new Response(null, { status: 200 });
    }
    if (method === "PATCH") {
      log.patches += 1;
      const id = path.split("/").pop();
      const leg = path.includes("/legs/") ? legs.get(id) : undefined;
      if (leg === undefined) return problem(404, "leg-missing", "no such leg");
      const { feed } = JSON.parse(body);
      const [from, to] = [feeds.get(leg.feed)?.descriptor, feeds.get(feed)?.descriptor];
      if (to === undefined) return problem(404, "feed-missing", "no such feed");
      if (from.source !== to.source || from.codec !== to.codec) return problem(406, "not-acceptable", "another source or codec");
      // Its key frame takes a while.
      setTimeout(async () => {
        await leg.peer.getSenders()[0].replaceTrack(sceneTrack(feed));
        leg.feed = feed;
        tell({ type: "switched", leg: id, feed });
      }, 150);
      return new Response(null, { status: 202 });
    }
    const id = `leg${(counter += 1)}`;
    log.posts.push({ path, query: String(query) });
    if (path.endsWith("/voices/whep")) {
      const { peer, sdp } = await answerOf(body, (peer) => {
        const context = new AudioContext();
        const out = context.createMediaStreamDestination();
        const tone = context.createOscillator();
        tone.frequency.value = 440;
        tone.connect(out);
        tone.start();
        peer.getTransceivers().forEach((t, i) => {
          t.direction = "sendonly";
          if (i === 0) void t.sender.replaceTrack(out.stream.getAudioTracks()[0]);
        });
      });
      legs.set(id, { peer });
      tell({ type: "voices", leg: id, slots: peer.getTransceivers().map((t, i) => ({ mid: t.mid, feed: i === 0 ? "voice-p2sato00" : null })) });
      return created(id, sdp, "whep");
    }
    if (path.endsWith("/whip")) {
      const { peer, sdp } = await answerOf(body, (peer) => peer.getTransceivers().forEach((t) => (t.direction = "recvonly")));
      const own = query.get("audio_feed") ?? query.get("feed");
      const kind = query.has("audio_feed") ? "audio" : "video";
      legs.set(id, { peer, feeds: [own] });
      feeds.set(own, { descriptor: descriptor(own, kind, { purpose: query.get("purpose") ?? "voice" }), publisher: self, state: "live", since: wall() });
      tell({ type: "feed", feed: feeds.get(own) });
      return created(id, sdp, "whip");
    }
    const feed = /\/feeds\/([^/]+)\/whep$/.exec(path)?.[1];
    if (feed === undefined || !feeds.has(feed)) return problem(404, "feed-missing", "no such feed");
    if (feeds.get(feed).descriptor.codec === "H265") return problem(406, "not-acceptable", "the offer has no H265", { alternatives: setup.alternatives ?? ["endoscope"] });
    const { peer, sdp } = await answerOf(body, (peer) => {
      const [transceiver] = peer.getTransceivers();
      transceiver.direction = "sendonly";
      void transceiver.sender.replaceTrack(sceneTrack(feed));
    });
    legs.set(id, { peer, feed });
    return created(id, sdp, "whep");
  }

  const plain = window.fetch.bind(window);
  window.fetch = async (input, init = {}) => {
    const url = new URL(String(input?.url ?? input), location.href);
    if (!url.pathname.startsWith("/v1/")) return plain(input, init);
    return handle(url.pathname, url.searchParams, init.method ?? "GET", init.body);
  };

  class FakeSocket extends EventTarget {
    static OPEN = 1;
    readyState = 0;
    constructor() {
      super();
      setTimeout(() => {
        if (relay.down) return;
        this.readyState = 1;
        this.onopen?.();
      }, 20);
    }
    deliver(event) {
      if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify(event) });
    }
    send(data) {
      if (relay.down) return;
      const event = JSON.parse(data);
      if (event.type === "hello") {
        sockets.add(this);
        const session = { session: "s1", title: setup.title ?? "腹腔鏡下胃切除術 – Laparoscopic gastrectomy", participants: people, feeds: [...feeds.values()] };
        this.deliver({ type: "welcome", participant: self, now: wall(), session, chat });
      } else if (event.type === "clock") {
        const t1 = wall();
        setTimeout(() => !relay.down && this.deliver({ type: "clock_reply", t0: event.t0, t1, t2: t1 }), 0);
      } else if (event.type === "chat") {
        relay.say(self, event.text);
      } else if (event.type === "control_probe") {
        log.probes.push({ nonce: event.nonce, at: performance.now() });
        this.probes = [...(this.probes ?? []), event.nonce].slice(-32);
      } else if (event.type === "control_estop" || event.type === "control_request") {
        log.acts.push({ ...event, at: performance.now() });
        if (!gate.deaf) setTimeout(() => (gate.refuses ? this.deliver({ type: "refused", what: event.type, detail: gate.refuses }) : act(event)), 30);
      }
    }
    close() {
      this.readyState = 3;
      sockets.delete(this);
    }
  }
  window.WebSocket = FakeSocket;

  setInterval(() => {
    for (const [leg, { feed }] of legs) {
      const tile = feed && document.querySelector(`.tile[data-feed="${feed}"]`);
      if (!tile?.dataset.rtp || scene(feed).frozen) continue;
      const capture = wall() - (setup.ages?.[feed] ?? setup.ageMs) * 1000;
      tell({ type: "capture", leg, rtp: Number(tile.dataset.rtp), clock_rate: 90000, capture, received: capture + 9000, uncertainty_us: 900 });
    }
  }, 100);

  const relay = {
    down: false,
    gate,
    /** The register changes: a mode, and what else is given. */
    control(over) {
      change(over);
      status();
    },
    tell,
    notice(what, person, reason) {
      tell({ type: "control_notice", what, person, reason });
    },
    log,
    announce,
    remove(feed) {
      feeds.delete(feed);
      tell({ type: "feed_removed", feed });
    },
    freeze(feed, frozen = true) {
      scene(feed).frozen = frozen;
    },
    state(feed, state) {
      Object.assign(feeds.get(feed), { state, since: wall() });
      tell({ type: "feed", feed: feeds.get(feed) });
    },
    say(participant, text) {
      const message = { id: (chatId += 1), participant, name: people.find((p) => p.participant === participant)?.name ?? participant, text, at: wall() };
      chat.push(message);
      tell({ type: "chat", message });
    },
    speak(names) {
      tell({ type: "speaking", feeds: names });
    },
    voice() {
      feeds.set("voice-p2sato00", { descriptor: descriptor("voice-p2sato00", "audio", { purpose: "voice" }), publisher: "p2sato00bb", state: "live", since: wall() });
      tell({ type: "feed", feed: feeds.get("voice-p2sato00") });
    },
    /** That picture comes in three layers from here on. */
    layers(feed) {
      const whole = feeds.get(feed).descriptor;
      ["", "-half", "-quarter"].forEach((suffix, i) => {
        const size = { width: 960 / 2 ** i, height: 540 / 2 ** i, max_bitrate: 8e6 / 2 ** i };
        announce(feed + suffix, { ...whole, ...size, feed: feed + suffix, source: feed, view: `overview${suffix}` });
      });
    },
    /** The network is gone: nothing is answered, no socket closes by itself, no packet of media comes. */
    lose() {
      relay.down = true;
      for (const { peer } of legs.values()) peer.close();
      legs.clear();
      sockets.clear();
    },
    back() {
      relay.down = false;
    },
  };
  window.__relay = relay;
  if (setup.control) {
    change(setup.control);
    setInterval(status, 100);
  }
  for (const feed of setup.feeds) announce(feed);
  for (const feed of setup.layered ?? []) relay.layers(feed);
  if (setup.voice !== false && setup.people) relay.voice();
})();
