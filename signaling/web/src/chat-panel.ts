// The chat on the screen. What people write goes in as text only.

import { cleaned, lengthOf, type Chat } from "./chat.ts";
import { el, say, sayAs, setData, setHidden, setText } from "./dom.ts";
import { number, t, timeOfDay } from "./strings.ts";
import { MAX_CHAT_LEN, type ChatMessage } from "./types.ts";

/** From so many characters left on they are counted. */
const COUNT_FROM = 200;

export class ChatPanel {
  readonly element: HTMLElement;
  readonly #list = el("ol");
  readonly #log = sayAs(el("div", { class: "messages", role: "log", tabindex: "0" }, this.#list), "aria-label", "chat.heading");
  readonly #empty = say(el("p", { class: "quiet" }), "chat.empty");
  readonly #field = sayAs(el("textarea", { id: "chat-text", rows: "3" }), "aria-label", "chat.field");
  readonly #count = el("p", { class: "count", role: "status" });
  /** What was sent last: it comes back into the field where the relay refuses it. */
  #sent = "";
  readonly #send = say(el("button", { type: "submit" }), "chat.send");

  /** `onSend` returns whether it left. */
  constructor(private readonly onSend: (text: string) => boolean) {
    sayAs(this.#field, "placeholder", "chat.field");
    const hint = say(el("p", { class: "hint" }), "chat.hint");
    const form = el("form", {}, this.#field, el("div", { class: "send-line" }, this.#send, this.#count), hint);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#field.addEventListener("keydown", (event) => {
      // While an input method composes, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    this.#field.addEventListener("input", () => this.#renderCount());
    this.element = el("div", { class: "side-body chat" }, this.#empty, this.#log, form);
    this.#renderCount();
  }

  focus(): void {
    this.#field.focus();
  }

  render(chat: Chat, self: string): void {
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    const messages = chat.messages();
    setHidden(this.#empty, messages.length > 0);
    const known = new Map([...this.#list.children].map((row) => [(row as HTMLElement).dataset["id"], row]));
    this.#list.replaceChildren(...messages.map((m) => known.get(String(m.id)) ?? rowOf(m, m.participant === self)));
    if (atEnd) this.scrollToEnd();
  }

  /** The relay took no more: nobody has read it. */
  handleRefused(): void {
    if (this.#field.value === "") this.#field.value = this.#sent;
    setText(this.#count, t.chat.refused);
  }

  scrollToEnd(): void {
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #submit(): void {
    const text = cleaned(this.#field.value);
    if (text === null) return this.#renderCount();
    if (!this.onSend(text)) return setText(this.#count, t.chat.offline);
    this.#sent = text;
    this.#field.value = "";
    this.#renderCount();
  }

  #renderCount(): void {
    const left = MAX_CHAT_LEN - lengthOf(this.#field.value);
    setData(this.#count, "over", left < 0 ? "yes" : "no");
    this.#send.disabled = left < 0;
    const text = left < 0 ? t.chat.tooLong(number(-left)) : left < COUNT_FROM ? t.chat.left(number(left)) : "";
    setText(this.#count, text);
  }
}

function rowOf(message: ChatMessage, own: boolean): HTMLElement {
  const name = el("span", { class: "who" }, message.name);
  const at = el("time", { datetime: new Date(message.at / 1000).toISOString() }, timeOfDay(message.at / 1000));
  const head = el("div", { class: "line" }, name, at);
  return el("li", { "data-id": String(message.id), class: own ? "own" : "" }, head, el("p", { class: "text", dir: "auto" }, message.text));
}
