import { language, setLanguage, tr } from "./words.js";

// The gate's page. Shows what the gate says, and only while it says it; sends acts, and signs of life while it is really seen.

const BEAT_MS = 200;
const OLD_MS = 500; // older than this is "control unknown, hands off"
const ESC_MS = 1500;

const $ = (id) => document.getElementById(id);
const secret = takeSecret();
let socket = null;
let model = null;
let sent = []; // [number, when] of signs of life that are not answered yet, oldest first
let count = 0;
let seenAt = -Infinity; // when the newest answered one was sent: nothing on the screen is younger
let beatAt = -Infinity;
let escAt = -Infinity;
let again = { act: "", at: -Infinity }; // what wants to be pressed twice
let saidAt = -Infinity;
let stamp = ""; // of the state that is shown
let answer = null; // the gate's newest, of whichever console
let offering = false;
let hidden = false;

// The secret comes in the link's fragment; it leaves the address bar, and stays with this tab so that a reload works.
function takeSecret() {
  const fresh = location.hash.slice(1);
  if (fresh) {
    sessionStorage.setItem("secret", fresh);
    history.replaceState(null, "", "/");
  }
  return sessionStorage.getItem("secret") ?? "";
}

// Live

function connect() {
  socket = new WebSocket(`ws://${location.host}/live`);
  socket.onopen = () => socket.send(JSON.stringify({ secret }));
  socket.onmessage = (event) => {
    const shown = JSON.parse(event.data);
    model = shown.model;
    while (sent.length > 0 && sent[0][0] <= shown.answers) {
      seenAt = Math.max(seenAt, sent.shift()[1]);
    }
    render();
  };
  socket.onclose = () => {
    sent = [];
    setTimeout(connect, 500);
  };
}

const age = () => performance.now() - seenAt;
const isOld = () => model === null || age() > OLD_MS;

// Runs each time the page is painted, which a tab in the background is not: so a page that nobody can see sends no sign of life.
function paint(now) {
  if (document.visibilityState === "visible" && now - beatAt >= BEAT_MS && socket?.readyState === WebSocket.OPEN) {
    beatAt = now;
    count += 1;
    sent.push([count, performance.now()]);
    if (sent.length > 50) sent.shift();
    socket.send(JSON.stringify({ alive: count, fresh: !isOld() }));
  }
  renderAge();
  requestAnimationFrame(paint);
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") hidden = true;
  else if (hidden) {
    hidden = false;
    say(false, "This page was in the background: it was no live console meanwhile.");
  }
});

// Acts

async function act(name, more = {}) {
  say(true, `${name.toUpperCase()} ...`);
  try {
    const answer = await fetch("/act", {
      method: "POST",
      headers: { "content-type": "application/json", "x-trocar-console": secret },
      body: JSON.stringify({ act: name, ...more }),
      signal: AbortSignal.timeout(2000),
    });
    const text = await answer.text();
    const told = text.startsWith("{") ? JSON.parse(text) : { done: false, text };
    say(told.done, told.text);
    return told.done;
  } catch {
    say(false, `${name.toUpperCase()}: NO ANSWER. Use the pedal or the hardware override.`);
    return false;
  }
}

// What ends something for good.
const TWICE = {
  close: "CLOSE ends the session for good",
  "withdraw-consent": "END CONSENT: no grant until a new document comes",
};

const take = () => act("take");
const estop = () => act("estop");

// Everything but TAKE and ESTOP counts only for the state that is on the screen.
async function press(line) {
  if (isOld()) return say(false, `${line.label} did not count: control unknown.`);
  if (line.act === "offer") return openOffer(true);
  const warning = TWICE[line.act];
  if (warning && (again.act !== line.act || performance.now() - again.at > 6000)) {
    again = { act: line.act, at: performance.now() };
    return say(false, `${warning}: press it again.`);
  }
  if (warning && performance.now() - again.at < 1000) return;
  again = { act: "", at: -Infinity };
  return act(line.act, { seen: model.stamp });
}

function say(good, text) {
  saidAt = performance.now();
  $("answer").hidden = false;
  $("answer").className = good ? "" : "bad";
  put("answer", good ? text : `! ${text}`);
}

// Shown

function render() {
  document.body.dataset.control = isOld() ? "unknown" : model.control;
  put("word", isOld() ? "UNKNOWN" : model.word);
  put("headline", isOld() ? "CONTROL: UNKNOWN - hands off" : model.headline);
  put("detail", isOld() ? unknown() : model.detail);
  put("step", !isOld() && model.step ? `Step: ${model.step}` : "");
  put("state", model?.state ?? "-");
  put("since", model?.since ?? "-");
  put("epoch", String(model?.epoch ?? "-"));
  const motion = isOld() ? null : model.motion;
  $("motion").hidden = !motion;
  put("motion", motion?.text ?? "");
  $("motion").className = motion?.runs ? "" : "stopped";
  const countdown = isOld() ? null : model.countdown;
  $("countdown").hidden = !countdown;
  put("countdown-text", countdown?.text ?? "");
  $("countdown-bar").style.width = `${countdown ? Math.min(100, (100 * countdown.left_ms) / countdown.of_ms) : 0}%`;
  if (model) renderLists();
}

function unknown() {
  const why = secret ? "This page has no word from the gate." : "Open the link that the gate printed at its start.";
  return `${tr(why)} ${tr("TAKE and ESTOP are sent all the same; the pedal and the hardware override work without this page.")}`;
}

function renderAge() {
  const old = isOld();
  if (document.body.classList.toggle("old", old) && document.body.dataset.control !== "unknown") render();
  put("life", old ? (Number.isFinite(seenAt) ? `OLD: ${(age() / 1000).toFixed(1)} s` : "not connected") : `live, ${Math.round(age())} ms`);
}

function renderLists() {
  fill("alarms", model.alarms, (a) => item(["b", a.title], ["span", ": "], ["span", a.meaning]));
  fill("gates", model.gates, gateRow);
  fill("around", [model.device, ...model.inputs], (l) => item([l.good ? "span" : "span.bad-line", l.good ? l.text : `! ${l.text}`]));
  fill("people", model.experts, (e) => item(["b", e.name, true], ["span", ` (${e.realm}), ${tr(e.grade)}${e.not ? ` - ${tr(e.not)}` : ""}`]));
  fill("news", model.news.slice(0, 8), (n) => {
    const li = item(["time", n.ago], ["span", n.text]);
    if (n.mute) li.append(button("MUTE", "", () => act("mute", { person: n.mute, seen: model.stamp })));
    return li;
  });
  const limits = [...model.limits, ...model.counters.map(([name, n]) => [name, String(n)])];
  fill("limits", limits, ([name, value]) => make("div", ["dt", name], ["dd", value]));
  renderActs();
}

function renderActs() {
  const lines = model.acts.filter((a) => !["take", "estop", "mute"].includes(a.act));
  if (model.state !== "LOCAL") openOffer(false);
  // Each act has its own place for good: no button comes under a finger that was on its way to another.
  for (const line of lines) {
    const at = slot(line);
    const possible = !line.not && !(line.act === "offer" && offering);
    if (at.disabled && possible) at.dataset.since = String(performance.now());
    at.disabled = !possible;
    at.className = line.next ? "next" : "";
    at.title = tr(line.not ?? "");
  }
  const why = lines.filter((a) => a.not && ["offer", "confirm"].includes(a.act));
  put("hint", why.map((a) => tr(`${a.label} not now: ${a.not}.`)).join(" "));
  // An answer belongs to the state that it was given in.
  if (model.stamp !== stamp && performance.now() - saidAt > 1500) $("answer").hidden = true;
  stamp = model.stamp;
  const newest = JSON.stringify(model.answer);
  if (answer !== null && newest !== answer && model.answer) say(model.answer.good, model.answer.text);
  answer = newest;
}

function slot(line) {
  const id = `act-${line.act}`;
  if (!$(id)) {
    const at = button(line.label, "", () => {
      // A button that became possible a moment ago was not what the finger went for.
      if (performance.now() - Number(at.dataset.since) > 400) press(line);
    });
    Object.assign(at, { id, disabled: true });
    $("acts").append(at);
  }
  return $(id);
}

function gateRow(gate) {
  const signs = { GREEN: "\u2713", AMBER: "!", RED: "\u2715", measuring: "\u2026", OLD: "?", idle: "\u2013", PROTECTED: "\u2713", UNPROTECTED: "\u2715" };
  const row = document.createElement("tr");
  const mark = make(`span.colour.${gate.word.toLowerCase()}`);
  mark.textContent = `${signs[gate.word] ?? ""} ${tr(gate.word)}`;
  const cell = document.createElement("td");
  cell.append(mark);
  row.append(make("td", ["b", gate.name], ["small", gate.limit]), cell, make("td", ["span", gate.figure]));
  return row;
}

// An offer

function openOffer(open) {
  if (open === offering) return;
  offering = open;
  $("offer").hidden = !open;
  $("acts").hidden = open;
  if (!open) return;
  const experts = model.experts.filter((e) => !e.not);
  const choose = (e) => choices("sets", "set", e.sets.map(([bits, words]) => [String(bits), words]), () => {});
  choices("experts", "expert", experts.map((e) => [e.id, `${e.name} (${e.realm})`]), (id) => choose(experts.find((e) => e.id === id)));
  $("sets").replaceChildren();
  if (experts.length === 1) {
    document.querySelector("input[name=expert]").checked = true;
    choose(experts[0]);
  }
  $("step-input").value = "";
}

function choices(id, name, options, chosen) {
  $(id).replaceChildren(...options.map(([value, words]) => {
    const label = make("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name, value, required: true });
    input.addEventListener("change", () => chosen(value));
    label.append(input, make("span"));
    label.lastChild.textContent = name === "set" ? tr(words) : words;
    return label;
  }));
}

$("offer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData($("offer"));
  if (isOld()) return say(false, "OFFER did not count: control unknown.");
  if (!form.get("expert") || !form.get("set")) return say(false, "Choose to whom, and what.");
  const more = { expert: form.get("expert"), set: Number(form.get("set")), step: $("step-input").value, seen: model.stamp };
  if (await act("offer", more)) openOffer(false);
});
$("offer-back").addEventListener("click", () => openOffer(false));

// Keys: as at the terminal.

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const now = performance.now();
  const wasEsc = now - escAt <= ESC_MS;
  escAt = -Infinity;
  const typing = event.target === $("step-input");
  const key = event.key.toLowerCase();
  if (key === "escape") {
    if (wasEsc) estop();
    else escAt = now;
    openOffer(false);
  } else if (key === "f1" || (!typing && (key === " " || key === "t"))) take();
  else if (key === "f2" || (!typing && key === "e")) estop();
  else if (typing) return;
  else {
    const wanted = { o: "offer", c: "confirm", a: "confirm-amber", w: "withdraw", r: "reset", n: "withdraw-consent", x: "close" }[key];
    const line = model?.acts.find((a) => a.act === wanted);
    if (!line) return;
    if (line.not) say(false, `${line.label} not now: ${line.not}.`);
    else press(line);
  }
  event.preventDefault();
});
// On press rather than on release: nothing that slips off the button takes TAKE away.
for (const [id, what] of [["take", take], ["estop", estop]]) {
  $(id).addEventListener("pointerdown", what);
  $(id).addEventListener("click", (event) => {
    if (event.detail === 0) what(); // by Enter
  });
}

// Small helpers. Text goes in as text, never as markup.

// In this page's language. What others wrote stays as it is: nothing of it is among the words.
function put(id, text) {
  const said = tr(text);
  if ($(id).textContent !== said) $(id).textContent = said;
}

function make(tag, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [child, text, isName] of children) {
    element.append(make(child));
    element.lastChild.textContent = isName ? text : tr(text);
  }
  return element;
}

const item = (...children) => make("li", ...children);

function button(text, kind, pressed) {
  const element = make("button");
  element.type = "button";
  element.className = kind;
  element.textContent = tr(text);
  element.addEventListener("click", pressed);
  return element;
}

// Lists are replaced only where they changed: a button that is being pressed stays under the finger.
function fill(id, things, row) {
  const key = JSON.stringify(things);
  if ($(id).dataset.key === key) return;
  $(id).dataset.key = key;
  $(id).replaceChildren(...things.map(row));
}

// Words that stand in the page itself, by their places; their English is kept to go back to.
const own = [];
for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
  const node = walker.currentNode;
  const at = node.parentElement;
  // These are written by what the gate says.
  const written = at.closest("noscript, ul, tbody, #acts, #hint, #limits, #answer") || at.matches("#said *, #word, dd, #language");
  if (!written && node.data.trim()) own.push([node, node.data.trim()]);
}

function speak() {
  document.documentElement.lang = language;
  for (const [node, text] of own) node.data = tr(text);
  $("language").textContent = language === "ja" ? "English" : "日本語";
  for (const id of ["alarms", "gates", "around", "people", "news", "limits"]) delete $(id).dataset.key;
  $("acts").replaceChildren();
  render();
}

$("language").addEventListener("click", () => {
  setLanguage(language === "ja" ? "en" : "ja");
  speak();
});

speak();
connect();
requestAnimationFrame(paint);
