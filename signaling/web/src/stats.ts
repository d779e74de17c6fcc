// Figures of a leg: differences between two readings of RTCPeerConnection.getStats().

export interface Figures {
  bitsPerSecond: number | null;
  lossPercent: number | null;
  bufferMs: number | null;
  roundTripMs: number | null;
}

export const NO_FIGURES: Figures = { bitsPerSecond: null, lossPercent: null, bufferMs: null, roundTripMs: null };

/** The counters that matter, as they stand at one moment. */
export interface Reading {
  atMs: number;
  bytes: number;
  packets: number;
  lost: number;
  /** Sum over all frames of their time in the jitter buffer, in seconds. */
  bufferSeconds: number;
  bufferFrames: number;
  roundTripSeconds: number | null;
}

type Entry = Record<string, unknown> & { id: string; type: string };

/** One reading out of a report; null before the first packet. */
export function readingOf(report: Iterable<Entry>): Reading | null {
  const entries = [...report];
  const inbound = entries.find((e) => e.type === "inbound-rtp" && e["kind"] === "video");
  if (inbound === undefined) return null;
  const transport = entries.find((e) => e.type === "transport" && e["selectedCandidatePairId"] !== undefined);
  const pair = entries.find((e) => e.type === "candidate-pair" && isSelected(e, transport));
  return {
    atMs: number(inbound, "timestamp"),
    bytes: number(inbound, "bytesReceived") + number(inbound, "headerBytesReceived"),
    packets: number(inbound, "packetsReceived"),
    lost: number(inbound, "packetsLost"),
    bufferSeconds: number(inbound, "jitterBufferDelay"),
    bufferFrames: number(inbound, "jitterBufferEmittedCount"),
    roundTripSeconds: pair === undefined ? null : optional(pair, "currentRoundTripTime"),
  };
}

/** Figures over the time between two readings. A difference of nothing says nothing: null. */
export function figuresBetween(before: Reading, after: Reading): Figures {
  const seconds = (after.atMs - before.atMs) / 1000;
  const packets = after.packets - before.packets;
  // The count of lost packets goes down when a late one comes after all (RFC 3550 section 6.4.1).
  const lost = Math.max(0, after.lost - before.lost);
  const frames = after.bufferFrames - before.bufferFrames;
  return {
    bitsPerSecond: seconds > 0 ? (Math.max(0, after.bytes - before.bytes) * 8) / seconds : null,
    lossPercent: packets + lost > 0 ? (lost * 100) / (packets + lost) : null,
    bufferMs: frames > 0 ? ((after.bufferSeconds - before.bufferSeconds) * 1000) / frames : null,
    roundTripMs: after.roundTripSeconds === null ? null : after.roundTripSeconds * 1000,
  };
}

/** Frames per second, from the browser's own count of presented frames: right also where a callback was missed. */
export class FrameRate {
  #marks: { atMs: number; frames: number }[] = [];

  handleFrame(atMs: number, frames: number): void {
    this.#marks.push({ atMs, frames });
    while (this.#marks.length > 2 && atMs - (this.#marks[0]?.atMs ?? atMs) > 1000) this.#marks.shift();
  }

  /** Rate over about the last second; 0 where no frame came within the last one. */
  perSecond(nowMs: number): number {
    const first = this.#marks[0];
    const last = this.#marks[this.#marks.length - 1];
    if (first === undefined || last === undefined || nowMs - last.atMs > 1000 || last.atMs <= first.atMs) return 0;
    return ((last.frames - first.frames) * 1000) / (last.atMs - first.atMs);
  }
}

function isSelected(pair: Entry, transport: Entry | undefined): boolean {
  if (transport !== undefined) return pair.id === transport["selectedCandidatePairId"];
  return pair["nominated"] === true && pair["state"] === "succeeded";
}

function optional(entry: Entry, key: string): number | null {
  const value = entry[key];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function number(entry: Entry, key: string): number {
  return optional(entry, key) ?? 0;
}
