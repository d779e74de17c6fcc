//! What a native viewer counts and prints.

use crate::net::api::protection;
use crate::watch::origin::Ages;
use crate::watch::screen::{Screen, alarm, good};
use crate::watch::sink::{self, PathsOf};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use trocar_proto::media::receive::{CompleteFrame, ReceiveCounters};
use trocar_proto::session::api::{FeedPaths, FeedState};
use trocar_proto::session::feed::FeedDescriptor;

/// Nothing new for this long is a picture that stands still.
const FROZEN_AFTER: Duration = Duration::from_millis(500);

/// Percentiles in milliseconds, measured from capture to the frame's last packet here (not to a screen).
#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
    uncertainty: f64,
    frames: u64,
}

/// One line of figures.
#[derive(Debug, Clone, Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    feed: &'a str,
    codec: &'a str,
    width: u32,
    height: u32,
    seconds: f64,
    state: &'static str,
    frames: u64,
    key_frames: u64,
    frames_lost: u64,
    frames_skipped: u64,
    packets: u64,
    packets_missing: u64,
    duplicates: u64,
    unusable: u64,
    mbit_per_s: f64,
    frames_per_s: f64,
    longest_gap_ms: f64,
    age_ms: Option<Percentiles>,
    age_unknown_frames: u64,
    age_impossible_frames: u64,
    /// Of the newest frame, when it had come.
    age_last_ms: Option<f64>,
    /// Of a protected feed: the paths that bring it to the relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    feed_paths: Option<FeedPaths>,
    /// Of a leg over two paths: those that bring it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    leg_paths: Option<FeedPaths>,
    jitter_ms: Option<f64>,
    rtt_ms: Option<f64>,
    first_frame_ms: Option<f64>,
}

/// How the figures are shown.
enum Output {
    /// A JSON object a line.
    Json,
    /// A line of text a second.
    Text,
    /// A few lines in place; with the last thing that happened.
    Screen(Screen, String),
}

/// Counts over all legs of a watch.
pub(crate) struct Tally {
    feed: String,
    codec: String,
    size: (u32, u32),
    output: Output,
    line: sink::Line,
    rates: (f64, f64),
    last_age: Option<Ages>,
    began: Instant,
    leg_began: Instant,
    first_frame_ms: Option<f64>,
    ages: Option<Histogram<u64>>,
    /// The largest of the frames in `ages`.
    uncertainty_us: u64,
    age_unknown: u64,
    /// Capture times later than now by more than their uncertainty: clocks that do not agree.
    age_impossible: u64,
    frames: u64,
    key_frames: u64,
    last_frame: Option<Instant>,
    /// Since when a frame is missed: the newest one, or the first leg's begin.
    missed_since: Option<Instant>,
    /// The longest gap that has ended.
    longest_gap: Duration,
    before: ReceiveCounters,
    second: (Instant, u64, u64),
    totals: ReceiveCounters,
    state: &'static str,
    feed_paths: Option<FeedPaths>,
    leg_paths: Option<FeedPaths>,
}

impl Tally {
    /// For the feed of this name: JSON lines, or a view in place on a terminal, or lines of text.
    pub(crate) fn new(feed: &str, json: bool) -> Self {
        let now = Instant::now();
        let output = match json {
            true => Output::Json,
            false if std::io::stdout().is_terminal() => Output::Screen(Screen::new(), String::new()),
            false => Output::Text,
        };
        Self {
            feed: feed.to_owned(),
            codec: String::new(),
            size: (0, 0),
            output,
            line: sink::Line::default(),
            rates: (0.0, 0.0),
            last_age: None,
            began: now,
            leg_began: now,
            first_frame_ms: None,
            // 1 µs to 10 min with three digits: the bounds are constants, so this cannot fail.
            ages: Histogram::new_with_bounds(1, 600_000_000, 3).ok(),
            uncertainty_us: 0,
            age_unknown: 0,
            age_impossible: 0,
            frames: 0,
            key_frames: 0,
            last_frame: None,
            missed_since: None,
            longest_gap: Duration::ZERO,
            before: ReceiveCounters::default(),
            second: (now, 0, 0),
            totals: ReceiveCounters::default(),
            state: "waiting",
            feed_paths: None,
            leg_paths: None,
        }
    }

    /// Says that another number of paths brings the feed or the leg; nothing where it is what was said before.
    pub(crate) fn paths(&mut self, of: PathsOf, paths: FeedPaths) {
        let (told, what) = match of {
            PathsOf::Feed => (&mut self.feed_paths, "feed"),
            PathsOf::Leg => (&mut self.leg_paths, "leg"),
        };
        if told.replace(paths) == Some(paths) {
            return;
        }
        let feed = &self.feed;
        let json = || serde_json::json!({"type": "paths", "feed": feed, "of": what, "paths": paths});
        tell(&mut self.output, format!("{what}: {}", protection(paths)), json);
    }

    /// Complete frames so far.
    pub(crate) const fn frames(&self) -> u64 {
        self.frames
    }

    /// What the session says about the feed.
    pub(crate) fn describe(&mut self, feed: &FeedDescriptor) {
        self.codec.clone_from(&feed.codec);
        self.size = (feed.width, feed.height);
    }

    /// What comes is in this codec.
    pub(crate) fn set_codec(&mut self, codec: &str) {
        codec.clone_into(&mut self.codec);
    }

    pub(crate) fn begin_leg(&mut self) {
        self.leg_began = Instant::now();
        self.missed_since.get_or_insert(self.leg_began);
        self.second = (self.leg_began, 0, 0);
        self.totals = ReceiveCounters::default();
    }

    /// Adds what the leg's receiver counted to what came before it.
    pub(crate) fn end_leg(&mut self, c: ReceiveCounters) {
        self.before = add(self.before, c);
        self.totals = ReceiveCounters::default();
    }

    pub(crate) fn complete(&mut self, frame: &CompleteFrame, age: Option<Ages>) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap(now);
        self.last_frame = Some(now);
        self.missed_since = Some(now);
        self.first_frame_ms.get_or_insert_with(|| (now - self.leg_began).as_secs_f64() * 1e3);
        self.last_age = age;
        self.frames += 1;
        self.key_frames += u64::from(frame.independent);
        self.record_age(age);
    }

    fn record_age(&mut self, age: Option<Ages>) {
        match (age, &mut self.ages) {
            // In the histogram it would pass for the best age of all.
            (Some(a), _) if a.age_us < 0 && a.age_us.unsigned_abs() > a.uncertainty_us => self.age_impossible += 1,
            (Some(a), Some(h)) => {
                // Negative within the uncertainty: as young as can be told, one microsecond.
                h.saturating_record(u64::try_from(a.age_us).unwrap_or(0).max(1));
                self.uncertainty_us = self.uncertainty_us.max(a.uncertainty_us);
            }
            _ => self.age_unknown += 1,
        }
    }

    /// The longest time without a complete frame, the one that lasts still included: a picture that stands still shows.
    fn longest_gap(&self, now: Instant) -> Duration {
        let lasting = self.missed_since.map(|t| now.saturating_duration_since(t));
        self.longest_gap.max(lasting.unwrap_or_default())
    }

    pub(crate) fn lost(&mut self, frame: u32, packets: u32) {
        let text = format!("frame {frame} lost: {packets} of its packets came");
        let feed = &self.feed;
        let json = || serde_json::json!({"type": "lost", "feed": feed, "frame": frame, "packets_came": packets});
        tell(&mut self.output, text, json);
    }

    pub(crate) fn gap(&mut self, why: &str) {
        let feed = &self.feed;
        let json = || serde_json::json!({"type": "gap", "feed": feed, "why": why});
        tell(&mut self.output, format!("{why}; waiting for the feed"), json);
    }

    /// Takes the counters of the present leg and shows the figures: `second` where a second is over.
    pub(crate) fn tick(&mut self, c: ReceiveCounters, feed: Option<FeedState>, line: sink::Line, second: bool) {
        self.totals = c;
        self.line = line;
        let now = Instant::now();
        // A picture that stands still is never called live.
        let silent = self.last_frame.is_none_or(|t| now - t > FROZEN_AFTER);
        self.state = match feed {
            Some(FeedState::Waiting) | None => "waiting",
            Some(FeedState::Stalled) => "stalled",
            Some(FeedState::Live) if silent => "frozen",
            Some(FeedState::Live) => "live",
        };
        let since = (now - self.second.0).as_secs_f64();
        if second && since >= 0.2 {
            // The next leg counts from 0, and its line may not be there yet.
            let (bytes, frames) = (c.bytes.saturating_sub(self.second.1), c.frames.saturating_sub(self.second.2));
            self.rates = ((bytes * 8) as f64 / since / 1e6, frames as f64 / since);
            self.second = (now, c.bytes, c.frames);
            if !matches!(self.output, Output::Screen(..)) {
                self.print("second", self.rates);
            }
        }
        let shown = self.figures("second", self.rates);
        let still = self.last_frame.filter(|_| silent).map(|t| now - t);
        let event = if let Output::Screen(_, event) = &self.output { event.as_str() } else { return };
        let lines = screen_lines(&shown, still, self.last_age, event);
        if let Output::Screen(screen, _) = &mut self.output {
            screen.draw(&lines);
        }
    }

    /// The figures of the whole watch.
    pub(crate) fn print_summary(&mut self) {
        if matches!(self.output, Output::Screen(..)) {
            // Gives the terminal back before the line that stays.
            self.output = Output::Text;
        }
        let all = add(self.before, self.totals);
        let seconds = self.began.elapsed().as_secs_f64().max(1e-3);
        self.print("summary", ((all.bytes * 8) as f64 / seconds / 1e6, self.frames as f64 / seconds));
    }

    fn percentiles(&self) -> Option<Percentiles> {
        let h = self.ages.as_ref().filter(|h| !h.is_empty())?;
        let at = |q: f64| h.value_at_quantile(q) as f64 / 1e3;
        Some(Percentiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: h.max() as f64 / 1e3,
            uncertainty: self.uncertainty_us as f64 / 1e3,
            frames: h.len(),
        })
    }

    fn figures(&self, kind: &'static str, (mbit_per_s, frames_per_s): (f64, f64)) -> Line<'_> {
        let c = add(self.before, self.totals);
        let ms = |us: u64| us as f64 / 1e3;
        Line {
            kind,
            feed: &self.feed,
            codec: &self.codec,
            width: self.size.0,
            height: self.size.1,
            seconds: self.began.elapsed().as_secs_f64(),
            state: self.state,
            frames: self.frames,
            key_frames: self.key_frames,
            frames_lost: c.frames_lost,
            frames_skipped: c.frames_skipped,
            packets: c.packets,
            packets_missing: c.packets_missing,
            duplicates: c.duplicates,
            unusable: c.unusable,
            mbit_per_s,
            frames_per_s,
            longest_gap_ms: self.longest_gap(Instant::now()).as_secs_f64() * 1e3,
            age_ms: self.percentiles(),
            age_unknown_frames: self.age_unknown,
            age_impossible_frames: self.age_impossible,
            age_last_ms: self.last_age.map(|a| a.age_us as f64 / 1e3),
            feed_paths: self.feed_paths,
            leg_paths: self.leg_paths,
            jitter_ms: self.line.jitter_us.map(ms),
            rtt_ms: self.line.rtt_us.map(ms),
            first_frame_ms: self.first_frame_ms,
        }
    }

    fn print(&self, kind: &'static str, rates: (f64, f64)) {
        let line = self.figures(kind, rates);
        if matches!(self.output, Output::Json) {
            // Serialising plain numbers and names cannot fail; an empty line would be told from a figure.
            println!("{}", serde_json::to_string(&line).unwrap_or_default());
        } else {
            print_text(&line);
        }
    }
}

/// Says that something happened.
fn tell(output: &mut Output, text: String, json: impl FnOnce() -> serde_json::Value) {
    match output {
        Output::Json => println!("{}", json()),
        Output::Text => println!("{text}"),
        Output::Screen(_, event) => *event = text,
    }
}

/// The view in place. `still` is how long nothing new has come, where that is too long.
fn screen_lines(l: &Line<'_>, still: Option<Duration>, last: Option<Ages>, event: &str) -> Vec<String> {
    let state = match (l.state, still) {
        ("live", _) => good("LIVE"),
        ("frozen" | "stalled", Some(t)) => alarm(&format!("{} {:.1} s", l.state.to_uppercase(), t.as_secs_f64())),
        (other, _) => alarm(&other.to_uppercase()),
    };
    let size = if l.width > 0 { format!("{}x{}", l.width, l.height) } else { "size unknown".to_owned() };
    let codec = if l.codec.is_empty() { "codec unknown" } else { l.codec };
    let percentiles = l.age_ms.map_or_else(|| "unknown".to_owned(), |a| format!("p50 {:.1}   p99 {:.1}", a.p50, a.p99));
    let last = last.map_or_else(
        || "unknown".to_owned(),
        |a| format!("{:.1} ± {:.1} ms", a.age_us as f64 / 1e3, a.uncertainty_us as f64 / 1e3),
    );
    let ms = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.1} ms"));
    let paths = [("feed", l.feed_paths), ("leg", l.leg_paths)];
    let paths: String = paths.iter().filter_map(|(of, p)| Some(format!("   {}", shown_paths(of, (*p)?)))).collect();
    vec![
        format!("{}   {state}   {:.0} s{paths}", l.feed, l.seconds),
        format!("  picture  {size}   {codec}   {:.1} frames/s   {:.2} Mbit/s", l.frames_per_s, l.mbit_per_s),
        format!("  age      {percentiles}   last {last}"),
        format!(
            "  loss     {} frames of {}   {} skipped   {} packets of {}",
            l.frames_lost,
            l.frames,
            l.frames_skipped,
            l.packets_missing,
            l.packets + l.packets_missing
        ),
        format!(
            "  line     jitter {}   RTT {}   longest gap {:.0} ms",
            ms(l.jitter_ms),
            ms(l.rtt_ms),
            l.longest_gap_ms
        ),
        format!("  {event}"),
    ]
}

fn shown_paths(of: &str, paths: FeedPaths) -> String {
    let text = format!("{of} {}", protection(paths));
    if paths.is_protected() { good(&text) } else { alarm(&text) }
}

fn print_text(l: &Line<'_>) {
    let age = l.age_ms.map_or_else(
        || "age unknown".to_owned(),
        |a| {
            format!(
                "age ms p50 {:.1} p95 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} ± {:.1}",
                a.p50, a.p95, a.p99, a.p999, a.max, a.uncertainty
            )
        },
    );
    let what = if l.kind == "summary" { "summary" } else { l.state };
    println!(
        "{:7.1}s {what:8} {} {:.1} frames/s {:.2} Mbit/s | frames {} lost {} skipped {} | packets {} missing {} | longest gap {:.0} ms | {age} | age impossible {}",
        l.seconds,
        l.feed,
        l.frames_per_s,
        l.mbit_per_s,
        l.frames,
        l.frames_lost,
        l.frames_skipped,
        l.packets,
        l.packets_missing,
        l.longest_gap_ms,
        l.age_impossible_frames
    );
}

fn add(a: ReceiveCounters, b: ReceiveCounters) -> ReceiveCounters {
    ReceiveCounters {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        unusable: a.unusable + b.unusable,
        frames: a.frames + b.frames,
        frames_lost: a.frames_lost + b.frames_lost,
        frames_skipped: a.frames_skipped + b.frames_skipped,
        packets_missing: a.packets_missing + b.packets_missing,
        duplicates: a.duplicates + b.duplicates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::units::Micros;

    fn tally() -> Tally {
        Tally::new("scope", true)
    }

    fn frame() -> CompleteFrame {
        CompleteFrame {
            frame_id: 0,
            independent: true,
            timestamp: 0,
            capture: None,
            first_arrival: Micros(0),
            last_arrival: Micros(0),
            payloads: Vec::new(),
        }
    }

    #[test]
    fn a_gap_grows_while_nothing_comes_and_stays_when_something_does() {
        let mut t = tally();
        let second = Duration::from_secs(1);
        assert_eq!(t.longest_gap(Instant::now() + second), Duration::ZERO, "no leg yet, nothing missed");
        t.begin_leg();
        assert_eq!(t.longest_gap(t.leg_began + second), second, "no first frame is a gap too");
        t.complete(&frame(), None);
        let last = t.last_frame.unwrap();
        assert_eq!(t.longest_gap(last + 2 * second), 2 * second);
        t.missed_since = last.checked_sub(3 * second);
        t.complete(&frame(), None);
        assert!(t.longest_gap(Instant::now()) >= 3 * second, "the gap is over, and not forgotten");
        t.end_leg(ReceiveCounters::default());
        t.begin_leg();
        let last = t.last_frame.unwrap();
        assert_eq!(t.longest_gap(last + 9 * second), 9 * second, "a change of legs does not end it");
    }

    #[test]
    fn ages_before_capture_are_counted_apart_unless_the_clocks_allow_them() {
        let mut t = tally();
        for age_us in [-5_001, i64::MIN, -5_000, 0, 40_000] {
            t.complete(&frame(), Some(Ages { age_us, uncertainty_us: 5_000 }));
        }
        t.complete(&frame(), None);
        assert_eq!((t.frames, t.age_impossible, t.age_unknown), (6, 2, 1));
        let h = t.ages.as_ref().unwrap();
        assert_eq!((h.len(), h.min(), h.count_at(1)), (3, 1, 2));
    }

    #[test]
    fn the_view_in_place_calls_nothing_live_that_stands_still_and_no_age_known_that_is_not() {
        let t = tally();
        let lines = screen_lines(
            &Line { state: "frozen", ..t.figures("second", (0.0, 0.0)) },
            Some(Duration::from_millis(1_234)),
            None,
            "",
        );
        assert!(lines[0].contains("FROZEN 1.2 s") && !lines[0].contains("LIVE"), "{lines:?}");
        assert!(lines[2].contains("age      unknown   last unknown"), "{lines:?}");
        let known = Some(Ages { age_us: 41_300, uncertainty_us: 250 });
        let lines = screen_lines(&Line { state: "live", ..t.figures("second", (8.0, 30.0)) }, None, known, "");
        assert!(lines[0].contains("LIVE") && lines[2].contains("last 41.3 ± 0.2 ms"), "{lines:?}");
        assert!(lines.iter().all(|l| l.chars().count() < 80), "{lines:?}");
    }

    #[test]
    fn a_legs_counters_are_added_once() {
        let mut t = tally();
        let packets = |packets| ReceiveCounters { packets, ..ReceiveCounters::default() };
        t.begin_leg();
        t.totals = packets(3);
        t.end_leg(packets(5));
        t.begin_leg();
        t.end_leg(packets(2));
        assert_eq!(add(t.before, t.totals).packets, 7);
    }
}
