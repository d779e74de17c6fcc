// Every text that a person reads. Another language is another object of this type.

import type { Purpose, Role } from "./types.ts";

export const en = {
  product: "Trocar",
  join: {
    heading: "Join the session",
    name: "Your name",
    nameHint: "This is how others see you.",
    link: "Invitation link",
    linkHint: "Paste the link that you were given.",
    button: "Join",
    busy: "Joining…",
    again: "Join again",
    left: "You have left the session.",
    noInvitation: "This address carries no invitation. Paste the link that you were given.",
    needName: "Please enter your name.",
    unreachable: "The relay cannot be reached. Check the network, then try again.",
  },
  bar: {
    joining: "Connecting to the relay",
    open: "Connected to the relay",
    lost: "Not connected to the relay",
    participants: "Participants",
    fullScreen: "Full screen",
    leave: "Leave",
  },
  link: {
    lost: "CONNECTION TO THE RELAY LOST — picture is not live",
    lostButMoving: "CONNECTION TO THE RELAY LOST — pictures still arrive, their age is unknown",
    silent: "NO ANSWER FROM THE RELAY — picture may not be live",
    since: (seconds: string, retry: string) => `for ${seconds} · ${retry}`,
    retrying: "reconnecting now",
    retryIn: (seconds: string) => `next attempt in ${seconds}`,
    waitingAnswer: "waiting for an answer",
    goodbye: (reason: string) => `The relay is going away: ${reason}`,
  },
  empty: {
    heading: "No picture is published yet",
    text: "It appears here by itself as soon as the operating room sends one.",
    noLink: "The list of pictures comes with the connection to the relay.",
  },
  tile: {
    age: "age of the picture",
    ageReplay: "since the recording was sent",
    ageUnknown: "age unknown",
    ageAtLeast: (age: string) => `age ≥ ${age}`,
    sinceRelay: "since the relay received it",
    amber: "late",
    red: "too old",
    connecting: "Connecting to the picture",
    refused: (why: string) => `Picture cannot be shown: ${why}`,
    waiting: "Waiting for the publisher",
    stalled: (since: string) => `PUBLISHER’S SIGNAL LOST since\u00a0${since}`,
    frozen: "FROZEN PICTURE",
    lost: "NOT LIVE",
    lastPicture: (seconds: string) => `last new picture ${seconds} ago`,
    noPictureYet: "no picture was shown yet",
    replay: "REPLAY — not live",
    loss: "loss",
    buffer: "buffer",
    roundTrip: "round trip",
    frameRate: (frames: string) => `${frames} fps`,
    none: "–",
    promote: (feed: string, key: string) => `Show ${feed} large (key ${key})`,
    promoteTitle: "Show this picture large",
    video: (feed: string) => `Picture of ${feed}`,
    ageHelp: (uncertainty: string) =>
      `Age of the picture on the screen: time now, on the relay’s clock, less the time at which the frame was captured. ` +
      `± ${uncertainty} adds up the publisher’s clock, this page’s clock, and 16 ms for one refresh of the screen; ` +
      `the delay inside the screen itself is not in it.`,
    ageAtLeastHelp: "The publisher gives no capture time. Counted from when the relay received the frame: the true age is more.",
    ageUnknownHelp: "The relay has not said lately which moment this picture shows, or its clock is not known yet.",
  },
  panel: {
    heading: "Participants",
    you: "you",
    since: (time: string) => `since ${time}`,
    hide: "Hide participants",
    none: "Nobody else is here.",
  },
  whep: {
    noSdp: "the relay sent no answer",
    unreachable: "the relay does not answer",
    elsewhere: "the relay named a resource on another host",
  },
  role: {
    local: "surgical team",
    expert: "remote expert",
    observer: "observer",
    coordinator: "coordinator",
    engineer: "engineer",
    recorder: "recorder",
  } satisfies Record<Role, string>,
  purpose: { scope: "endoscope", room: "room camera", voice: "voice", secondary: "secondary picture" } satisfies Record<
    Purpose,
    string
  >,
};

export const t = en;

/** "0.4 s", "12 s", "3 min 05 s": as exact as a person needs. */
export function span(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
}

/** "84 ms" below ten seconds, longer ages as a span. */
export function ageText(ms: number): string {
  return ms < 10_000 ? `${ms} ms` : span(ms);
}

export function bitRate(bitsPerSecond: number): string {
  if (bitsPerSecond >= 1e6) return `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Local hh:mm:ss of a moment in milliseconds since the Unix epoch. */
export function timeOfDay(ms: number): string {
  return clock.format(new Date(ms));
}
