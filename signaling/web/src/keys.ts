// Which key does what. Pure: a key comes in, what it asks for goes out.

export type KeyAction =
  | { kind: "promote"; index: number }
  | { kind: "layout" | "full" | "window" | "plain" | "people" | "chat" | "stats" | "latch" | "camera" | "screen" | "devices" | "help" | "control" | "request" };

export interface KeyStroke {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
}

const ACTIONS: Record<string, Exclude<KeyAction, { index: number }>["kind"]> = {
  l: "layout",
  f: "full",
  w: "window",
  h: "plain",
  p: "people",
  t: "chat",
  g: "stats",
  m: "latch",
  c: "camera",
  s: "screen",
  d: "devices",
  o: "control",
  r: "request",
  "?": "help",
};

/** What a key asks for outside of text fields; null where it asks for nothing. */
export function keyAction(stroke: KeyStroke): KeyAction | null {
  if (stroke.ctrlKey || stroke.metaKey || stroke.altKey || isStopKey(stroke)) return null;
  if (/^[1-9]$/.test(stroke.key)) return { kind: "promote", index: Number(stroke.key) - 1 };
  const kind = ACTIONS[stroke.key.toLowerCase()];
  return kind === undefined ? null : { kind };
}

/** Shift + S, to be held: STOP. */
export function isStopKey(stroke: KeyStroke): boolean {
  return stroke.shiftKey && !stroke.ctrlKey && !stroke.metaKey && !stroke.altKey && stroke.key.toLowerCase() === "s";
}
