// What a picture is called on the page. Pictures that browsers send have names made of ids, which tell a person nothing: they
// are called by who sends them.

import { t } from "./strings.ts";
import type { FeedInfo } from "./types.ts";

export type Sending = "microphone" | "camera" | "screen";

/** Name of the feed under which a participant's page sends something. */
export function ownFeed(what: Sending, participant: string): string {
  return { microphone: "voice-", camera: "cam-", screen: "screen-" }[what] + participant.slice(0, 8);
}

/** What it is, where the name of its sender stands beside it. */
export function pictureKind({ descriptor, publisher }: FeedInfo): string {
  if (descriptor.feed === ownFeed("camera", publisher)) return t.publish.camera;
  return descriptor.feed === ownFeed("screen", publisher) ? t.publish.screen : t.panel.video(descriptor.feed);
}

/** `nameOf`: the name of a participant; empty where it is not known. */
export function pictureName(info: FeedInfo, nameOf: (participant: string) => string): string {
  const { feed } = info.descriptor;
  const name = nameOf(info.publisher);
  if (name === "") return feed;
  if (feed === ownFeed("camera", info.publisher)) return name;
  return feed === ownFeed("screen", info.publisher) ? t.tile.screenOf(name) : feed;
}
