// Word goes round when anything reached the relay, or the system has a network again: then nobody waits any longer.

type Listener = (nowMs: number) => void;

const listeners = new Set<Listener>();

/** Calls back at each such moment, until the signal ends it. */
export function onReach(listener: Listener, signal: AbortSignal): void {
  listeners.add(listener);
  signal.addEventListener("abort", () => listeners.delete(listener));
}

export function reached(): void {
  const nowMs = performance.now();
  for (const listener of [...listeners]) listener(nowMs);
}
