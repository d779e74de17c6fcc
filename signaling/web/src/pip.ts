// A picture in a small window of its own, always with its age and with the warning that it is not live. A browser that can
// only put a bare video there is not used for it: a picture without its age could be taken for a live one.

import { el, setData, setHidden, setText } from "./dom.ts";
import type { Tile } from "./tile.ts";

interface PictureWindows {
  requestWindow(options: { width: number; height: number }): Promise<Window>;
}

const windows = (): PictureWindows | null =>
  (window as unknown as { documentPictureInPicture?: PictureWindows }).documentPictureInPicture ?? null;

export class PictureWindow {
  #window: Window | null = null;
  readonly #video = el("video", { playsinline: true });
  readonly #name = el("p", { class: "name" });
  readonly #age = el("p", { class: "age" });
  readonly #banner = el("p", { class: "banner", hidden: true });
  readonly #body = el("div", { class: "tile large shown window" }, this.#video, this.#name, this.#age, this.#banner);

  static isSupported(): boolean {
    return windows() !== null;
  }

  isOpen(): boolean {
    return this.#window !== null;
  }

  async toggle(): Promise<void> {
    if (this.#window !== null) return this.close();
    const opened = await windows()
      ?.requestWindow({ width: 640, height: 360 })
      // Only a click or a key may open it.
      .catch(() => null);
    if (opened === null || opened === undefined) return;
    this.#window = opened;
    const sheet = document.querySelector<HTMLLinkElement>('link[rel="stylesheet"]');
    if (sheet !== null) opened.document.head.append(el("link", { rel: "stylesheet", href: sheet.href }));
    opened.document.documentElement.lang = document.documentElement.lang;
    opened.document.body.append(this.#body);
    this.#video.muted = true;
    opened.addEventListener("pagehide", () => (this.#window = null));
  }

  close(): void {
    this.#window?.close();
    this.#window = null;
  }

  /** To be called every tick: shows what that tile shows. */
  render(tile: Tile | null): void {
    if (this.#window === null || tile === null) return;
    const shown = tile.mirror();
    if (this.#video.srcObject !== shown.stream) {
      this.#video.srcObject = shown.stream;
      void this.#video.play().catch(() => undefined);
    }
    setText(this.#name, tile.title());
    setText(this.#age, shown.age);
    setData(this.#age, "level", shown.level);
    setData(this.#body, "state", shown.state);
    setText(this.#banner, shown.banner);
    setHidden(this.#banner, shown.banner === "");
  }
}
