//! The last few readings, and what they say together: rates, and delays of the packets in between.

use super::reading::{FeedName, LegName, Numbers, Reading};
use super::rows::{Delay, FeedRow, FeedState, Figures, LegRow};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Readings that rates are made of: five intervals. The relay takes its figures twice a second, so over five seconds a
/// rate is right to about a tenth.
pub(super) const KEPT: usize = 6;

/// The last readings, the newest at the back. Loss policy: the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct History {
    readings: VecDeque<Reading>,
}

/// One thing's numbers over time: what it was and what it is.
struct Span<'a> {
    from: &'a Numbers,
    to: &'a Numbers,
    /// When it was that.
    since: Instant,
    /// Seconds in between; 0 where the thing was seen only once.
    seconds: f64,
}

impl Span<'_> {
    fn now(&self, name: &str) -> f64 {
        self.to.get(name).copied().unwrap_or(0.0)
    }

    /// How much it changed; a name that was not there before began at 0.
    fn change(&self, name: &str) -> f64 {
        self.now(name) - self.from.get(name).copied().unwrap_or(0.0)
    }

    /// Change per second; none where it was seen only once.
    fn rate(&self, name: &str) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.change(name) / self.seconds)
    }

    /// Whether it rose while we looked.
    fn rose(&self, name: &str) -> bool {
        self.seconds > 0.0 && self.change(name) > 0.0
    }
}

impl History {
    /// Takes the newest reading.
    pub(super) fn add(&mut self, reading: Reading) {
        if self.readings.len() >= KEPT {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    /// Forgets all: rates across a time without answers would tell of no time in particular.
    pub(super) fn clear(&mut self) {
        self.readings.clear();
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&Reading> {
        self.readings.back()
    }

    /// Whether there are as many as there will be.
    pub(super) fn is_full(&self) -> bool {
        self.readings.len() >= KEPT
    }

    /// What the readings say together; none before the first.
    pub(super) fn figures(&self) -> Option<Figures> {
        let newest = self.newest()?;
        let oldest = self.readings.front()?;
        let window = newest.at.saturating_duration_since(oldest.at);
        let legs: Vec<LegRow> = newest.legs.keys().filter_map(|name| self.leg(name)).collect();
        let feeds = newest.feeds.keys().filter_map(|name| self.feed(name, &legs)).collect();
        let others = self.span(|r| Some(&r.others))?;
        let counters = newest.others.keys().filter(|n| n.ends_with("_total"));
        let rates: BTreeMap<String, f64> = counters.filter_map(|n| Some((n.clone(), others.rate(n)?))).collect();
        Some(Figures { at: newest.at, window, feeds, legs, totals: newest.others.clone(), rates })
    }

    /// From the earliest reading since which the thing was always there and no counter of it fell: one that fell began
    /// anew, with its process or its name.
    fn span<'a>(&'a self, of: impl Fn(&'a Reading) -> Option<&'a Numbers>) -> Option<Span<'a>> {
        let newest = self.readings.back()?;
        let to = of(newest)?;
        let (mut from, mut at) = (to, newest.at);
        for earlier in self.readings.iter().rev().skip(1) {
            let Some(numbers) = of(earlier) else { break };
            let fell =
                |(name, was): (&String, &f64)| name.ends_with("_total") && from.get(name).is_none_or(|is| is < was);
            if numbers.iter().any(fell) {
                break;
            }
            (from, at) = (numbers, earlier.at);
        }
        Some(Span { from, to, since: at, seconds: newest.at.saturating_duration_since(at).as_secs_f64() })
    }

    fn feed(&self, name: &FeedName, legs: &[LegRow]) -> Option<FeedRow> {
        let span = self.span(|r| r.feeds.get(name).map(|f| &f.numbers))?;
        let packets = span.rate("trocar_feed_packets_total");
        let state = match (span.now("trocar_feed_live") > 0.0, packets) {
            // The relay says that packets come, and none was counted: one of the two is not so.
            (true, Some(0.0)) if span.seconds > 2.0 => FeedState::Doubtful,
            (true, _) => FeedState::Live,
            (false, _) if span.now("trocar_feed_packets_total") == 0.0 => FeedState::Waiting,
            (false, _) => FeedState::Silent,
        };
        let mine = || legs.iter().filter(|l| &l.name.feed == name);
        let out = mine().try_fold(0.0, |sum, l| Some(sum + l.packets?));
        let trouble = state != FeedState::Live
            || span.rose("trocar_feed_missing_packets")
            || span.rose("trocar_feed_refused_packets_total");
        let count = |name: &str| span.to.get(name).copied();
        let paths = count("trocar_feed_paths_alive").zip(count("trocar_feed_paths_expected"));
        let trouble = trouble || paths.is_some_and(|(alive, expected)| alive < expected);
        Some(FeedRow {
            name: name.clone(),
            state,
            mbps: span.rate("trocar_feed_bytes_total").map(|b| b * 8.0 / 1e6),
            packets,
            out,
            frames: span.rate("trocar_feed_frames_total"),
            legs: mine().count(),
            missing: span.now("trocar_feed_missing_packets"),
            duplicates: span.now("trocar_feed_duplicate_packets_total"),
            refused: span.now("trocar_feed_refused_packets_total"),
            key_requests: span.now("trocar_feed_key_frame_requests_total"),
            paths,
            delay: self.delay(name, span.since),
            trouble,
        })
    }

    fn leg(&self, name: &LegName) -> Option<LegRow> {
        let span = self.span(|r| r.legs.get(name))?;
        let connected = span.now("trocar_leg_connected") > 0.0;
        let worse = [
            "trocar_leg_shed_packets_total",
            "trocar_leg_dropped_packets_total",
            "trocar_leg_too_large_packets_total",
            "trocar_leg_reported_lost_packets",
        ];
        let of = |name: &str| span.to.get(name).copied();
        Some(LegRow {
            name: name.clone(),
            connected,
            packets: span.rate("trocar_leg_packets_total"),
            shed: span.now("trocar_leg_shed_packets_total"),
            shed_rate: span.rate("trocar_leg_shed_packets_total"),
            dropped: span.now("trocar_leg_dropped_packets_total") + span.now("trocar_leg_too_large_packets_total"),
            repeated: span.now("trocar_leg_repeated_packets_total"),
            not_repeated: span.now("trocar_leg_repair_misses_total") + span.now("trocar_leg_repair_refusals_total"),
            lost: of("trocar_leg_reported_lost_packets"),
            jitter_ms: of("trocar_leg_reported_jitter_seconds").map(|s| s * 1e3),
            rtt_ms: of("trocar_leg_round_trip_seconds").map(|s| s * 1e3),
            trouble: !connected || worse.iter().any(|n| span.rose(n)),
        })
    }

    /// Percentiles of the packets since then, by how much each bucket of the histogram grew; none where nothing
    /// left the relay.
    fn delay(&self, name: &FeedName, since: Instant) -> Option<Delay> {
        let newest = self.readings.back()?;
        let then = self.readings.iter().find(|r| r.at >= since && r.feeds.contains_key(name))?;
        let (now, then) = (&newest.feeds.get(name)?.delay, &then.feeds.get(name)?.delay);
        let grown: Vec<(f64, f64)> = now
            .iter()
            .map(|(bound, n)| {
                let before = then.iter().find(|(b, _)| b == bound).map_or(0.0, |(_, n)| *n);
                (*bound, n - before)
            })
            .collect();
        let all = grown.last()?.1;
        let at_share = |share: f64| grown.iter().find(|(_, n)| *n >= all * share).map(|(bound, _)| bound * 1e3);
        if all <= 0.0 { None } else { Some(Delay { p50_ms: at_share(0.50)?, p99_ms: at_share(0.99)? }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::parse;
    use super::*;
    use std::fmt::Write as _;
    use std::time::Duration;

    fn page(packets: u64, missing: u64, buckets: [u64; 3]) -> String {
        let l = "{session=\"s\",feed=\"scope\"}";
        let leg = "{session=\"s\",feed=\"scope\",leg=\"l1\",transport=\"webrtc\"}";
        let mut out = format!(
            "trocar_feed_packets_total{l} {packets}\ntrocar_feed_bytes_total{l} {}\ntrocar_feed_live{l} 1\n\
             trocar_feed_missing_packets{l} {missing}\ntrocar_leg_packets_total{leg} {}\n\
             trocar_leg_connected{leg} 1\ntrocar_signaling_joins_total {}\n",
            packets * 1_000,
            packets / 2,
            packets / 100,
        );
        for (le, n) in ["0.001", "0.01", "+Inf"].iter().zip(buckets) {
            let _ =
                writeln!(out, "trocar_feed_relay_delay_seconds_bucket{{le=\"{le}\",session=\"s\",feed=\"scope\"}} {n}");
        }
        out
    }

    fn history(pages: &[String]) -> Figures {
        let start = Instant::now();
        let mut h = History::default();
        for (i, p) in pages.iter().enumerate() {
            let at = start + Duration::from_secs(i as u64);
            h.add(Reading::new(at, parse(p).unwrap()).unwrap());
        }
        h.figures().unwrap()
    }

    #[test]
    fn rates_are_changes_by_time_and_delays_are_of_the_packets_in_between() {
        let f = history(&[page(1_000, 5, [1_000, 1_000, 1_000]), page(3_000, 5, [1_600, 2_990, 3_000])]);
        let row = &f.feeds[0];
        assert_eq!((row.packets, row.mbps, row.out, row.legs), (Some(2_000.0), Some(16.0), Some(1_000.0), 1));
        // 600 of 2000 were within 1 ms, 1990 within 10 ms.
        assert_eq!(row.delay, Some(Delay { p50_ms: 10.0, p99_ms: 10.0 }));
        assert!(!row.trouble && row.state == FeedState::Live);
        assert_eq!(f.rates["trocar_signaling_joins_total"], 20.0);
    }

    #[test]
    fn one_reading_has_no_rates_and_old_packets_make_no_delay() {
        let f = history(&[page(1_000, 5, [10, 10, 10])]);
        assert_eq!((f.feeds[0].packets, f.feeds[0].delay), (None, None));
        let f = history(&[page(1_000, 5, [10, 10, 10]), page(1_000, 6, [10, 10, 10])]);
        assert_eq!((f.feeds[0].packets, f.feeds[0].delay), (Some(0.0), None));
        assert!(f.feeds[0].trouble, "a packet is missing since");
    }

    #[test]
    fn counters_that_fell_began_anew_and_give_no_rate_until_the_next_reading() {
        let f = history(&[page(9_000, 0, [9, 9, 9]), page(100, 0, [1, 1, 1])]);
        assert_eq!(f.feeds[0].packets, None);
        let f = history(&[page(9_000, 0, [9, 9, 9]), page(100, 0, [1, 1, 1]), page(300, 0, [2, 2, 2])]);
        assert_eq!(f.feeds[0].packets, Some(200.0));
    }

    #[test]
    fn a_feed_that_is_called_live_and_counts_nothing_is_doubted() {
        let still = page(1_000, 0, [1, 1, 1]);
        let f = history(&[still.clone(), still.clone(), still.clone(), still]);
        assert_eq!(f.feeds[0].state, FeedState::Doubtful);
    }

    #[test]
    fn the_delay_above_the_last_bound_is_not_given_a_number() {
        let f = history(&[page(1, 0, [0, 0, 0]), page(2, 0, [0, 0, 5])]);
        assert!(f.feeds[0].delay.unwrap().p50_ms.is_infinite());
    }
}
