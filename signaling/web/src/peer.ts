// A WebRTC connection and its HTTP resource (RFC 9725 and draft-ietf-wish-whep): POST the offer, PATCH candidates and
// restarts, DELETE in the end. The same for pictures, voices and what this page sends.

import { authorization, Refused, request } from "./api.ts";
import { GATHER_MS, TRICKLE_MS } from "./limits.ts";
import { candidatesOf, fragmentOf, restarted, SDP_FRAGMENT, type Trickled } from "./sdpfrag.ts";
import { t } from "./strings.ts";

export interface PeerOptions {
  /** Path that the offer is posted to. */
  path: string;
  bearer: () => string;
  iceServers: RTCIceServer[];
  /** Changes the relay's answer before the browser gets it. */
  adapt?: (answer: string) => string;
}

export class Peer {
  readonly connection: RTCPeerConnection;
  #resource: string | null = null;
  #entityTag: string | null = null;
  #answer = "";
  /** Candidates that came after the offer had left. */
  #late: Trickled[] = [];
  #sent = new Set<string>();
  #trickleTimer: ReturnType<typeof setTimeout> | undefined;
  #busy = false;
  #closed = false;

  constructor(private readonly options: PeerOptions) {
    this.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers: options.iceServers });
    this.connection.addEventListener("icecandidate", ({ candidate }) => this.#handleCandidate(candidate));
  }

  /** The relay's name for the resource: its last segment. */
  id(): string | null {
    if (this.#resource === null) return null;
    return decodeURIComponent(new URL(this.#resource).pathname.split("/").filter(Boolean).pop() ?? "");
  }

  state(): RTCPeerConnectionState {
    return this.connection.connectionState;
  }

  /** Offers what was added to the connection and takes the answer. */
  async negotiate(): Promise<void> {
    this.#busy = true;
    try {
      await this.connection.setLocalDescription();
      await gathered(this.connection, GATHER_MS);
      const offer = this.connection.localDescription?.sdp ?? "";
      this.#noteSent(offer);
      const answer = await this.#post(offer);
      this.#answer = this.options.adapt?.(answer) ?? answer;
      await this.connection.setRemoteDescription({ type: "answer", sdp: this.#answer });
    } finally {
      this.#busy = false;
    }
    this.#trickleSoon();
  }

  /** Restarts ICE; everything else of the connection stays. Rejects where the relay does not take it. */
  async restart(): Promise<void> {
    if (this.#busy || this.#closed || this.#resource === null) return;
    this.#busy = true;
    try {
      this.connection.restartIce();
      await this.connection.setLocalDescription();
      await gathered(this.connection, GATHER_MS / 2);
      const offer = this.connection.localDescription?.sdp ?? "";
      this.#noteSent(offer);
      const fragment = fragmentOf(offer, candidatesOf(offer), this.connection.iceGatheringState === "complete") ?? "";
      const response = await this.#patch(fragment, "*");
      this.#entityTag = response.headers.get("etag") ?? this.#entityTag;
      const answer = restarted(this.#answer, await response.text());
      if (answer === null) throw new Refused(502, t.whep.noSdp);
      this.#answer = answer;
      await this.connection.setRemoteDescription({ type: "answer", sdp: answer });
    } finally {
      this.#busy = false;
    }
    this.#trickleSoon();
  }

  /** Ends the connection here and, by a request that survives the page, at the relay. Resolves when the relay knows. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#trickleTimer);
    this.connection.ontrack = null;
    this.connection.close();
    if (this.#resource === null) return;
    const init = { method: "DELETE", headers: authorization(this.options.bearer()), keepalive: true };
    // The relay may be gone, or have dropped the resource itself: either way there is nothing left to do.
    await fetch(this.#resource, init).catch(() => undefined);
  }

  #handleCandidate(candidate: RTCIceCandidate | null): void {
    if (candidate === null || candidate.candidate === "" || this.#sent.has(candidate.candidate)) return;
    this.#late.push({ mid: candidate.sdpMid ?? "0", candidate: candidate.candidate });
    this.#trickleSoon();
  }

  #noteSent(offer: string): void {
    this.#late = [];
    this.#sent = new Set(candidatesOf(offer).map((c) => c.candidate));
  }

  #trickleSoon(): void {
    if (this.#closed || this.#busy || this.#late.length === 0 || this.#resource === null) return;
    clearTimeout(this.#trickleTimer);
    this.#trickleTimer = setTimeout(() => void this.#trickle(), TRICKLE_MS);
  }

  async #trickle(): Promise<void> {
    const late = this.#late.filter((c) => !this.#sent.has(c.candidate));
    this.#late = [];
    if (this.#closed || late.length === 0) return;
    for (const { candidate } of late) this.#sent.add(candidate);
    const offer = this.connection.localDescription?.sdp ?? "";
    const fragment = fragmentOf(offer, late, this.connection.iceGatheringState === "complete");
    // A relay that is reached without them needs none of them.
    if (fragment !== null) await this.#patch(fragment, this.#entityTag ?? "*").catch(() => undefined);
  }

  async #patch(fragment: string, match: string): Promise<Response> {
    if (this.#resource === null) throw new Refused(404, t.whep.noSdp);
    const headers = { ...authorization(this.options.bearer()), "content-type": SDP_FRAGMENT, "if-match": match };
    return request(this.#resource, { method: "PATCH", headers, body: fragment });
  }

  async #post(sdp: string): Promise<string> {
    const { path, bearer } = this.options;
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

/** Ends when all candidates are there, or after a short while with those that are. */
function gathered(peer: RTCPeerConnection, limitMs: number): Promise<void> {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    const timer = setTimeout(finish, limitMs);
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
