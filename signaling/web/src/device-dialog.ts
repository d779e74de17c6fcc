// The choice of devices during a session. The devices are open only as long as the dialog is.

import { DeviceCheck } from "./device-check.ts";
import type { DeviceChoice } from "./devices.ts";
import { el } from "./dom.ts";
import { dialog } from "./help.ts";
import { rememberStart, type StartChoice } from "./memory.ts";

export class DeviceDialog {
  readonly element: HTMLDialogElement;
  readonly #place = el("div", { class: "devices" });
  #check: DeviceCheck | null = null;

  /** `onChoice`: another device is to be used from now on. */
  constructor(
    private readonly start: StartChoice,
    private readonly onChoice: (kind: keyof DeviceChoice) => void,
  ) {
    this.element = dialog("devices.settings", this.#place, "device-dialog");
    this.element.addEventListener("close", () => this.#stop());
  }

  toggle(): void {
    if (this.element.open) return this.element.close();
    const before = { ...this.start.devices };
    const check = new DeviceCheck(this.start.devices, () => this.#compare(before));
    this.#check = check;
    this.#place.replaceChildren(check.element);
    this.element.show();
    void check.start();
  }

  close(): void {
    this.element.close();
    this.#stop();
  }

  #compare(before: DeviceChoice): void {
    rememberStart(this.start);
    for (const kind of ["camera", "microphone", "speaker"] as const) {
      if (before[kind] === this.start.devices[kind]) continue;
      before[kind] = this.start.devices[kind];
      this.onChoice(kind);
    }
  }

  #stop(): void {
    this.#check?.stop();
    this.#check = null;
    this.#place.replaceChildren();
  }
}
