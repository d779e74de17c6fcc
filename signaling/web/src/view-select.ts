// The list on a tile from which a person chooses a view of its source.

import { el, setAttribute, setData, setHidden, setText } from "./dom.ts";
import { t } from "./strings.ts";
import type { ViewModel } from "./tile.ts";

export class ViewSelect {
  readonly element = el("select", { class: "view", hidden: true });
  #byPointer = false;

  /** `onChoose`: a view, or null for the one that fits the tile. */
  constructor(onChoose: (feed: string | null) => void) {
    const select = this.element;
    // A click on the tile shows it large; this one does not.
    select.addEventListener("click", (event) => event.stopPropagation());
    select.addEventListener("pointerdown", () => (this.#byPointer = true));
    select.addEventListener("keydown", () => (this.#byPointer = false));
    select.addEventListener("change", () => {
      onChoose(select.value === "" ? null : select.value);
      // Whoever chose with the mouse and holds the space bar next wants to talk, not to choose again.
      if (this.#byPointer) select.blur();
    });
  }

  render(m: ViewModel | null, title: string): void {
    setHidden(this.element, m === null);
    if (m === null) return;
    setAttribute(this.element, "aria-label", t.tile.viewOf(title));
    setData(this.element, "switching", m.switching ? "yes" : "no");
    const carried = m.options.find((o) => o.feed === m.carried)?.name ?? "";
    const rows = [{ value: "", text: t.tile.viewAuto(carried), beyond: false }, ...m.options.map((o) => ({ value: o.feed, text: words(o), beyond: o.fault === "beyond" }))];
    if (rows.map((r) => r.value).join("\n") !== [...this.element.options].map((o) => o.value).join("\n")) {
      this.element.replaceChildren(...rows.map((r) => new Option(r.text, r.value)));
    }
    rows.forEach((row, i) => {
      const option = this.element.options[i];
      if (option === undefined) return;
      setText(option, row.text);
      if (option.disabled !== row.beyond) option.disabled = row.beyond;
    });
    if (this.element.value !== (m.chosen ?? "")) this.element.value = m.chosen ?? "";
  }
}

function words({ name, fault }: ViewModel["options"][number]): string {
  if (fault === "none") return name;
  return fault === "beyond" ? t.tile.viewBeyond(name) : t.tile.viewSilent(name);
}
