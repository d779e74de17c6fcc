// What was written in the session, and what of it is unread. Pure.

import { MAX_CHAT_LEN, type ChatMessage } from "./types.ts";

/** Messages that the page keeps; the oldest goes first. As many as the relay keeps. */
export const CHAT_KEPT = 200;

export class Chat {
  #messages: ChatMessage[] = [];
  #readId = 0;
  #begun = false;

  /** What the relay says at the start and after a loss: it is the truth. What was there before this page came is read. */
  handleWelcome(messages: readonly ChatMessage[]): void {
    this.#messages = messages.slice(-CHAT_KEPT);
    const last = this.#messages[this.#messages.length - 1]?.id ?? 0;
    // Counting begins anew with a new session of the relay.
    if (!this.#begun || last < this.#readId) this.#readId = last;
    this.#begun = true;
  }

  /** Returns whether the message is a new one. */
  handleMessage(message: ChatMessage): boolean {
    if (this.#messages.some((m) => m.id === message.id)) return false;
    this.#messages.push(message);
    if (this.#messages.length > CHAT_KEPT) this.#messages.shift();
    return true;
  }

  messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /** Messages of others since the chat was last open. */
  unread(self: string): number {
    return this.#messages.filter((m) => m.id > this.#readId && m.participant !== self).length;
  }

  handleRead(): void {
    this.#readId = this.#messages[this.#messages.length - 1]?.id ?? this.#readId;
  }
}

/** Length as the relay counts it: in code points. */
export function lengthOf(text: string): number {
  return [...text].length;
}

/** What is sent: line ends as LF, no other control characters, no empty space around. Null where nothing is left or it is too long. */
export function cleaned(text: string): string | null {
  const clean = text
    .replace(/\r\n?/g, "\n")
    .replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, (c) => (c === "\t" ? " " : ""))
    .trim();
  return clean === "" || lengthOf(clean) > MAX_CHAT_LEN ? null : clean;
}
