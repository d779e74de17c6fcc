// What crosses the wire: the JSON of proto::session, field by field. Times are microseconds since the Unix epoch.

export type WallMicros = number;
export type Role = "local" | "expert" | "observer" | "coordinator" | "engineer" | "recorder";
export type FeedState = "waiting" | "live" | "stalled";
export type LegState = "connecting" | "connected" | "closed";
export type Purpose = "scope" | "room" | "voice" | "secondary";

export interface TokenGrant {
  token: string;
  expires: WallMicros;
  participant: string;
  name: string;
  session: string;
  realm: string;
  role: Role;
  grade: string;
  verbs: string[];
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  field?: string;
  /** Feeds that the client could take instead; with 406 only. */
  alternatives?: string[];
}

export interface FeedDescriptor {
  feed: string;
  source: string;
  view: string;
  kind: "video" | "audio" | "data";
  purpose: Purpose;
  codec: string;
  clock_rate: number;
  width: number;
  height: number;
  fps: number;
  max_bitrate: number;
  budget_ms: number;
  priority: number;
  protected: boolean;
  replay: boolean;
}

export interface FeedInfo {
  descriptor: FeedDescriptor;
  publisher: string;
  state: FeedState;
  since: WallMicros;
  clock_uncertainty_us?: number;
}

export interface ParticipantInfo {
  participant: string;
  name: string;
  role: Role;
  realm: string;
  organisation?: string;
  /** A WHIP or WHEP client that came by an invitation alone. */
  guest?: boolean;
  since: WallMicros;
}

/** Longest chat message, in characters (Unicode code points). */
export const MAX_CHAT_LEN = 2000;

export interface ChatMessage {
  id: number;
  participant: string;
  name: string;
  text: string;
  at: WallMicros;
}

export interface VoiceSlot {
  mid: string;
  feed: string | null;
}

export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
  expires?: WallMicros;
}

export interface SessionInfo {
  session: string;
  title: string;
  participants: ParticipantInfo[];
  feeds: FeedInfo[];
}

export interface CapturePoint {
  leg: string;
  rtp: number;
  clock_rate: number;
  capture: WallMicros | null;
  received: WallMicros;
  uncertainty_us: number;
}

export type ClientEvent =
  | { type: "hello"; token: string }
  | { type: "clock"; t0: WallMicros }
  | { type: "clock_report"; offset_us: number; uncertainty_us: number }
  | { type: "chat"; text: string };

export type ServerEvent =
  | { type: "welcome"; participant: string; now: WallMicros; session: SessionInfo; chat?: ChatMessage[] }
  | { type: "chat"; message: ChatMessage }
  | { type: "clock_reply"; t0: WallMicros; t1: WallMicros; t2: WallMicros }
  | { type: "participant_joined"; participant: ParticipantInfo }
  | { type: "participant_left"; participant: string }
  | { type: "feed"; feed: FeedInfo }
  | { type: "feed_removed"; feed: string }
  | ({ type: "capture" } & CapturePoint)
  | { type: "leg"; leg: string; state: LegState }
  | { type: "publication"; publication: string; state: LegState }
  | { type: "voices"; leg: string; slots: VoiceSlot[] }
  | { type: "speaking"; feeds: string[] }
  | { type: "refused"; what: string; detail: string }
  | { type: "goodbye"; reason: string };
