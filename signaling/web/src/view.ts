// The session on the screen: bar, banner about the relay, tiles with one large, panel, keys.

import { el, setData, setHidden, setText } from "./dom.ts";
import type { Link } from "./events.ts";
import type { Feed } from "./feed.ts";
import { rememberedPanel, rememberPanel } from "./memory.ts";
import { Panel } from "./panel.ts";
import { span, t } from "./strings.ts";
import type { FeedDescriptor, ParticipantInfo, TokenGrant } from "./types.ts";

export class View {
  readonly element: HTMLElement;
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
  readonly #tiles = el("div", { class: "tiles" });
  readonly #emptyHeading = el("h2");
  readonly #emptyText = el("p");
  readonly #empty = el("div", { class: "empty" }, this.#emptyHeading, this.#emptyText);
  readonly #panel = new Panel(() => this.#showPanel(false));
  readonly #panelButton = el("button", {
    type: "button",
    title: `${t.bar.participants} (P)`,
    "aria-controls": "participants",
  });
  /** What the person chose to see large; null while the page chooses. */
  #chosen: string | null = null;
  #order: string[] = [];
  #goodbye = "";

  constructor(onLeave: () => void) {
    const full = button(t.bar.fullScreen, "F", () => void toggleFullScreen());
    const leave = button(t.bar.leave, "", onLeave);
    leave.classList.add("leave");
    this.#panelButton.addEventListener("click", () => this.#togglePanel());
    const buttons = el("div", { class: "buttons" }, this.#panelButton, full, leave);
    const bar = el("header", { class: "bar" }, this.#title, this.#status, this.#self, buttons);
    const floor = el("main", { class: "floor" }, this.#tiles, this.#empty);
    this.element = el("div", { class: "session" }, bar, this.#banner, el("div", { class: "body" }, floor, this.#panel.element));
    this.#showPanel(rememberedPanel());
    this.renderPeople([], "");
  }

  promote(feed: string): void {
    this.#chosen = feed;
  }

  renderTitle(title: string): void {
    setText(this.#title, title);
    document.title = title === "" ? t.product : `${title} – ${t.product}`;
  }

  renderSelf(grant: TokenGrant): void {
    setText(this.#self, `${grant.name} · ${t.role[grant.role] ?? grant.role}`);
  }

  renderPeople(people: ParticipantInfo[], self: string): void {
    setText(this.#panelButton, `${t.bar.participants} ${people.length}`);
    this.#panel.render(people, self);
  }

  /** A feed came, went, or changed its rank. Tiles never move in the document: a moved video stops. */
  renderFeeds(feeds: Feed[]): void {
    const ranked = [...feeds].sort((a, b) => rank(a.info.descriptor, b.info.descriptor));
    this.#order = ranked.map((feed) => feed.info.descriptor.feed);
    const large = this.#chosen !== null && this.#order.includes(this.#chosen) ? this.#chosen : this.#order[0];
    ranked.forEach((feed, index) => {
      if (feed.tile.element.parentElement !== this.#tiles) this.#tiles.append(feed.tile.element);
      feed.tile.renderPlace(index, this.#order[index] === large);
    });
    setData(this.#tiles, "count", String(ranked.length));
    this.#tiles.style.setProperty("--rows", String(Math.max(3, ranked.length - 1)));
    setHidden(this.#empty, ranked.length > 0);
    setHidden(this.#tiles, ranked.length === 0);
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

  /** A key was pressed outside a field. Returns the feed that was asked for, if any. */
  handleKey(event: KeyboardEvent): string | null {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return null;
    const key = event.key.toLowerCase();
    if (key === "p") this.#togglePanel();
    else if (key === "f") void toggleFullScreen();
    else if (key === "h") this.element.classList.toggle("plain");
    else if (/^[1-9]$/.test(key)) return this.#order[Number(key) - 1] ?? null;
    return null;
  }

  #togglePanel(): void {
    this.#showPanel(Boolean(this.#panel.element.hidden));
  }

  #showPanel(shown: boolean): void {
    setHidden(this.#panel.element, !shown);
    this.#panelButton.setAttribute("aria-expanded", String(shown));
    rememberPanel(shown);
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

function button(label: string, key: string, onClick: () => void): HTMLButtonElement {
  const element = el("button", { type: "button", title: key === "" ? label : `${label} (${key})` }, label);
  element.addEventListener("click", onClick);
  return element;
}

async function toggleFullScreen(): Promise<void> {
  // A refusal (no gesture, forbidden by policy) leaves the window as it is.
  if (document.fullscreenElement !== null) await document.exitFullscreen().catch(() => undefined);
  else await document.documentElement.requestFullscreen().catch(() => undefined);
}
