//! Samples put in order: which number belongs to which feed and leg.

use super::text::Sample;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Numbers by metric name.
pub(super) type Numbers = BTreeMap<String, f64>;

/// A feed's name in the whole house.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct FeedName {
    /// Its session.
    pub(super) session: String,
    /// Its name there, and after an @ that of its relay where there are several.
    pub(super) feed: String,
}

/// A leg's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LegName {
    /// What it carries.
    #[serde(flatten)]
    pub(super) feed: FeedName,
    /// The leg.
    pub(super) leg: String,
    /// `webrtc` or `roq`.
    pub(super) transport: String,
}

/// One feed's numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct FeedNumbers {
    /// Counters and gauges.
    pub(super) numbers: Numbers,
    /// Delay in the relay: upper bound in seconds and packets up to it, in rising order.
    pub(super) delay: Vec<(f64, f64)>,
}

/// Everything that one answer said.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// When the answer came.
    pub(super) at: Instant,
    /// Feeds.
    pub(super) feeds: BTreeMap<FeedName, FeedNumbers>,
    /// Legs.
    pub(super) legs: BTreeMap<LegName, Numbers>,
    /// What belongs to neither, summed over its labels.
    pub(super) others: Numbers,
}

/// Name of the delay histogram's buckets.
const DELAY: &str = "trocar_feed_relay_delay_seconds_bucket";

impl Reading {
    /// Puts the samples of one answer in order; none where nothing in it is Trocar's.
    pub(super) fn new(at: Instant, samples: Vec<Sample>) -> Option<Self> {
        let mut reading = Self { at, feeds: BTreeMap::new(), legs: BTreeMap::new(), others: Numbers::new() };
        let mut ours = false;
        for s in samples {
            ours |= s.name.starts_with("trocar_");
            reading.take(s);
        }
        ours.then_some(reading)
    }

    fn take(&mut self, s: Sample) {
        let label = |name: &str| s.labels.get(name).cloned();
        // A feed that another relay fetches is there twice: each stands for itself.
        let at = |feed: String| label("relay").map_or_else(|| feed.clone(), |relay| format!("{feed}@{relay}"));
        let feed = label("session").zip(label("feed").map(at)).map(|(session, feed)| FeedName { session, feed });
        match (feed, label("leg")) {
            (Some(feed), None) if s.name == DELAY => {
                let Some(bound) = label("le").and_then(|le| le.parse::<f64>().ok()) else { return };
                self.feeds.entry(feed).or_default().delay.push((bound, s.value));
            }
            (Some(feed), None) => {
                self.feeds.entry(feed).or_default().numbers.insert(s.name, s.value);
            }
            (Some(feed), Some(leg)) => {
                let transport = label("transport").unwrap_or_default();
                self.legs.entry(LegName { feed, leg, transport }).or_default().insert(s.name, s.value);
            }
            _ => *self.others.entry(s.name).or_default() += s.value,
        }
    }
}
