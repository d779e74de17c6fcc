// Who is in the session without the login that is asked for, for everybody and for as long as they are: a line of its own, never over a picture.

import { el, say, setHidden } from "./dom.ts";
import { t, timeOfDay } from "./strings.ts";
import type { ParticipantInfo } from "./types.ts";

export class GlassBanner {
  readonly #list = el("ul");
  readonly element = el("div", { class: "glass-banner", role: "alert", hidden: true }, say(el("strong"), "emergency.banner"), this.#list);
  #shown = "";

  render(people: readonly ParticipantInfo[]): void {
    const lines = people.flatMap((p) => {
      if (p.break_glass === undefined) return [];
      const { reason, until } = p.break_glass;
      return [t.emergency.who(p.name || p.participant, t.role[p.role] ?? p.role, reason, timeOfDay(until / 1000))];
    });
    // Written only where it differs, so that it is read aloud once.
    const shown = lines.join("\n");
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#list.replaceChildren(...lines.map((line) => el("li", {}, line)));
    setHidden(this.element, lines.length === 0);
  }
}
