//! What is shown of a feed and a leg, and in which words. Old figures have no words for what is going on.

use super::reading::{FeedName, LegName, Numbers};
use crate::verbs::table::clean;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Whether packets of a feed arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FeedState {
    /// Packets came and come no more.
    Silent,
    /// The relay says that packets come, but its counter stands still.
    Doubtful,
    /// None has come yet.
    Waiting,
    /// They come.
    Live,
}

/// Time in the relay. Each is the upper bound of the histogram's bucket: the true value is not above it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Delay {
    /// Half of the packets took no longer, in milliseconds; infinite above the histogram's last bound.
    #[serde(serialize_with = "finite")]
    pub(super) p50_ms: f64,
    /// 99 of 100 took no longer.
    #[serde(serialize_with = "finite")]
    pub(super) p99_ms: f64,
}

/// Infinity has no JSON.
fn finite<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { s.serialize_f64(*value) } else { s.serialize_str("above the last bucket") }
}

/// A feed. Rates are per second and missing until there are two readings; the rest counts from the feed's beginning.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FeedRow {
    #[serde(flatten)]
    pub(super) name: FeedName,
    pub(super) state: FeedState,
    /// From the publisher, Mbit/s of RTP packets.
    #[serde(rename = "in_mbps")]
    pub(super) mbps: Option<f64>,
    /// From the publisher.
    #[serde(rename = "in_packets_per_s")]
    pub(super) packets: Option<f64>,
    /// To all legs together, without repeats.
    #[serde(rename = "out_packets_per_s")]
    pub(super) out: Option<f64>,
    #[serde(rename = "frames_per_s")]
    pub(super) frames: Option<f64>,
    pub(super) legs: usize,
    pub(super) missing: f64,
    pub(super) duplicates: f64,
    pub(super) refused: f64,
    pub(super) key_requests: f64,
    /// Of a protected feed: the paths that bring it, and how many should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paths: Option<(f64, f64)>,
    #[serde(rename = "relay_delay")]
    pub(super) delay: Option<Delay>,
    /// Something is wrong now or became worse while we looked.
    pub(super) trouble: bool,
}

/// A leg.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LegRow {
    #[serde(flatten)]
    pub(super) name: LegName,
    pub(super) connected: bool,
    #[serde(rename = "packets_per_s")]
    pub(super) packets: Option<f64>,
    pub(super) shed: f64,
    #[serde(rename = "shed_per_s")]
    pub(super) shed_rate: Option<f64>,
    /// Not taken by socket or connection, or too large for it.
    pub(super) dropped: f64,
    pub(super) repeated: f64,
    /// Asked for again and not sent: no longer there, or above the repair budget.
    pub(super) not_repeated: f64,
    /// By the viewer's last report.
    #[serde(rename = "reported_lost")]
    pub(super) lost: Option<f64>,
    pub(super) jitter_ms: Option<f64>,
    pub(super) rtt_ms: Option<f64>,
    pub(super) trouble: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    /// When the newest reading came.
    pub(super) at: Instant,
    /// How long the rates are over.
    pub(super) window: Duration,
    pub(super) feeds: Vec<FeedRow>,
    pub(super) legs: Vec<LegRow>,
    /// Numbers of the relay's workers and of signaling, by metric name.
    pub(super) totals: Numbers,
    /// Changes per second of those that are counters.
    pub(super) rates: BTreeMap<String, f64>,
}

/// Terminals of fewer columns than this show only what tells trouble.
pub(super) const NARROW: u16 = 80;
/// Terminals of fewer columns than this leave out what is rarely looked for.
pub(super) const WIDE: u16 = 140;

/// A column: its head, how many characters it needs, and from how wide a terminal on there is room for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) width: u16,
    pub(super) from: u16,
    /// Numbers stand on the right.
    pub(super) number: bool,
}

const fn text(head: &'static str, width: u16) -> Column {
    Column { head, width, from: 0, number: false }
}

const fn number(head: &'static str, width: u16) -> Column {
    Column { head, width, from: 0, number: true }
}

const fn usual(column: Column) -> Column {
    Column { from: NARROW, ..column }
}

const fn wide(column: Column) -> Column {
    Column { from: WIDE, ..column }
}

/// Columns of the feeds.
pub(super) const FEED_COLUMNS: &[Column] = &[
    text("", 1),
    text("feed", 12),
    wide(text("session", 12)),
    wide(text("what", 28)),
    text("state", 7),
    number("Mbit/s", 7),
    usual(number("in/s", 6)),
    usual(number("out/s", 6)),
    wide(number("frames/s", 8)),
    number("legs", 4),
    number("missing", 7),
    wide(number("refused", 7)),
    wide(number("double", 6)),
    number("keyreq", 6),
    usual(number("p50 ms", 7)),
    number("p99 ms", 7),
];

/// Columns of the legs.
pub(super) const LEG_COLUMNS: &[Column] = &[
    text("", 1),
    text("feed", 12),
    wide(text("session", 12)),
    text("leg", 9),
    usual(text("via", 4)),
    text("state", 5),
    number("out/s", 6),
    number("shed", 6),
    wide(number("shed/s", 6)),
    usual(number("dropped", 7)),
    usual(number("repeat", 6)),
    wide(number("no repeat", 9)),
    number("lost", 6),
    wide(number("jitter ms", 9)),
    number("RTT ms", 7),
];

/// A figure that is not known.
const NONE: &str = "-";

fn rate(value: Option<f64>, fresh: bool, decimals: usize) -> String {
    value.filter(|_| fresh).map_or_else(|| NONE.to_owned(), |v| format!("{v:.decimals$}"))
}

/// What a histogram knows: "≤0.5".
fn bound(value: Option<f64>, fresh: bool) -> String {
    match value.filter(|_| fresh) {
        None => NONE.to_owned(),
        Some(ms) if ms.is_finite() => format!("≤{}", (ms * 1e3).round() / 1e3),
        Some(_) => ">1000".to_owned(),
    }
}

impl FeedRow {
    /// As cells of [`FEED_COLUMNS`]. `what` describes the feed where that is known. Of figures that are not fresh only
    /// what counts from the beginning is left.
    pub(super) fn cells(&self, what: &str, fresh: bool) -> Vec<String> {
        let state = match (fresh, self.state) {
            (false, _) => "old",
            (_, FeedState::Live) if self.is_unprotected() => "1 PATH",
            (_, FeedState::Live) => "live",
            (_, FeedState::Waiting) => "waiting",
            (_, FeedState::Silent) => "SILENT",
            (_, FeedState::Doubtful) => "live?",
        };
        vec![
            mark(self.trouble, fresh),
            clean(&self.name.feed),
            clean(&self.name.session),
            clean(what),
            state.to_owned(),
            rate(self.mbps, fresh, 2),
            rate(self.packets, fresh, 0),
            rate(self.out, fresh, 0),
            rate(self.frames, fresh, 1),
            if fresh { self.legs.to_string() } else { NONE.to_owned() },
            self.missing.to_string(),
            self.refused.to_string(),
            self.duplicates.to_string(),
            self.key_requests.to_string(),
            bound(self.delay.map(|d| d.p50_ms), fresh),
            bound(self.delay.map(|d| d.p99_ms), fresh),
        ]
    }

    /// It is to come by more paths than it does.
    pub(super) fn is_unprotected(&self) -> bool {
        self.paths.is_some_and(|(alive, expected)| alive < expected)
    }

    /// Whether the filter's text is in its names.
    pub(super) fn has(&self, filter: &str) -> bool {
        contains([&self.name.feed, &self.name.session], filter)
    }
}

impl LegRow {
    /// As cells of [`LEG_COLUMNS`].
    pub(super) fn cells(&self, fresh: bool) -> Vec<String> {
        let state = match (fresh, self.connected) {
            (false, _) => "old",
            (_, true) => "up",
            (_, false) => "DOWN",
        };
        let via = match self.name.transport.as_str() {
            "webrtc" => "rtc",
            "roq" => "quic",
            other => other,
        };
        vec![
            mark(self.trouble, fresh),
            clean(&self.name.feed.feed),
            clean(&self.name.feed.session),
            clean(&self.name.leg),
            clean(via),
            state.to_owned(),
            rate(self.packets, fresh, 0),
            self.shed.to_string(),
            rate(self.shed_rate, fresh, 0),
            self.dropped.to_string(),
            self.repeated.to_string(),
            self.not_repeated.to_string(),
            self.lost.map_or_else(|| NONE.to_owned(), |n| n.to_string()),
            rate(self.jitter_ms, fresh, 2),
            rate(self.rtt_ms, fresh, 1),
        ]
    }

    /// Whether the filter's text is in its names.
    pub(super) fn has(&self, filter: &str) -> bool {
        contains([&self.name.feed.feed, &self.name.feed.session, &self.name.leg, &self.name.transport], filter)
    }
}

fn mark(trouble: bool, fresh: bool) -> String {
    if trouble && fresh { "!" } else { "" }.to_owned()
}

fn contains<'a>(names: impl IntoIterator<Item = &'a String>, filter: &str) -> bool {
    let filter = filter.to_lowercase();
    names.into_iter().any(|n| n.to_lowercase().contains(&filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> FeedRow {
        FeedRow {
            name: FeedName { session: "s1".to_owned(), feed: "Scope".to_owned() },
            state: FeedState::Live,
            mbps: Some(24.987),
            packets: Some(2_400.4),
            out: Some(4_800.0),
            frames: Some(59.94),
            legs: 2,
            missing: 3.0,
            duplicates: 0.0,
            refused: 0.0,
            key_requests: 7.0,
            paths: None,
            delay: Some(Delay { p50_ms: 0.05, p99_ms: f64::INFINITY }),
            trouble: true,
        }
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_and_bounds_are_written_as_bounds() {
        let cells = feed().cells("H264 1920x1080", true);
        assert_eq!(cells.len(), FEED_COLUMNS.len());
        assert_eq!(cells[4..8], ["live", "24.99", "2400", "4800"]);
        assert_eq!(cells[14..], ["≤0.05", ">1000"]);
        assert_eq!(cells[0], "!");
    }

    #[test]
    fn a_feed_that_one_of_two_paths_brings_does_not_look_like_any_other() {
        let with = |alive| FeedRow { paths: Some((alive, 2.0)), ..feed() }.cells("", true)[4].clone();
        assert_eq!((with(2.0), with(1.0)), ("live".to_owned(), "1 PATH".to_owned()));
    }

    #[test]
    fn old_figures_keep_their_counts_and_lose_everything_that_looks_alive() {
        let cells = feed().cells("", false);
        assert_eq!(cells[4..8], ["old", "-", "-", "-"]);
        assert_eq!((cells[10].as_str(), cells[13].as_str()), ("3", "7"));
        assert_eq!(cells[14..], ["-", "-"]);
        assert_eq!(cells[0], "");
    }

    #[test]
    fn a_filter_looks_at_names_without_regard_to_case() {
        assert!(feed().has("scop") && feed().has("S1") && feed().has("") && !feed().has("room"));
    }

    #[test]
    fn each_terminal_has_room_for_the_columns_that_it_shows() {
        for columns in [FEED_COLUMNS, LEG_COLUMNS] {
            for (terminal, room) in [(0, 60), (NARROW, NARROW)] {
                let widths = columns.iter().filter(|c| c.from <= terminal).map(|c| c.width);
                let needed = widths.clone().sum::<u16>() + u16::try_from(widths.count()).unwrap() - 1;
                assert!(needed <= room, "{needed} of {room}");
            }
            assert!(columns.iter().all(|c| c.head.len() <= usize::from(c.width)), "heads are read whole");
        }
    }
}
