// The few DOM helpers that the page needs. Texts go in as text only, never as markup.

import { text, type TextKey } from "./strings.ts";

type Attributes = Record<string, string | boolean>;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Writes a text only where it differs, so that nothing is laid out or read aloud anew for nothing. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setData(element: HTMLElement, name: string, value: string): void {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

export function setHidden(element: HTMLElement, hidden: boolean): void {
  if (element.hidden !== hidden) element.hidden = hidden;
}

export function setAttribute(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Makes the element say the text of that key, now and after a change of language. It may hold nothing else. */
export function say<E extends HTMLElement>(element: E, key: TextKey): E {
  setData(element, "t", key);
  setText(element, text(key));
  return element;
}

/** The same for an attribute. */
export function sayAs<E extends HTMLElement>(element: E, name: Spoken, key: TextKey): E {
  setAttribute(element, `data-t-${name}`, key);
  setAttribute(element, name, text(key));
  return element;
}

/** A button with a text that follows the language. */
export function button(key: TextKey, onClick: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const element = say(el("button", { type: "button", ...attributes }), key);
  element.addEventListener("click", onClick);
  return element;
}

type Spoken = (typeof SPOKEN)[number];
const SPOKEN = ["aria-label", "title", "placeholder"] as const;

/** Writes every text below that follows the language anew. */
export function relabel(root: ParentNode): void {
  for (const element of root.querySelectorAll<HTMLElement>("[data-t]")) setText(element, text(element.dataset["t"] ?? ""));
  for (const name of SPOKEN) {
    for (const element of root.querySelectorAll(`[data-t-${name}]`)) {
      setAttribute(element, name, text(element.getAttribute(`data-t-${name}`) ?? ""));
    }
  }
}
