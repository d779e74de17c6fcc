// The voices of the others: one WHEP leg with an audio m-line for each speaker who can be heard at a time, played through
// audio elements. It has nothing to do with pictures, and lives on when each of them dies.

import { sessionPath } from "./api.ts";
import { el, setData } from "./dom.ts";
import { Peer } from "./peer.ts";
import { Runner, type Connection } from "./runner.ts";
import { VOICE_SLOTS } from "./slots.ts";

export interface VoicesOptions {
  session: () => string;
  bearer: () => string;
  iceServers: () => Promise<RTCIceServer[]>;
  renew: () => Promise<unknown>;
  /** The browser lets no sound out before a click, or does so now. */
  onBlocked: (blocked: boolean) => void;
}

class VoicesLeg implements Connection {
  constructor(readonly peer: Peer) {}

  close(): Promise<void> {
    return this.peer.close();
  }
}

export class VoicesPlayer {
  /** Holds the audio elements; has no size. */
  readonly element = el("div", { class: "voices", hidden: true });
  readonly #runner: Runner<VoicesLeg>;
  #speaker = "";
  #feedOf: (mid: string) => string | null = () => null;

  constructor(private readonly options: VoicesOptions) {
    this.#runner = new Runner({ open: () => this.#open(), renew: options.renew });
  }

  runner(): Runner<Connection> {
    return this.#runner as unknown as Runner<Connection>;
  }

  /** The relay's name for the leg. */
  leg(): string | null {
    return this.#runner.current()?.peer.id() ?? null;
  }

  /** Which feed is heard on which m-line, for whoever looks into the page. */
  handleSlots(feedOf: (mid: string) => string | null): void {
    // The relay may say who is where before the answer has made the elements.
    this.#feedOf = feedOf;
    for (const audio of this.element.querySelectorAll("audio")) {
      setData(audio, "feed", feedOf(audio.dataset["mid"] ?? "") ?? "");
    }
  }

  /** A click or a key came: now sound may go out. */
  unblock(): void {
    for (const audio of this.element.querySelectorAll("audio")) this.#play(audio);
  }

  /** The loudspeaker to use; empty for the system's choice. */
  setSpeaker(device: string): void {
    this.#speaker = device;
    for (const audio of this.element.querySelectorAll("audio")) useSpeaker(audio, device);
  }

  close(): void {
    this.#runner.close();
    this.element.replaceChildren();
  }

  async #open(): Promise<VoicesLeg> {
    const { session, bearer, iceServers } = this.options;
    const peer = new Peer({ path: `${sessionPath(session())}/voices/whep`, bearer, iceServers: await iceServers() });
    const elements: HTMLAudioElement[] = [];
    peer.connection.ontrack = ({ track, transceiver, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      const audio = el("audio", { "data-mid": transceiver.mid ?? "", "data-feed": this.#feedOf(transceiver.mid ?? "") ?? "" });
      audio.autoplay = true;
      audio.srcObject = new MediaStream([track]);
      elements.push(audio);
      this.element.append(audio);
      useSpeaker(audio, this.#speaker);
      this.#play(audio);
    };
    try {
      for (let i = 0; i < VOICE_SLOTS; i += 1) peer.connection.addTransceiver("audio", { direction: "recvonly" });
      await peer.negotiate();
      for (const audio of [...this.element.querySelectorAll("audio")]) if (!elements.includes(audio)) discard(audio);
      return new VoicesLeg(peer);
    } catch (error) {
      void peer.close();
      elements.forEach(discard);
      throw error;
    }
  }

  #play(audio: HTMLAudioElement): void {
    audio.play().then(
      () => this.options.onBlocked(false),
      (error: unknown) => {
        if (error instanceof DOMException && error.name === "NotAllowedError") this.options.onBlocked(true);
      },
    );
  }
}

function useSpeaker(audio: HTMLAudioElement, device: string): void {
  // Not every browser can; a device that is gone leaves the sound where it was.
  if ("setSinkId" in audio) void audio.setSinkId(device).catch(() => undefined);
}

function discard(audio: HTMLAudioElement): void {
  audio.srcObject = null;
  audio.remove();
}
