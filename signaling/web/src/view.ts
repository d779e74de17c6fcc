// The session on the screen: bar, banner about the relay, pictures in their layout, side panel, controls.

import { Chat } from "./chat.ts";
import { ChatPanel } from "./chat-panel.ts";
import type { Control } from "./control/control.ts";
import { Dock, type DockActions, type SendModel } from "./dock.ts";
import { button, el, relabel, say, sayAs, setAttribute, setData, setHidden, setText } from "./dom.ts";
import type { Link } from "./events.ts";
import type { Feed } from "./feed.ts";
import { GlassBanner } from "./glass-banner.ts";
import { helpDialog } from "./help.ts";
import { icon } from "./icons.ts";
import { languageButton } from "./language-button.ts";
import { gridColumns, LayoutState, type Layout } from "./layout.ts";
import { rememberedLayout, rememberedPanel, rememberLayout, rememberPanel } from "./memory.ts";
import { Panel, type PeopleModel } from "./panel.ts";
import { PictureWindow } from "./pip.ts";
import { Statistics, type Measured } from "./statistics.ts";
import { span, t, type TextKey } from "./strings.ts";
import { Toasts } from "./toasts.ts";
import type { FeedDescriptor, TokenGrant } from "./types.ts";

export type Side = "people" | "chat" | "stats" | "control";

export interface ViewActions {
  send: DockActions["send"];
  leave: () => void;
  /** Returns whether it left. */
  chat: (text: string) => boolean;
  sideShown: (side: Side | null) => void;
  languageChanged: () => void;
  soundOn: () => void;
}

const HEADINGS: Record<Side, TextKey> = { people: "panel.heading", chat: "chat.heading", stats: "stats.heading", control: "control.heading" };

export class View {
  readonly element: HTMLElement;
  readonly toasts = new Toasts();
  readonly #title = el("h1");
  readonly #status = el("p", { class: "status", role: "status" });
  readonly #self = el("p", { class: "self" });
  readonly #bannerText = el("strong");
  readonly #bannerDetail = el("span", { class: "detail", "aria-live": "off" });
  readonly #banner = el(
    "div",
    { class: "link-banner", role: "alert", "aria-atomic": "false", hidden: true },
    this.#bannerText,
    this.#bannerDetail,
  );
  readonly #glass = new GlassBanner();
  readonly #sound: HTMLButtonElement;
  readonly #tiles = el("div", { class: "tiles" });
  readonly #emptyHeading = el("h2");
  readonly #emptyText = el("p");
  readonly #empty = el("div", { class: "empty" }, this.#emptyHeading, this.#emptyText);
  readonly #people = new Panel();
  readonly #chat: ChatPanel;
  readonly #statistics = new Statistics();
  readonly #sides: Record<Side, HTMLElement>;
  readonly #dock: Dock;
  readonly #help = helpDialog();
  readonly #window = new PictureWindow();
  readonly #layout = new LayoutState(rememberedLayout());
  #side: Side | null = null;
  #feeds: Feed[] = [];
  #order: string[] = [];
  #goodbye = "";

  constructor(
    private readonly actions: ViewActions,
    private readonly control: Control,
  ) {
    this.#chat = new ChatPanel(actions.chat);
    this.#dock = new Dock({
      send: actions.send,
      layout: (layout) => this.setLayout(layout),
      fullScreen: () => void toggleFullScreen(),
      pictureWindow: () => void this.#window.toggle(),
      side: (side) => this.toggleSide(side),
      help: () => this.toggleHelp(),
      leave: actions.leave,
    });
    this.#sound = button("sound.blocked", actions.soundOn, { class: "sound", hidden: true });
    const watching = actions.send === null ? [say(el("p", { class: "watching" }), "bar.watching")] : [];
    const language = languageButton(() => this.#handleLanguage());
    const bar = el("header", { class: "bar" }, this.#title, this.#status, this.#sound, this.toasts.element, ...watching, this.#self, language);
    this.#sides = { people: this.#sidePanel("people"), chat: this.#sidePanel("chat"), stats: this.#sidePanel("stats"), control: this.#sidePanel("control") };
    const floor = el("main", { class: "floor" }, this.#tiles, this.#empty);
    const body = el("div", { class: "body" }, floor, ...Object.values(this.#sides));
    this.element = el("div", { class: "session" }, control.banner.element, control.speaker.element, bar, this.#banner, this.#glass.element, body, this.#dock.element, this.#help);
    if (control.request !== null) this.element.append(control.request.element);
    const remembered = rememberedPanel();
    this.#showSide(remembered in HEADINGS ? (remembered as Side) : null);
    this.setLayout(this.#layout.layout);
    new ResizeObserver(() => this.#arrange()).observe(this.#tiles);
  }

  promote(feed: string): void {
    this.#layout.choose(feed);
    this.setLayout(this.#layout.layout);
  }

  /** The feed with that number key. */
  feedAt(index: number): string | null {
    return this.#order[index] ?? null;
  }

  nextLayout(): void {
    this.setLayout(this.#layout.next());
  }

  setLayout(layout: Layout): void {
    this.#layout.layout = layout;
    rememberLayout(layout);
    this.#dock.renderLayout(layout);
    setData(document.body, "layout", layout);
    this.renderFeeds(this.#feeds);
  }

  toggleSide(side: Side): void {
    this.#showSide(this.#side === side ? null : side);
    if (this.#side === "chat") {
      this.toasts.clear();
      this.#chat.scrollToEnd();
      this.#chat.focus();
    }
  }

  isShown(side: Side): boolean {
    return this.#side === side;
  }

  toggleHelp(): void {
    if (this.#help.open) this.#help.close();
    else this.#help.show();
  }

  toggleWindow(): void {
    if (PictureWindow.isSupported()) void this.#window.toggle();
  }

  togglePlain(): void {
    this.element.classList.toggle("plain");
  }

  toggleFullScreen(): void {
    void toggleFullScreen();
  }

  close(): void {
    this.#window.close();
  }

  renderTitle(title: string): void {
    setText(this.#title, title);
    document.title = title === "" ? t.app.product : `${title} – ${t.app.product}`;
  }

  renderSelf(grant: TokenGrant): void {
    setText(this.#self, `${grant.name} · ${t.role[grant.role] ?? grant.role}`);
    setData(document.body, "role", grant.role);
  }

  renderPeople(model: PeopleModel): void {
    this.#dock.renderPeople(model.people.length);
    this.#people.render(model);
    this.#glass.render(model.people);
  }

  renderSpeaking(speakers: readonly string[]): void {
    this.#people.renderSpeaking(speakers);
    for (const feed of this.#feeds) feed.tile.renderSpeaking(speakers.includes(feed.info.publisher));
  }

  renderChat(chat: Chat, self: string): void {
    this.#chat.render(chat, self);
    this.#dock.renderUnread(this.#side === "chat" ? 0 : chat.unread(self));
  }

  renderRefused(): void {
    this.#chat.handleRefused();
  }

  renderSending(model: SendModel): void {
    if (this.actions.send !== null) this.#dock.renderSending(model);
    setData(document.body, "mic", model.microphone === "sending" ? (model.open ? "open" : "muted") : model.microphone);
    setData(document.body, "camera", model.camera);
    setData(document.body, "screen", model.screen);
  }

  renderSound(blocked: boolean): void {
    setHidden(this.#sound, !blocked);
    setData(document.body, "sound", blocked ? "blocked" : "on");
  }

  renderStatistics(measured: (feeds: readonly Feed[]) => readonly Measured[]): void {
    if (this.#side === "stats") this.#statistics.render(measured(this.#ranked()));
  }

  /** A feed came, went, or changed its rank. Tiles never move in the document: a moved video stops. */
  renderFeeds(feeds: Feed[]): void {
    this.#feeds = feeds;
    const ranked = this.#ranked();
    this.#order = ranked.map((feed) => feed.key);
    const places = this.#layout.places(this.#order);
    ranked.forEach((feed, index) => {
      if (feed.tile.element.parentElement !== this.#tiles) this.#tiles.append(feed.tile.element);
      feed.tile.renderPlace(index, places.get(feed.key) ?? "small");
    });
    setData(this.#tiles, "count", String(ranked.length));
    const pair = [...places.values()].includes("second");
    setData(this.#tiles, "layout", ranked.length < 2 ? "large" : pair ? "pair" : this.#layout.layout === "pair" ? "large" : this.#layout.layout);
    setHidden(this.#empty, ranked.length > 0);
    setHidden(this.#tiles, ranked.length === 0);
    this.#arrange();
  }

  renderWindow(): void {
    const large = this.#feeds.find((feed) => feed.tile.element.classList.contains("first")) ?? this.#ranked()[0];
    if (this.#window.isOpen()) this.#window.render(large?.tile ?? null);
  }

  renderGoodbye(reason: string): void {
    this.#goodbye = reason === "" ? "" : t.link.goodbye(reason);
  }

  renderLink(link: Link, nowMs: number, anyMoves: boolean): void {
    const connection = link.kind === "open" || link.kind === "joining" ? link.kind : "lost";
    setData(document.body, "connection", connection);
    setText(this.#status, t.bar[connection]);
    setText(this.#emptyHeading, connection === "open" ? t.empty.heading : t.bar[connection]);
    setText(this.#emptyText, connection === "open" ? t.empty.text : t.empty.noLink);
    setHidden(this.#banner, connection !== "lost");
    if (connection !== "lost") return;
    const [text, detail] = linkWords(link, nowMs, anyMoves);
    setText(this.#bannerText, text);
    setText(this.#bannerDetail, [this.#goodbye, detail].filter(Boolean).join(" · "));
  }

  #ranked(): Feed[] {
    return [...this.#feeds].sort((a, b) => rank(a.main().descriptor, b.main().descriptor));
  }

  /** Columns and rows for the room that there is. */
  #arrange(): void {
    const { clientWidth, clientHeight } = this.#tiles;
    const count = this.#feeds.length;
    const small = [...this.#tiles.querySelectorAll("[data-place=small]")].length;
    this.#tiles.style.setProperty("--columns", String(gridColumns(count, clientWidth, clientHeight)));
    this.#tiles.style.setProperty("--rows", String(Math.max(3, small)));
    this.#tiles.style.setProperty("--small", String(Math.max(4, small)));
    setData(this.#tiles, "small", small === 0 ? "none" : "some");
  }

  #handleLanguage(): void {
    relabel(document);
    this.#statistics.render([]);
    this.control.renderWords();
    this.actions.languageChanged();
    this.renderFeeds(this.#feeds);
  }

  #sidePanel(side: Side): HTMLElement {
    const close = sayAs(el("button", { type: "button", class: "close" }), "aria-label", "app.close");
    close.append(icon("close"));
    close.addEventListener("click", () => this.#showSide(null));
    const body = { people: this.#people, chat: this.#chat, stats: this.#statistics, control: this.control.side }[side].element;
    const heading = say(el("h2", { id: `side-${side}-heading` }), HEADINGS[side]);
    const panel = el("aside", { class: `side ${side}`, id: `side-${side}`, "aria-labelledby": heading.id });
    panel.append(el("div", { class: "head" }, heading, close), body);
    return panel;
  }

  #showSide(side: Side | null): void {
    this.#side = side;
    for (const [name, panel] of Object.entries(this.#sides)) setHidden(panel, name !== side);
    setData(document.body, "side", side ?? "none");
    setAttribute(this.#sides.chat, "data-open", String(side === "chat"));
    this.#dock.renderSide(side);
    this.control.banner.renderOpen(side === "control");
    // Whether the next session has a gate is not known yet.
    rememberPanel(side === "control" ? "" : (side ?? ""));
    this.actions.sideShown(side);
  }
}

function linkWords(link: Link, nowMs: number, anyMoves: boolean): [string, string] {
  if (link.kind === "silent") return [t.link.silent, t.link.since(span(link.quietMs), t.link.waitingAnswer)];
  if (link.kind !== "lost") return ["", ""];
  const retry = link.nextTryMs === null ? t.link.retrying : t.link.retryIn(span(Math.max(0, link.nextTryMs - nowMs)));
  return [anyMoves ? t.link.lostButMoving : t.link.lost, t.link.since(span(nowMs - link.sinceMs), retry)];
}

/** The primary endoscope first, then by the publisher's priority, then by name so that keys stay where they are. */
function rank(a: FeedDescriptor, b: FeedDescriptor): number {
  const scope = Number(b.purpose === "scope") - Number(a.purpose === "scope");
  return scope || a.priority - b.priority || a.feed.localeCompare(b.feed);
}

async function toggleFullScreen(): Promise<void> {
  // A refusal (no gesture, forbidden by policy) leaves the window as it is.
  if (document.fullscreenElement !== null) await document.exitFullscreen().catch(() => undefined);
  else await document.documentElement.requestFullscreen().catch(() => undefined);
}
