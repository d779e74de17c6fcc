// The switch between the languages of the page.

import { el, setText } from "./dom.ts";
import { rememberedLanguage, rememberLanguage } from "./memory.ts";
import { chooseLanguage, type Language } from "./language.ts";
import { language, other, OWN_NAMES, setLanguage } from "./strings.ts";

/** Takes the language that the address, this machine's memory or the browser asks for. */
export function startLanguage(): void {
  const sources = { query: location.search, remembered: rememberedLanguage(), browser: navigator.languages };
  use(chooseLanguage(sources));
}

/** A button that says the other language's own name. `onChange`: every text is to be written anew. */
export function languageButton(onChange: () => void): HTMLButtonElement {
  const element = el("button", { type: "button", class: "language" });
  const render = () => {
    const next = other(language());
    setText(element, OWN_NAMES[next]);
    element.lang = next;
  };
  element.addEventListener("click", () => {
    use(other(language()));
    rememberLanguage(language());
    render();
    onChange();
  });
  render();
  return element;
}

function use(next: Language): void {
  setLanguage(next);
  document.documentElement.lang = next;
}
