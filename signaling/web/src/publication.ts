// One thing that this page sends, by WHIP (RFC 9725): a microphone, a camera or a screen, each on a connection of its own, so
// that none can take another down.

import { sessionPath } from "./api.ts";
import { CAMERA_BITRATE, SCREEN_BITRATE, START_KILOBITS, VOICE_BITRATE } from "./limits.ts";
import { ownFeed, type Sending } from "./names.ts";
import { Peer } from "./peer.ts";
import { Runner, type Connection } from "./runner.ts";
import { withStartBitrate } from "./sdpfrag.ts";

export interface PublicationOptions {
  session: () => string;
  participant: () => string;
  bearer: () => string;
  iceServers: () => Promise<RTCIceServer[]>;
  renew: () => Promise<unknown>;
}

const BITRATES: Record<Sending, number> = { microphone: VOICE_BITRATE, camera: CAMERA_BITRATE, screen: SCREEN_BITRATE };

/** Motion must stay smooth from a camera; what is written on a screen must stay readable. */
const HINTS: Record<Sending, string> = { microphone: "speech", camera: "motion", screen: "detail" };

class WhipConnection implements Connection {
  constructor(readonly peer: Peer) {}

  close(): Promise<void> {
    return this.peer.close();
  }
}

export class Publication {
  readonly runner: Runner<WhipConnection>;

  /** Takes the track over: it is stopped with the publication. */
  constructor(
    readonly what: Sending,
    public track: MediaStreamTrack,
    private readonly options: PublicationOptions,
  ) {
    track.contentHint = HINTS[what];
    this.runner = new Runner({ open: () => this.#open(), renew: options.renew, waitsForClose: true });
  }

  /** Name of the feed, from the participant's. */
  feed(): string {
    return ownFeed(this.what, this.options.participant());
  }

  /** Sends that track from now on, on the same connection. */
  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    const before = this.track;
    track.contentHint = HINTS[this.what];
    track.enabled = before.enabled;
    this.track = track;
    await this.runner.current()?.peer.connection.getSenders()[0]?.replaceTrack(track);
    before.stop();
  }

  close(): void {
    this.track.stop();
    this.runner.close();
  }

  async #open(): Promise<WhipConnection> {
    const { session, bearer, iceServers } = this.options;
    const path = `${sessionPath(session())}/whip?${this.#query()}`;
    const adapt = this.what === "microphone" ? {} : { adapt: (sdp: string) => withStartBitrate(sdp, START_KILOBITS) };
    const peer = new Peer({ path, bearer, iceServers: await iceServers(), ...adapt });
    try {
      const transceiver = peer.connection.addTransceiver(this.track, {
        direction: "sendonly",
        sendEncodings: [{ maxBitrate: BITRATES[this.what] }],
      });
      if (this.what !== "microphone") preferHardware(transceiver);
      await peer.negotiate();
      return new WhipConnection(peer);
    } catch (error) {
      void peer.close();
      throw error;
    }
  }

  #query(): string {
    const feed = this.feed();
    if (this.what === "microphone") return String(new URLSearchParams({ audio_feed: feed, source: feed }));
    const purpose = this.what === "camera" ? "room" : "secondary";
    return String(new URLSearchParams({ feed, source: feed, purpose, max_bitrate: String(BITRATES[this.what]) }));
  }
}

/** H.264 first: every viewer can show it, and most machines encode it in hardware. */
function preferHardware(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpSender.getCapabilities("video")?.codecs ?? [];
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  const ordered = [...codecs.filter(isH264), ...codecs.filter((codec) => !isH264(codec))];
  if (ordered.length > 0) transceiver.setCodecPreferences(ordered);
}
