// The reason that goes with a request or a stop: one line, counted in bytes of UTF-8 as the gate counts it. Pure.

import { MAX_REASON_BYTES } from "../types.ts";

const encoder = new TextEncoder();

export function bytesOf(text: string): number {
  return encoder.encode(text).length;
}

/** One line without control characters and without space around. */
export function cleanedReason(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
}

/** Bytes left; below zero it is too long. */
export function bytesLeft(text: string): number {
  return MAX_REASON_BYTES - bytesOf(cleanedReason(text));
}

/** As much of it as fits, in whole characters: a stop is never held up by its own reason. */
export function cutReason(text: string): string {
  let cut = "";
  for (const character of cleanedReason(text)) {
    if (bytesOf(cut + character) > MAX_REASON_BYTES) break;
    cut += character;
  }
  return cut;
}
