// Whether the microphone may be heard. Pure. It is mute unless somebody holds a key or a button, or latched it on.

export type Holder = "key" | "button";

export class Talk {
  #holders = new Set<Holder>();
  #latched = false;
  #connected = false;

  /** The microphone is there, or gone. A new one is always mute. */
  handleConnected(connected: boolean): void {
    if (connected !== this.#connected) this.mute();
    this.#connected = connected;
  }

  press(holder: Holder): void {
    if (this.#connected) this.#holders.add(holder);
  }

  release(holder: Holder): void {
    this.#holders.delete(holder);
  }

  /** The window lost the keyboard: a key-up that goes elsewhere must not leave the microphone open. A latch stays. */
  releaseAll(): void {
    this.#holders.clear();
  }

  toggleLatch(): void {
    if (this.#connected) this.#latched = !this.#latched;
  }

  mute(): void {
    this.#holders.clear();
    this.#latched = false;
  }

  isLatched(): boolean {
    return this.#latched;
  }

  isOpen(): boolean {
    return this.#connected && (this.#latched || this.#holders.size > 0);
  }
}
