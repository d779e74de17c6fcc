// What crosses the wire: the JSON of proto::session, field by field. Times are microseconds since the Unix epoch.

export type WallMicros = number;
export type Role = "local" | "expert" | "observer" | "coordinator" | "engineer" | "recorder" | "publisher";
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
  /** How one can log in, where that is asked for. */
  ways?: string[];
  /** Where a login is asked for: one may come in without, in an emergency. */
  break_glass?: boolean;
}

/** Why somebody comes in without the login that is asked for. */
export interface BreakGlass {
  reason: string;
  confirm: true;
}

/** Of somebody who did. */
export interface BrokenGlass {
  reason: string;
  until: WallMicros;
}

/** Answer to `POST /v1/login`. */
export interface IdentityGrant {
  identity: string;
  expires: number;
  account: string;
  name: string;
}

/** Answer to `POST /v1/login/begin`. */
export interface BegunLogin {
  url: string;
  expires: number;
}

/** `publicKey` of `navigator.credentials.get`, bytes as base64url. */
export interface RequestOptions {
  challenge: string;
  rpId: string;
  timeout: number;
  userVerification: UserVerificationRequirement;
}

/** Answer to `POST /v1/login/passkey/begin`. */
export interface BegunPasskey {
  ceremony: string;
  expires: number;
  options: RequestOptions;
}

/** `publicKey` of `navigator.credentials.create`, bytes as base64url. */
export interface CreationOptions {
  rp: { id: string; name: string };
  user: { id: string; name: string; displayName: string };
  challenge: string;
  pubKeyCredParams: PublicKeyCredentialParameters[];
  timeout: number;
  excludeCredentials?: { type: "public-key"; id: string }[];
  authenticatorSelection: AuthenticatorSelectionCriteria;
  attestation: AttestationConveyancePreference;
}

/** Answer to `POST /v1/passkeys/begin`. */
export interface BegunRegistration {
  ceremony: string;
  expires: number;
  account: string;
  name: string;
  options: CreationOptions;
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
  /** Of a feed that is to be protected by two paths; missing before anything came. */
  paths?: FeedPaths;
}

/** How many paths bring a feed to the relay. */
export interface FeedPaths {
  expected: number;
  alive: number;
  since: WallMicros;
}

export interface ParticipantInfo {
  participant: string;
  name: string;
  role: Role;
  realm: string;
  organisation?: string;
  /** A WHIP or WHEP client that came by an invitation alone. */
  guest?: boolean;
  /** Came in by break-glass, without the login that the role asks for. */
  break_glass?: BrokenGlass;
  since: WallMicros;
}

/** Shortest and longest reason, in characters (Unicode code points). */
export const REASON_LEN = { min: 3, max: 200 } as const;

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

/** A set of what may be operated; energy only with instruments. */
export interface ControlSet {
  camera: boolean;
  instruments: boolean;
  energy: boolean;
}

/** Longest reason of a request or a stop, in bytes of UTF-8. */
export const MAX_REASON_BYTES = 128;

export const CONTROL_MODES = ["hold", "local", "offered", "ready", "granting", "remote", "estop", "closed"] as const;
export type ControlMode = (typeof CONTROL_MODES)[number];
export type Colour = "unmeasured" | "green" | "amber" | "red";

/** The register as the gate's STATUS says it. */
export interface ControlInfo {
  mode: ControlMode;
  epoch: number;
  /** Holder in `remote`, addressee before it; null where that one is not known here. */
  participant: string | null;
  /** SHA-256 of that one's certificate, hexadecimal. */
  expert: string | null;
  set: ControlSet;
  since_ms: number;
  stopped: string[];
  alarms: string[];
  /** Loop age, jitter, loss, frame age. */
  colours: Colour[];
  /** Loop age p50, p95, jitter p95 (µs), loss (ppm), frame age (µs); null where unmeasured. */
  figures: (number | null)[];
  /** Whether the loss of one path between expert and gate would be felt. A server from before this says nothing. */
  paths?: "single" | "protected" | "unprotected";
  /** Nonces of probes that this answers. */
  answers: string[];
  status_age_ms: number;
}

export interface ControlNotice {
  what: string;
  person: string;
  reason: string;
}

export type ClientEvent =
  | { type: "hello"; token: string }
  | { type: "clock"; t0: WallMicros }
  | { type: "clock_report"; offset_us: number; uncertainty_us: number }
  | { type: "chat"; text: string }
  | { type: "shown"; leg: string }
  | { type: "control_probe"; nonce: string }
  | { type: "control_request"; set: ControlSet; reason: string }
  | { type: "control_estop"; reason: string };

export type ServerEvent =
  | { type: "welcome"; participant: string; now: WallMicros; session: SessionInfo; chat?: ChatMessage[]; traced?: boolean }
  | { type: "chat"; message: ChatMessage }
  | { type: "clock_reply"; t0: WallMicros; t1: WallMicros; t2: WallMicros }
  | { type: "participant_joined"; participant: ParticipantInfo }
  | { type: "participant_left"; participant: string }
  | { type: "feed"; feed: FeedInfo }
  | { type: "feed_removed"; feed: string }
  | ({ type: "capture" } & CapturePoint)
  | { type: "leg"; leg: string; state: LegState }
  | { type: "switched"; leg: string; feed: string }
  | { type: "publication"; publication: string; state: LegState }
  | { type: "voices"; leg: string; slots: VoiceSlot[] }
  | { type: "speaking"; feeds: string[] }
  | { type: "control"; control: ControlInfo }
  | { type: "control_gone" }
  | ({ type: "control_notice" } & ControlNotice)
  | { type: "refused"; what: string; detail: string }
  | { type: "goodbye"; reason: string };
