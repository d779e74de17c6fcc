// Every limit of the page, with where it comes from. Times are in milliseconds unless the name says otherwise.

/** Picture age from which it is amber. Handover specification, section 6, telementoring row (National Cancer Center 8K trial). */
export const AGE_AMBER_MS = 600;
/** Picture age from which it is red. Same row. This page holds no authority; the 300 ms limit for that is the gate's. */
export const AGE_RED_MS = 1300;

/** A picture that stands still for longer is called frozen. With a tick of 50 ms the surgeon sees it within 500 ms. */
export const FREEZE_MS = 400;
/** Slow feeds get this many of their own frame times instead, where that is longer. */
export const FREEZE_FRAME_TIMES = 2.5;
/** How often the page looks whether pictures and relay are still there. */
export const TICK_MS = 50;
/**
 * How often the age is written: more than four times a second. No multiple of a usual frame time: at one, it is just the
 * frames that come late that are written, and the figure is worse than the picture.
 */
export const AGE_UPDATE_MS = 187;

/** How often the relay is asked for its time; also what the answer watchdog lives on. */
export const CLOCK_EVERY_MS = 500;
/** Nothing heard from the relay for this long while a question is open: it does not answer. */
export const SILENT_MS = 900;
/** Nothing for this long: the socket is given up and opened anew. */
export const GIVE_UP_MS = 3000;
/** After the socket is lost a picture counts as moving only once it has shown new frames for this long. */
export const LOST_PROOF_MS = 1500;

/** How long a clock sample counts, and how many are kept. As in proto::session::clock. */
export const CLOCK_WINDOW_MS = 30_000;
export const CLOCK_SAMPLES = 64;

/** Points of the capture map further away than this are not trusted. */
export const POINT_TRUST_MS = 3000;
/** Points kept for one leg: about ten a second come, so this is six seconds of them. */
export const POINTS_KEPT = 64;
/** Legs whose points are kept; the one that has been silent longest goes first. */
export const LEGS_KEPT = 64;
/** One refresh of a 60 Hz screen: the moment of presentation is not known better. */
export const DISPLAY_INTERVAL_US = 16_000;

/** Reconnection waits: first, and longest. */
export const BACKOFF_FIRST_MS = 500;
export const BACKOFF_MAX_MS = 4000;
/** The same where nothing answers at all: only the network is tried then, so it is tried often. */
export const UNREACHABLE_FIRST_MS = 250;
export const UNREACHABLE_MAX_MS = 1000;
/** An HTTP request that takes longer is given up. */
export const REQUEST_TIMEOUT_MS = 5000;
/** Longest wait for an answer about a login at an issuer, which the relay asks meanwhile. */
export const LOGIN_TIMEOUT_MS = 12_000;
/** A handshake of the event socket that takes longer is given up. */
export const SOCKET_TIMEOUT_MS = 4800;
/**
 * A handshake that hangs for this long gets another one beside it: what was sent into a dead network is repeated by the
 * system only after seconds, which a picture cannot wait for. So many hang at a time at most, which is one until the timeout.
 */
export const SOCKET_RACE_MS = 800;
export const SOCKET_RACERS = 6;
/** A restart of ICE that has not led to a connection after this long: the connection is replaced. */
export const RESTART_WAIT_MS = 1500;
/** Candidates that are found within this time of each other go in one PATCH. */
export const TRICKLE_MS = 50;
/** How long the first connection waits for the list of STUN and TURN servers; later ones have it. */
export const ICE_SERVERS_WAIT_MS = 400;
/** The list is asked for anew when this part of the life of its credentials is over. */
export const ICE_SERVERS_REFRESH_PART = 0.8;
/** How long a short message stays on the screen. */
export const TOAST_MS = 6000;
/** Short messages that wait; the oldest goes first. */
export const TOASTS_KEPT = 4;
/** Bit rates of what this page sends, in bit/s: ceilings, and the one to begin with. */
export const VOICE_BITRATE = 64_000;
export const CAMERA_BITRATE = 4_000_000;
export const SCREEN_BITRATE = 8_000_000;
export const START_KILOBITS = 1500;
/** The offer leaves after this long, with the candidates that there are: the relay is ICE-lite and needs none of ours. */
export const GATHER_MS = 300;
/** A leg whose feed is live and whose picture has stood still for this long is opened anew. */
export const LEG_RESTART_MS = 4000;
/** A leg that was refused for a reason that rarely passes is tried again only so often. */
export const LEG_REFUSED_MS = 10_000;
/** A view has enough pixels for a tile from this share of the tile's on; it is left for a smaller one that has this share. */
export const VIEW_ENOUGH = 0.75;
export const VIEW_SPARE = 0.9;
/** Another view must have fitted better for this long before the tile goes over to it. */
export const VIEW_SETTLE_MS = 1000;
/** The relay was asked for another view, and has neither gone over nor refused: it is asked again. */
export const VIEW_AGAIN_MS = 5000;
/** How often figures of a leg are read. */
export const STATS_EVERY_MS = 1000;
/** The token is refreshed when this part of its life is over. */
export const TOKEN_REFRESH_PART = 0.6;

/** A register older than this is never shown as current, whatever the gate's own `status_age` allows. HANDOVER.md, HO-V-002. */
export const CONTROL_AGE_MS = 500;
/** How often the gate is asked how the register is: five times a second at most, by docs/API.md. */
export const PROBE_EVERY_MS = 200;
/** The same while it is not known whether the session has a gate. */
export const PROBE_IDLE_MS = 1000;
/** Probes under way at most; the oldest is forgotten (HO-V-005). */
export const PROBES_KEPT = 32;
/** The wall clock gained so much on the monotonic one since the last look: this machine slept. */
export const SLEPT_MS = 300;
/** STOP is pressed for so long: no accident, and still quick. */
export const STOP_HOLD_MS = 600;
/** One STOP in this time, as the gate and signaling take them (`estop_every`). */
export const STOP_EVERY_MS = 10_000;
/** Who cannot hold a button presses it twice within this. */
export const STOP_ARMED_MS = 5000;
/** After this time without word, a person is told that there is no confirmation. */
export const CONFIRM_MS = 3000;
/** How long what somebody did stays in the banner; the list keeps it. */
export const NOTICE_MS = 20_000;
export const NOTICES_KEPT = 50;
/** "Unknown" is read aloud only where it lasts: a single late answer is seen, not heard. */
export const SPEAK_UNKNOWN_MS = 1000;
