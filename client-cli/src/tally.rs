//! What a native viewer counts and prints.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};
use trocar_proto::media::receive::{CompleteFrame, ReceiveCounters};
use trocar_proto::session::api::{FeedInfo, FeedState};
use trocar_proto::session::ids::FeedId;

/// An age and how sure it is, in microseconds. The age may be negative within its uncertainty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// Now minus capture time.
    pub(crate) age_us: i64,
    /// The true age is within this of it.
    pub(crate) uncertainty_us: u64,
}

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
    feed: &'a FeedId,
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
    first_frame_ms: Option<f64>,
}

/// Counts over all legs of a watch.
pub(crate) struct Tally {
    feed: FeedId,
    json: bool,
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
}

impl Tally {
    pub(crate) fn new(feed: &FeedId, json: bool) -> Self {
        let now = Instant::now();
        Self {
            feed: feed.clone(),
            json,
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
        }
    }

    /// Complete frames so far.
    pub(crate) const fn frames(&self) -> u64 {
        self.frames
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

    pub(crate) fn lost(&self, frame: u32, packets: u32) {
        if self.json {
            println!(
                "{}",
                serde_json::json!({"type": "lost", "feed": self.feed, "frame": frame, "packets_came": packets})
            );
        } else {
            println!("frame {frame} lost: {packets} of its packets came");
        }
    }

    pub(crate) fn gap(&self, why: &str) {
        if self.json {
            println!("{}", serde_json::json!({"type": "gap", "feed": self.feed, "why": why}));
        } else {
            println!("{why}; waiting for the feed");
        }
    }

    /// The figures of the last second.
    pub(crate) fn print_second(&mut self, c: ReceiveCounters, feed: Option<&FeedInfo>) {
        self.totals = c;
        let now = Instant::now();
        let since = (now - self.second.0).as_secs_f64();
        if since < 0.2 {
            return;
        }
        // A picture that stands still is never called live.
        let silent = self.last_frame.is_none_or(|t| now - t > Duration::from_millis(500));
        self.state = match feed.map(|f| f.state) {
            Some(FeedState::Waiting) | None => "waiting",
            Some(FeedState::Stalled) => "stalled",
            Some(FeedState::Live) if silent => "frozen",
            Some(FeedState::Live) => "live",
        };
        let rates = (((c.bytes - self.second.1) * 8) as f64 / since / 1e6, (c.frames - self.second.2) as f64 / since);
        self.second = (now, c.bytes, c.frames);
        self.print("second", rates);
    }

    /// The figures of the whole watch.
    pub(crate) fn print_summary(&self) {
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

    fn print(&self, kind: &'static str, (mbit_per_s, frames_per_s): (f64, f64)) {
        let c = add(self.before, self.totals);
        let line = Line {
            kind,
            feed: &self.feed,
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
            first_frame_ms: self.first_frame_ms,
        };
        if self.json {
            // Serialising plain numbers and names cannot fail; an empty line would be told from a figure.
            println!("{}", serde_json::to_string(&line).unwrap_or_default());
        } else {
            print_text(&line);
        }
    }
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
        Tally::new(&FeedId::new("scope").unwrap(), true)
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
