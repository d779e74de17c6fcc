// The video element of a feed. A new leg brings a new element; the old picture stays until the new one has a frame.

import { el } from "./dom.ts";

export interface ShownFrame {
  /** When the frame appears on the screen, on the page's monotonic clock. */
  presentedMs: number;
  /** RTP timestamp; null where the browser does not tell. */
  rtp: number | null;
  /** Frames shown since the last call, also those for which the page was not called. */
  newFrames: number;
  width: number;
  height: number;
}

export class Stage {
  readonly element = el("div", { class: "stage" });

  constructor(private readonly label: () => string) {}

  /** Shows a stream; `onFrame` is called for each of its frames that the browser shows. */
  play(stream: MediaStream, onFrame: (frame: ShownFrame) => void): void {
    // A bare video in a window of its own would have no age on it; `pip.ts` opens one that has.
    const video = el("video", { "aria-label": this.label(), playsinline: true, disablepictureinpicture: true });
    video.muted = true;
    video.autoplay = true;
    video.srcObject = stream;
    this.element.append(video);
    // A refusal to play shows as a picture that never comes, and the watchdog says so.
    void video.play().catch(() => undefined);
    this.#watch(video, 0, onFrame);
  }

  clear(): void {
    for (const video of this.element.querySelectorAll("video")) discard(video);
  }

  #watch(video: HTMLVideoElement, framesBefore: number, onFrame: (frame: ShownFrame) => void): void {
    video.requestVideoFrameCallback((now, meta) => {
      if (!video.isConnected) return;
      for (const older of this.element.querySelectorAll("video")) {
        if (older === video) break;
        discard(older);
      }
      onFrame({
        // Under load the browser names a moment before it began to show this frame; an age never looks better than it is.
        presentedMs: Math.max(meta.expectedDisplayTime, now),
        rtp: meta.rtpTimestamp ?? null,
        newFrames: Math.max(1, meta.presentedFrames - framesBefore),
        width: meta.width,
        height: meta.height,
      });
      this.#watch(video, meta.presentedFrames, onFrame);
    });
  }
}

function discard(video: HTMLVideoElement): void {
  video.srcObject = null;
  video.remove();
}
