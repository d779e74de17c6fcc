// One WHEP leg (draft-ietf-wish-whep): the page offers to receive a picture, the relay answers, DELETE ends it.

import { authorization, Refused, request, sessionPath } from "./api.ts";
import { Peer } from "./peer.ts";
import { figuresBetween, NO_FIGURES, readingOf, type Figures, type Reading } from "./stats.ts";

export interface LegRequest {
  session: string;
  feed: string;
  bearer: () => string;
  iceServers: RTCIceServer[];
  /** The remote video, as soon as there is a track. */
  onStream: (stream: MediaStream, leg: WhepLeg) => void;
}

export class WhepLeg {
  readonly peer: Peer;
  #reading: Reading | null = null;

  private constructor(private readonly wanted: LegRequest) {
    const path = `${sessionPath(wanted.session)}/feeds/${encodeURIComponent(wanted.feed)}/whep`;
    this.peer = new Peer({ path, bearer: wanted.bearer, iceServers: wanted.iceServers });
    this.peer.connection.ontrack = ({ track, receiver, streams }) => {
      // As little buffer as the network allows: a late picture is worse here than a rough one.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      wanted.onStream(streams[0] ?? new MediaStream([track]), this);
    };
  }

  /** Opens a leg. Where that fails nothing is left behind, here or at the relay. */
  static async open(wanted: LegRequest): Promise<WhepLeg> {
    const leg = new WhepLeg(wanted);
    try {
      const transceiver = leg.peer.connection.addTransceiver("video", { direction: "recvonly" });
      preferH264(transceiver);
      if ("jitterBufferTarget" in transceiver.receiver) transceiver.receiver.jitterBufferTarget = 0;
      await leg.peer.negotiate();
      return leg;
    } catch (error) {
      void leg.close();
      throw error;
    }
  }

  /** The relay's name for this leg. */
  id(): string | null {
    return this.peer.id();
  }

  /** Asks the relay to go on with another view of the same source; the event `switched` says when it does. */
  async ask(feed: string): Promise<void> {
    const leg = this.id();
    if (leg === null) throw new Refused(404, "", "leg-missing");
    const headers = { ...authorization(this.wanted.bearer()), "content-type": "application/json" };
    const path = `${sessionPath(this.wanted.session)}/legs/${encodeURIComponent(leg)}`;
    await request(path, { method: "PATCH", headers, body: JSON.stringify({ feed }) });
  }

  /** Figures since the last call. */
  async figures(): Promise<Figures> {
    const report = (await this.peer.connection.getStats()) as unknown as ReadonlyMap<string, never>;
    const before = this.#reading;
    this.#reading = readingOf(report.values());
    return before === null || this.#reading === null ? NO_FIGURES : figuresBetween(before, this.#reading);
  }

  close(): Promise<void> {
    return this.peer.close();
  }
}

/** H.264 first, as nearly every endoscope source has it; all other codecs stay in the offer. */
function preferH264(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  const ordered = [...codecs.filter(isH264), ...codecs.filter((codec) => !isH264(codec))];
  if (ordered.length > 0) transceiver.setCodecPreferences(ordered);
}
