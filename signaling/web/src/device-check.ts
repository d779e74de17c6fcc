// Camera and microphone before one is seen and heard: preview, level, choice of devices, test tone.

import { button, el, relabel, say, sayAs, setAttribute, setData, setHidden, setText } from "./dom.ts";
import { DeviceError, listDevices, openDevice, type DeviceChoice, type DeviceKind } from "./devices.ts";
import { playTone, watchLevel } from "./sound.ts";
import { t, type TextKey } from "./strings.ts";

const INPUT: Record<DeviceKind, MediaDeviceKind> = { camera: "videoinput", microphone: "audioinput" };

export class DeviceCheck {
  readonly element: HTMLElement;
  readonly #video = sayAs(el("video", { playsinline: true }), "aria-label", "devices.preview");
  readonly #noPicture = say(el("p", { class: "no-picture" }), "devices.noCamera");
  readonly #meter = sayAs(
    el("div", { class: "meter", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0" }),
    "aria-label",
    "devices.level",
  );
  readonly #bar = el("span");
  readonly #selects: Record<keyof DeviceChoice, HTMLSelectElement>;
  readonly #faults = { camera: fault(), microphone: fault() };
  readonly #toneHint = say(el("span", { class: "hint", role: "status", hidden: true }), "devices.toneHint");
  readonly #tracks: Record<DeviceKind, MediaStreamTrack | null> = { camera: null, microphone: null };
  #stopLevel: () => void = () => undefined;
  #stopped = false;

  /** `onChange`: the person chose a device, or one was opened or not. */
  constructor(
    private readonly choice: DeviceChoice,
    private readonly onChange: () => void,
  ) {
    this.#selects = { camera: el("select"), microphone: el("select"), speaker: el("select") };
    this.#video.muted = true;
    this.#video.autoplay = true;
    this.#meter.append(this.#bar);
    const tone = button("devices.tone", () => void this.#playTone(), { class: "tone" });
    const picture = el("div", { class: "preview" }, this.#video, this.#noPicture);
    const rows = el(
      "div",
      { class: "rows" },
      this.#row("camera", "devices.camera", this.#faults.camera),
      this.#row("microphone", "devices.microphone", this.#meter, say(el("p", { class: "hint" }), "devices.speak"), this.#faults.microphone),
      this.#row("speaker", "devices.speaker", el("div", { class: "tone-line" }, tone, this.#toneHint)),
    );
    this.element = el("div", { class: "check" }, picture, rows);
  }

  isGood(kind: DeviceKind): boolean {
    return this.#tracks[kind] !== null;
  }

  /** Opens both devices; one that fails says why and leaves the other alone. */
  async start(): Promise<void> {
    await Promise.all([this.#open("camera"), this.#open("microphone")]);
    await this.#list();
  }

  /** Lets go of the devices. */
  stop(): void {
    this.#stopped = true;
    this.#release("camera");
    this.#release("microphone");
  }

  #row(kind: keyof DeviceChoice, label: TextKey, ...below: Node[]): HTMLElement {
    const select = this.#selects[kind];
    select.id = `device-${kind}`;
    select.addEventListener("change", () => void this.#handleChoice(kind));
    return el("div", { class: "device" }, say(el("label", { for: select.id }), label), select, ...below);
  }

  async #handleChoice(kind: keyof DeviceChoice): Promise<void> {
    this.choice[kind] = this.#selects[kind].value;
    if (kind !== "speaker") await this.#open(kind);
    this.onChange();
  }

  async #open(kind: DeviceKind): Promise<void> {
    this.#release(kind);
    try {
      const track = await openDevice(kind, this.choice[kind]);
      if (this.#stopped) return track.stop();
      this.#tracks[kind] = track;
      track.addEventListener("ended", () => this.#handleFault(kind, "missing"));
      this.#show(kind, track);
      this.#setFault(kind, null);
    } catch (error) {
      this.#handleFault(kind, error instanceof DeviceError ? error.fault : "failed");
    }
    this.onChange();
  }

  #handleFault(kind: DeviceKind, why: DeviceError["fault"]): void {
    this.#release(kind);
    this.#setFault(kind, why);
  }

  #setFault(kind: DeviceKind, why: DeviceError["fault"] | null): void {
    setData(this.element, kind, why ?? "good");
    setHidden(this.#faults[kind], why === null);
    if (why !== null) say(this.#faults[kind], `devices.${why}`);
  }

  #show(kind: DeviceKind, track: MediaStreamTrack): void {
    if (kind === "camera") {
      this.#video.srcObject = new MediaStream([track]);
      void this.#video.play().catch(() => undefined);
      setHidden(this.#noPicture, true);
    } else {
      this.#stopLevel = watchLevel(track, (level) => {
        this.#bar.style.width = `${Math.round(level * 100)}%`;
        setAttribute(this.#meter, "aria-valuenow", String(Math.round(level * 100)));
        setData(this.#meter, "level", level.toFixed(2));
      });
    }
  }

  #release(kind: DeviceKind): void {
    this.#tracks[kind]?.stop();
    this.#tracks[kind] = null;
    if (kind === "camera") {
      this.#video.srcObject = null;
      setHidden(this.#noPicture, false);
    } else {
      this.#stopLevel();
      this.#stopLevel = () => undefined;
      this.#bar.style.width = "0";
    }
  }

  async #list(): Promise<void> {
    const devices = await listDevices();
    for (const kind of ["camera", "microphone"] as const) {
      const none: TextKey = kind === "camera" ? "devices.noCamera" : "devices.noMicrophone";
      const found = devices.filter((d) => d.kind === INPUT[kind] && d.deviceId !== "");
      fill(this.#selects[kind], found, this.#tracks[kind]?.getSettings().deviceId ?? this.choice[kind], found.length === 0 ? none : null);
    }
    const speakers = devices.filter((d) => d.kind === "audiooutput" && d.deviceId !== "" && d.deviceId !== "default");
    fill(this.#selects.speaker, speakers, this.choice.speaker, "devices.systemSpeaker");
    relabel(this.element);
  }

  async #playTone(): Promise<void> {
    setHidden(this.#toneHint, false);
    setData(this.element, "tone", "played");
    await playTone(this.choice.speaker).catch(() => setData(this.element, "tone", "failed"));
  }
}

function fill(select: HTMLSelectElement, devices: MediaDeviceInfo[], chosen: string, first: TextKey | null): void {
  const options = devices.map((d) => new Option(d.label || t.devices.unnamed, d.deviceId));
  if (first !== null) options.unshift(say(new Option("", ""), first));
  select.replaceChildren(...options);
  if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
  select.disabled = options.length < 2;
}

function fault(): HTMLElement {
  const element = el("p", { class: "device-fault", role: "alert", hidden: true });
  setText(element, "");
  return element;
}
