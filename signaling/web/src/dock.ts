// The controls at the bottom: what this page sends, what it shows, and the way out.

import { button, el, say, sayAs, setAttribute, setData, setHidden, setText } from "./dom.ts";
import { icon, setIcon, type Icon } from "./icons.ts";
import { LAYOUTS, type Layout } from "./layout.ts";
import { PictureWindow } from "./pip.ts";
import type { SendState } from "./publisher.ts";
import { t, type TextKey } from "./strings.ts";
import type { Side } from "./view.ts";

/** The panels that have a button here; that about control has one in the banner. */
type DockSide = Exclude<Side, "control">;

export interface DockActions {
  /** Only where the role may send. */
  send: SendActions | null;
  layout: (layout: Layout) => void;
  fullScreen: () => void;
  pictureWindow: () => void;
  side: (side: Side) => void;
  help: () => void;
  leave: () => void;
}

export interface SendActions {
  microphone: () => void;
  press: () => void;
  release: () => void;
  latch: () => void;
  camera: () => void;
  screen: () => void;
  devices: () => void;
}

export interface SendModel {
  microphone: SendState;
  camera: SendState;
  screen: SendState;
  open: boolean;
  latched: boolean;
  self: MediaStreamTrack | null;
}

interface Control {
  element: HTMLButtonElement;
  label: HTMLElement;
  icon: SVGSVGElement;
}

export class Dock {
  readonly element: HTMLElement;
  readonly #connect = control("mic", "talk.connect");
  readonly #talk = control("talk", "talk.hold");
  readonly #latch = control("micOff", "talk.muted");
  readonly #camera = control("camera", "publish.camera");
  readonly #screen = control("screen", "publish.screen");
  readonly #self = sayAs(el("video", { class: "self-view", playsinline: true, hidden: true }), "aria-label", "publish.self");
  readonly #sides: Record<DockSide, Control> = {
    people: control("people", "bar.participants"),
    chat: control("chat", "bar.chat"),
    stats: control("figures", "bar.statistics"),
  };
  readonly #counts = { people: el("span", { class: "badge" }), chat: el("span", { class: "badge new", hidden: true }) };
  readonly #layouts: Record<Layout, HTMLButtonElement>;

  constructor(actions: DockActions) {
    this.#layouts = Object.fromEntries(
      LAYOUTS.map((l) => [l, button(`layout.${l}`, () => actions.layout(l), { "data-layout": l, role: "menuitemradio", "aria-checked": "false" })]),
    ) as Record<Layout, HTMLButtonElement>;
    const groups = [this.#viewGroup(actions)];
    if (actions.send !== null) groups.unshift(this.#sendGroup(actions.send));
    this.element = sayAs(el("nav", { class: "dock" }, ...groups), "aria-label", "bar.controls");
  }

  renderSending(m: SendModel): void {
    const connected = m.microphone !== "off" && m.microphone !== "asking";
    setHidden(this.#connect.element, connected);
    setHidden(this.#talk.element, !connected);
    setHidden(this.#latch.element, !connected);
    say(this.#connect.label, m.microphone === "asking" ? "talk.connecting" : "talk.connect");
    const lost = m.microphone === "again" || m.microphone === "starting";
    say(this.#talk.label, m.microphone === "again" ? "talk.lost" : lost ? "talk.connecting" : m.open ? "talk.talking" : "talk.hold");
    setData(this.#talk.element, "on", m.open && !lost ? "yes" : "no");
    setAttribute(this.#talk.element, "aria-pressed", String(m.open));
    say(this.#latch.label, m.latched ? "talk.on" : "talk.muted");
    sayAs(this.#latch.element, "title", m.latched ? "talk.unlatch" : "talk.latch");
    setIcon(this.#latch.icon, m.open ? "mic" : "micOff");
    setData(this.#latch.element, "on", m.latched ? "yes" : "no");
    setAttribute(this.#latch.element, "aria-pressed", String(m.latched));
    renderSender(this.#camera, m.camera, "publish.camera", "publish.cameraOn", "publish.startCamera", "publish.stopCamera");
    renderSender(this.#screen, m.screen, "publish.screen", "publish.screenOn", "publish.startScreen", "publish.stopScreen");
    this.#renderSelf(m.self);
  }

  renderLayout(layout: Layout): void {
    for (const l of LAYOUTS) setAttribute(this.#layouts[l], "aria-checked", String(l === layout));
  }

  renderSide(open: Side | null): void {
    for (const [side, c] of Object.entries(this.#sides)) setAttribute(c.element, "aria-expanded", String(side === open));
  }

  renderPeople(count: number): void {
    setText(this.#counts.people, String(count));
  }

  renderUnread(count: number): void {
    setHidden(this.#counts.chat, count === 0);
    setText(this.#counts.chat, String(count));
    setAttribute(this.#sides.chat.element, "title", count === 0 ? t.bar.chat : t.chat.unread(String(count)));
  }

  #sendGroup(send: SendActions): HTMLElement {
    this.#connect.element.classList.add("wide");
    this.#connect.element.addEventListener("click", send.microphone);
    this.#talk.element.classList.add("talk", "wide");
    sayAs(this.#talk.element, "title", "talk.holdKey");
    hold(this.#talk.element, send);
    this.#latch.element.classList.add("latch");
    this.#latch.element.addEventListener("click", send.latch);
    this.#camera.element.addEventListener("click", send.camera);
    this.#screen.element.addEventListener("click", send.screen);
    const devices = control("gear", "bar.devices");
    devices.element.addEventListener("click", send.devices);
    this.#self.muted = true;
    this.#self.autoplay = true;
    const controls = [this.#connect, this.#talk, this.#latch, this.#camera, this.#screen, devices].map((c) => c.element);
    this.renderSending({ microphone: "off", camera: "off", screen: "off", open: false, latched: false, self: null });
    return sayAs(el("div", { class: "group send", role: "group" }, ...controls, this.#self), "aria-label", "panel.sends");
  }

  #viewGroup(actions: DockActions): HTMLElement {
    const full = button("layout.full", actions.fullScreen, { role: "menuitem" });
    const apart = button("layout.window", actions.pictureWindow, { role: "menuitem", class: "window-item" });
    if (!PictureWindow.isSupported()) {
      apart.disabled = true;
      sayAs(apart, "title", "layout.noWindow");
    }
    const menu = menuButton(control("view", "bar.view"), [...Object.values(this.#layouts), full, apart]);
    for (const [side, c] of Object.entries(this.#sides) as [DockSide, Control][]) {
      setAttribute(c.element, "aria-controls", `side-${side}`);
      c.element.addEventListener("click", () => actions.side(side));
    }
    this.#sides.people.element.append(this.#counts.people);
    this.#sides.chat.element.append(this.#counts.chat);
    const help = control("help", "bar.help");
    help.element.addEventListener("click", actions.help);
    const leave = control("leave", "bar.leave");
    leave.element.classList.add("leave");
    leave.element.addEventListener("click", actions.leave);
    const sides = Object.values(this.#sides).map((c) => c.element);
    return sayAs(el("div", { class: "group", role: "group" }, menu, ...sides, help.element, leave.element), "aria-label", "bar.view");
  }

  #renderSelf(track: MediaStreamTrack | null): void {
    setHidden(this.#self, track === null);
    const shown = (this.#self.srcObject as MediaStream | null)?.getTracks()[0] ?? null;
    if (shown === track) return;
    this.#self.srcObject = track === null ? null : new MediaStream([track]);
    if (track !== null) void this.#self.play().catch(() => undefined);
  }
}

function renderSender(c: Control, state: SendState, label: TextKey, on: TextKey, start: TextKey, stop: TextKey): void {
  const words: Record<SendState, TextKey> = {
    off: label,
    asking: "publish.starting",
    starting: "publish.starting",
    sending: on,
    again: "publish.again",
  };
  say(c.label, words[state]);
  setData(c.element, "on", state === "sending" ? "yes" : "no");
  setData(c.element, "send", state);
  setAttribute(c.element, "aria-pressed", String(state !== "off"));
  sayAs(c.element, "title", state === "off" ? start : stop);
}

function control(name: Icon, key: TextKey): Control {
  const label = say(el("span", { class: "label" }), key);
  const sign = icon(name);
  const element = el("button", { type: "button", "data-control": key }, label);
  element.prepend(sign);
  return { element, label, icon: sign };
}

/** Talks while held, by pointer or by Enter; the space bar is everybody's and handled for the whole page. */
function hold(element: HTMLElement, send: SendActions): void {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    send.press();
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) element.addEventListener(name, send.release);
  element.addEventListener("keydown", (event) => event.key === "Enter" && !event.repeat && send.press());
  element.addEventListener("keyup", (event) => event.key === "Enter" && send.release());
  // A long touch must not open a menu of the browser's.
  element.addEventListener("contextmenu", (event) => event.preventDefault());
}

function menuButton(c: Control, items: HTMLElement[]): HTMLElement {
  const menu = sayAs(el("div", { class: "menu", role: "menu", id: "view-menu", hidden: true }, ...items), "aria-label", "layout.heading");
  setAttribute(c.element, "aria-haspopup", "menu");
  setAttribute(c.element, "aria-controls", menu.id);
  const show = (shown: boolean) => {
    setHidden(menu, !shown);
    setAttribute(c.element, "aria-expanded", String(shown));
    if (shown) items[0]?.focus();
  };
  show(false);
  const around = el("div", { class: "menu-place" }, c.element, menu);
  c.element.addEventListener("click", () => show(Boolean(menu.hidden)));
  menu.addEventListener("click", () => show(false));
  around.addEventListener("focusout", (event) => {
    if (!around.contains(event.relatedTarget as Node | null)) show(false);
  });
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement as HTMLElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined) items[(at + step + items.length) % items.length]?.focus();
    else if (event.key === "Escape") {
      show(false);
      c.element.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return around;
}
