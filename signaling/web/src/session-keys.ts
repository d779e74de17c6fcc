// The keyboard of a session: shortcuts, and the space bar that is held to talk.

import type { Control } from "./control/control.ts";
import { isStopKey, keyAction } from "./keys.ts";
import type { Publisher } from "./publisher.ts";
import type { View } from "./view.ts";

export interface KeyTargets {
  view: View;
  /** Null where the role sends nothing. */
  publisher: Publisher | null;
  promote: (feed: string) => void;
  devices: () => void;
  control: Control;
}

export function sessionKeys(o: KeyTargets, signal: AbortSignal): void {
  const talk = o.publisher?.talk;
  const isChosen = chosenByKeyboard(signal);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelector<HTMLDialogElement>("dialog[open]")?.close();
    if (isText(event.target)) return;
    if (isStopKey(event)) return event.repeat ? undefined : o.control.pressStop();
    if (event.key === " " && talk !== undefined && !isChosen(event.target)) {
      event.preventDefault();
      talk.press("key");
      return o.publisher?.applyTalk();
    }
    if (!event.repeat) handleKey(event, o);
  }, { signal });
  addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "s" || event.key === "Shift") o.control.releaseStop();
    if (event.key !== " " || talk === undefined) return;
    talk.release("key");
    o.publisher?.applyTalk();
    // The button that was clicked last must not be clicked again by the space bar that was held to talk.
    if (!isText(event.target) && !isChosen(event.target)) event.preventDefault();
  }, { signal });
  addEventListener("blur", () => {
    o.control.releaseStop();
    talk?.releaseAll();
    o.publisher?.applyTalk();
  }, { signal });
}

function handleKey(event: KeyboardEvent, { view, publisher, promote, devices, control }: KeyTargets): void {
  const action = keyAction(event);
  if (action === null || (document.querySelector("dialog[open]") !== null && !["help", "devices", "request"].includes(action.kind))) return;
  switch (action.kind) {
    case "promote": {
      const feed = view.feedAt(action.index);
      return feed === null ? undefined : promote(feed);
    }
    case "layout":
      return view.nextLayout();
    case "full":
      return view.toggleFullScreen();
    case "window":
      return view.toggleWindow();
    case "plain":
      return view.togglePlain();
    case "people":
    case "stats":
      return view.toggleSide(action.kind);
    case "chat":
      // The key that opens the chat is not its first letter.
      event.preventDefault();
      return view.toggleSide("chat");
    case "control":
      return control.toggleSide();
    case "request":
      // The key that opens the dialog is not the first letter of the reason.
      event.preventDefault();
      return control.toggleRequest();
    case "help":
      return view.toggleHelp();
    case "latch":
      return publisher?.talk.toggleLatch();
    case "camera":
    case "screen":
      return publisher?.toggle(action.kind);
    case "devices":
      return publisher === null ? undefined : devices();
  }
}

function isText(target: EventTarget | null): boolean {
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || (target instanceof HTMLInputElement && target.type !== "checkbox");
}

/**
 * Tells controls that somebody reached by the keyboard: there the space bar belongs to the control. `:focus-visible` cannot
 * tell: a button that was clicked by mouse begins to match it with the very press of the space bar.
 */
function chosenByKeyboard(signal: AbortSignal): (target: EventTarget | null) => boolean {
  let keyboard = false;
  let chosen: EventTarget | null = null;
  const options = { signal, capture: true };
  addEventListener("pointerdown", () => (keyboard = false), options);
  addEventListener("keydown", () => (keyboard = true), options);
  addEventListener("focusin", (event) => (chosen = keyboard ? event.target : null), options);
  return (target) => target === chosen && target instanceof HTMLElement && target.matches("button, a, input, [role]");
}
