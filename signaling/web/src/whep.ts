// One WHEP leg (draft-ietf-wish-whep): the page offers to receive video, the relay answers, DELETE ends it.

import { authorization, Refused, request } from "./api.ts";
import { GATHER_MS } from "./limits.ts";
import { t } from "./strings.ts";
import { figuresBetween, NO_FIGURES, readingOf, type Figures, type Reading } from "./stats.ts";

export interface LegRequest {
  session: string;
  feed: string;
  bearer: () => string;
  /** The remote video, as soon as there is a track. */
  onStream: (stream: MediaStream, leg: WhepLeg) => void;
}

export class WhepLeg {
  readonly #peer: RTCPeerConnection;
  #resource: string | null = null;
  #entityTag: string | null = null;
  #reading: Reading | null = null;
  #closed = false;

  private constructor(private readonly wanted: LegRequest) {
    this.#peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.#peer.ontrack = ({ track, receiver, streams }) => {
      // As little buffer as the network allows: a late picture is worse here than a rough one.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      wanted.onStream(streams[0] ?? new MediaStream([track]), this);
    };
  }

  /** Opens a leg. Where that fails nothing is left behind, here or at the relay. */
  static async open(wanted: LegRequest): Promise<WhepLeg> {
    const leg = new WhepLeg(wanted);
    try {
      await leg.#negotiate();
      return leg;
    } catch (error) {
      leg.close();
      throw error;
    }
  }

  /** The relay's name for this leg: the last segment of its resource. */
  id(): string | null {
    if (this.#resource === null) return null;
    return decodeURIComponent(new URL(this.#resource).pathname.split("/").filter(Boolean).pop() ?? "");
  }

  /** Entity tag of the ICE session (RFC 9725 section 4.3.1). */
  iceSession(): string | null {
    return this.#entityTag;
  }

  isDead(): boolean {
    return ["failed", "closed"].includes(this.#peer.connectionState);
  }

  /** Figures since the last call. */
  async figures(): Promise<Figures> {
    const report = (await this.#peer.getStats()) as unknown as ReadonlyMap<string, never>;
    const before = this.#reading;
    this.#reading = readingOf(report.values());
    return before === null || this.#reading === null ? NO_FIGURES : figuresBetween(before, this.#reading);
  }

  /** Ends the leg here and, by a request that survives the page, at the relay. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#peer.ontrack = null;
    this.#peer.close();
    if (this.#resource === null) return;
    const init = { method: "DELETE", headers: authorization(this.wanted.bearer()), keepalive: true };
    // The relay may be gone, or have dropped the leg itself: either way there is nothing left to do.
    void fetch(this.#resource, init).catch(() => undefined);
  }

  async #negotiate(): Promise<void> {
    const transceiver = this.#peer.addTransceiver("video", { direction: "recvonly" });
    preferH264(transceiver);
    if ("jitterBufferTarget" in transceiver.receiver) transceiver.receiver.jitterBufferTarget = 0;
    await this.#peer.setLocalDescription();
    await gathered(this.#peer);
    const answer = await this.#post(this.#peer.localDescription?.sdp ?? "");
    await this.#peer.setRemoteDescription({ type: "answer", sdp: answer });
  }

  async #post(sdp: string): Promise<string> {
    const { session, feed, bearer } = this.wanted;
    const path = `/v1/sessions/${encodeURIComponent(session)}/feeds/${encodeURIComponent(feed)}/whep`;
    const headers = { ...authorization(bearer()), "content-type": "application/sdp", accept: "application/sdp" };
    const response = await request(path, { method: "POST", headers, body: sdp });
    const location_ = response.headers.get("location");
    if (location_ !== null) {
      const resource = new URL(location_, new URL(path, location.href));
      // The bearer is shown there on DELETE, so it must be the host that it was made for.
      if (resource.origin !== location.origin) throw new Refused(502, t.whep.elsewhere);
      this.#resource = resource.href;
    }
    this.#entityTag = response.headers.get("etag");
    const answer = await response.text();
    if (!answer.startsWith("v=0")) throw new Refused(502, t.whep.noSdp);
    return answer;
  }
}

/** H.264 first, as nearly every endoscope source has it; all other codecs stay in the offer. */
function preferH264(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  const ordered = [...codecs.filter(isH264), ...codecs.filter((codec) => !isH264(codec))];
  if (ordered.length > 0) transceiver.setCodecPreferences(ordered);
}

/** Ends when all candidates are there, or after a short while with those that are. */
function gathered(peer: RTCPeerConnection): Promise<void> {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    const timer = setTimeout(finish, GATHER_MS);
    function finish(): void {
      clearTimeout(timer);
      peer.removeEventListener("icegatheringstatechange", look);
      done();
    }
    function look(): void {
      if (peer.iceGatheringState === "complete") finish();
    }
    peer.addEventListener("icegatheringstatechange", look);
  });
}
