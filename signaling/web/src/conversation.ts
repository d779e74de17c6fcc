// What people say and write to each other: voices heard, microphone, camera and screen sent, chat.

import { Chat } from "./chat.ts";
import type { DeviceChoice } from "./devices.ts";
import type { Sending } from "./names.ts";
import { Publisher } from "./publisher.ts";
import { Voices } from "./slots.ts";
import type { TokenKeeper } from "./token.ts";
import type { ChatMessage, FeedInfo, LegState, VoiceSlot } from "./types.ts";
import { VoicesPlayer } from "./voices.ts";

export interface ConversationOptions {
  token: TokenKeeper;
  participant: () => string;
  iceServers: () => Promise<RTCIceServer[]>;
  devices: DeviceChoice;
  onBlocked: (blocked: boolean) => void;
  onFault: (what: Sending, why: string) => void;
}

export class Conversation {
  readonly chat = new Chat();
  readonly publisher: Publisher;
  readonly player: VoicesPlayer;
  readonly #voices = new Voices();
  /** Somebody else has a microphone in the session: only then is there anything to hear. */
  #anyVoice = false;

  constructor(private readonly o: ConversationOptions) {
    const around = {
      session: () => o.token.grant.session,
      bearer: () => o.token.bearer(),
      iceServers: o.iceServers,
      renew: () => o.token.renew(),
    };
    this.publisher = new Publisher({ ...around, participant: o.participant }, o.devices, o.onFault);
    this.player = new VoicesPlayer({ ...around, onBlocked: o.onBlocked });
    this.player.setSpeaker(o.devices.speaker);
  }

  /** Publishers who speak now, the loudest first. */
  speakers(publisherOf: (feed: string) => string | null): string[] {
    return this.#voices.speakers(publisherOf);
  }

  /** To be called every tick while the relay can be reached. */
  handleTick(nowMs: number): void {
    this.publisher.applyTalk();
    this.publisher.handleTick(nowMs);
    if (this.#anyVoice) this.player.runner().handleTick(nowMs);
  }

  handleFeeds(feeds: readonly FeedInfo[]): void {
    this.#anyVoice ||= feeds.some((f) => f.descriptor.kind === "audio" && f.publisher !== this.o.participant());
  }

  handleWelcome(nowMs: number, renamed: boolean, chat: readonly ChatMessage[]): void {
    this.chat.handleWelcome(chat);
    this.#voices.handleSpeaking([]);
    this.publisher.handleLinkOpen(nowMs, renamed);
    if (renamed) this.player.runner().replace(nowMs);
    else this.player.runner().handleLinkOpen(nowMs);
  }

  handleLost(): void {
    this.#voices.reset();
  }

  handleReach(nowMs: number): void {
    this.publisher.handleReach(nowMs);
    this.player.runner().handleReach(nowMs);
  }

  handleVoices(leg: string, slots: readonly VoiceSlot[]): void {
    // The event may come before the answer that names the leg.
    if (this.player.leg() !== null && this.player.leg() !== leg) return;
    this.#voices.handleSlots(slots);
    this.player.handleSlots((mid) => this.#voices.feedOf(mid));
  }

  handleSpeaking(feeds: readonly string[]): void {
    this.#voices.handleSpeaking(feeds);
  }

  handleLeg(nowMs: number, leg: string, state: LegState): void {
    if (state === "closed" && leg === this.player.leg()) this.player.runner().replace(nowMs);
  }

  close(): void {
    this.publisher.close();
    this.player.close();
  }
}
