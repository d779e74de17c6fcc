//! What is counted: of each viewer, of each second, and of the whole run. Everything here can be added to what another
//! machine counted.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Longest time that is told apart, in microseconds; longer ones count as this.
const MAX_US: u64 = 60_000_000;
/// Two digits of a time are kept: within 1 %.
const DIGITS: u8 = 2;

/// A histogram of times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Times(Option<Histogram<u32>>);

impl Default for Times {
    fn default() -> Self {
        // Bounds and digits are constants that it takes.
        Self(Histogram::new_with_bounds(1, MAX_US, DIGITS).ok())
    }
}

impl Times {
    pub(super) fn record(&mut self, us: u64) {
        self.0.iter_mut().for_each(|h| h.saturating_record(us.max(1)));
    }

    pub(super) fn add(&mut self, other: &Self) {
        if let (Some(mine), Some(theirs)) = (&mut self.0, &other.0) {
            // Alike in bounds and digits, so that it always fits.
            let _ = mine.add(theirs);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(Histogram::reset);
    }

    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// In milliseconds; none where nothing was recorded.
    pub(super) fn ms(&self, quantile: f64) -> Option<f64> {
        self.0.as_ref().filter(|h| !h.is_empty()).map(|h| h.value_at_quantile(quantile) as f64 / 1e3)
    }

    /// The longest, in milliseconds.
    pub(super) fn max_ms(&self) -> Option<f64> {
        self.0.as_ref().filter(|h| !h.is_empty()).map(|h| h.max() as f64 / 1e3)
    }

    /// Values and how often each, for a curve.
    pub(super) fn pairs(&self) -> Vec<(u64, u64)> {
        self.0
            .iter()
            .flat_map(|h| h.iter_recorded())
            .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
            .collect()
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.pairs().serialize(s)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut out = Self::default();
        for (us, count) in Vec::<(u64, u64)>::deserialize(d)? {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            out.0.iter_mut().for_each(|h| h.saturating_record_n(us.clamp(1, MAX_US), count));
        }
        Ok(out)
    }
}

/// What a viewer found about packets and frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Counts {
    /// RTP packets that were read, copies of a second path left out.
    pub(super) packets: u64,
    /// Their bytes, with RTP headers.
    pub(super) bytes: u64,
    /// Frames that came whole and right.
    pub(super) frames: u64,
    /// Frames that did not: a packet is missing or corrupted, or all of them are.
    pub(super) frames_lost: u64,
    /// Whole frames that were older than the limit, and captured after the leg was asked for.
    pub(super) frames_stale: u64,
    /// Packets that did not come, of frames of which something came.
    pub(super) packets_missing: u64,
    pub(super) packets_corrupted: u64,
    /// Packets that came after later ones.
    pub(super) packets_reordered: u64,
    /// Packets that came twice by one path.
    pub(super) packets_duplicated: u64,
    /// Packets that belong to another feed.
    pub(super) packets_foreign: u64,
}

impl Counts {
    pub(super) const fn add(&mut self, o: Self) {
        self.packets += o.packets;
        self.bytes += o.bytes;
        self.frames += o.frames;
        self.frames_lost += o.frames_lost;
        self.frames_stale += o.frames_stale;
        self.packets_missing += o.packets_missing;
        self.packets_corrupted += o.packets_corrupted;
        self.packets_reordered += o.packets_reordered;
        self.packets_duplicated += o.packets_duplicated;
        self.packets_foreign += o.packets_foreign;
    }

    /// What came since `before`.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            frames: self.frames.saturating_sub(before.frames),
            frames_lost: self.frames_lost.saturating_sub(before.frames_lost),
            frames_stale: self.frames_stale.saturating_sub(before.frames_stale),
            packets_missing: self.packets_missing.saturating_sub(before.packets_missing),
            packets_corrupted: self.packets_corrupted.saturating_sub(before.packets_corrupted),
            packets_reordered: self.packets_reordered.saturating_sub(before.packets_reordered),
            packets_duplicated: self.packets_duplicated.saturating_sub(before.packets_duplicated),
            packets_foreign: self.packets_foreign.saturating_sub(before.packets_foreign),
        }
    }

    /// Lost frames in per cent of all that should have come; none where none should have.
    pub(super) fn lost_percent(self) -> Option<f64> {
        let all = self.frames + self.frames_lost;
        (all > 0).then(|| self.frames_lost as f64 * 100.0 / all as f64)
    }
}

/// What is wrong with a frame or packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// It did not come.
    Missing,
    /// Its bytes are others than were sent.
    Corrupt,
    /// It came after later ones.
    Reorder,
    /// The frame is older than the limit.
    Stale,
    /// It came twice.
    #[value(skip)]
    Duplicate,
    /// It is of another feed.
    #[value(skip)]
    Foreign,
}

impl Fault {
    /// In a word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupted",
            Self::Reorder => "reordered",
            Self::Stale => "stale",
            Self::Duplicate => "duplicated",
            Self::Foreign => "of another feed",
        }
    }
}

/// A fault by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Named {
    pub(super) fault: Fault,
    pub(super) feed: String,
    pub(super) frame: u32,
    /// Place in the frame; none where the whole frame is meant.
    pub(super) packet: Option<u16>,
}

/// A fault that viewers found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Found {
    #[serde(flatten)]
    pub(super) what: Named,
    /// How many viewers found it.
    pub(super) viewers: u64,
    /// The first one.
    pub(super) first: u32,
}

/// Different faults that are named at most; more are counted alone.
const MAX_FAULTS: usize = 2_000;

/// All faults of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    named: BTreeMap<Named, (u64, u32)>,
    /// Those beyond the bound.
    pub(super) unnamed: u64,
}

impl Faults {
    pub(super) fn note(&mut self, what: Named, viewer: u32) {
        self.add(&Found { what, viewers: 1, first: viewer });
    }

    /// Takes in what somebody else found.
    pub(super) fn add(&mut self, found: &Found) {
        if self.named.len() < MAX_FAULTS || self.named.contains_key(&found.what) {
            self.named.entry(found.what.clone()).or_insert((0, found.first)).0 += found.viewers;
        } else {
            self.unnamed += found.viewers;
        }
    }

    pub(super) fn list(&self) -> Vec<Found> {
        let found = |(what, (viewers, first)): (&Named, &(u64, u32))| Found {
            what: what.clone(),
            viewers: *viewers,
            first: *first,
        };
        self.named.iter().map(found).collect()
    }
}

/// One viewer, in the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct ViewerRow {
    pub(super) viewer: u32,
    /// Where it ran; empty where there is one machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) agent: String,
    pub(super) feed: String,
    pub(super) transport: String,
    pub(super) counts: Counts,
    /// From asking for the leg to the first whole frame, in milliseconds.
    pub(super) first_frame_ms: Option<f64>,
    /// Longest time without a whole frame, in milliseconds.
    pub(super) gap_ms: f64,
    /// Connections that were lost.
    pub(super) disconnects: u64,
    /// Of whole frames that were captured after the leg was asked for.
    #[cfg_attr(test, schemars(with = "Vec<(u64, u64)>"))]
    pub(super) ages: Times,
    /// Of each second of the run the largest age in milliseconds; −1 where no frame came whose age counts, −2 before and after it
    /// was there.
    pub(super) seconds: Vec<i32>,
    /// Of each second, whether it lost something.
    pub(super) lost_in: Vec<u32>,
}

/// One second of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Sample {
    /// Seconds since the beginning.
    pub(super) at: f64,
    /// The stage that ran.
    pub(super) stage: String,
    /// Viewers that were there.
    pub(super) viewers: u64,
    /// Over all viewers.
    pub(super) mbit_per_s: f64,
    pub(super) frames_per_s: f64,
    pub(super) frames_lost: u64,
    pub(super) age_p50_ms: Option<f64>,
    pub(super) age_p99_ms: Option<f64>,
    pub(super) age_max_ms: Option<f64>,
    /// Of this program, in per cent of one core.
    pub(super) generator_cpu: f64,
    /// Of the relay, in per cent of one core; none where it is not known.
    pub(super) relay_cpu: Option<f64>,
    /// Of its busiest thread.
    pub(super) relay_thread_cpu: Option<f64>,
    /// Latest frame of the generator, in milliseconds.
    pub(super) late_max_ms: Option<f64>,
    pub(super) load_average: f64,
    /// Datagrams that the kernel dropped at the generator's sockets, and at the relay's; none where it is not known.
    pub(super) generator_drops: Option<u64>,
    pub(super) relay_drops: Option<u64>,
    /// Packets that the relay left out because a queue was full; none where it is not known.
    pub(super) relay_left_out: Option<u64>,
}

/// What got lost between publisher and viewer, where somebody counted it; none where nobody did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Losses {
    /// Datagrams that the kernel dropped at the generator's sockets: it did not read them in time.
    pub(super) generator_drops: Option<u64>,
    /// The same at the relay's.
    pub(super) relay_drops: Option<u64>,
    /// Packets that the relay left out because a queue was full.
    pub(super) relay_left_out: Option<u64>,
}

impl Losses {
    /// Of several seconds together.
    pub(super) fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut all = Self::default();
        for s in samples {
            for (sum, more) in [
                (&mut all.generator_drops, s.generator_drops),
                (&mut all.relay_drops, s.relay_drops),
                (&mut all.relay_left_out, s.relay_left_out),
            ] {
                *sum = match (*sum, more) {
                    (None, None) => None,
                    (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
                };
            }
        }
        all
    }

    /// In words; empty where nothing was lost that somebody counts.
    pub(super) fn words(&self) -> String {
        let said = [
            (self.generator_drops, "the kernel dropped", "datagrams at the generator's sockets"),
            (self.relay_drops, "the kernel dropped", "datagrams at the relay's sockets"),
            (self.relay_left_out, "the relay left out", "packets: a queue of its own was full"),
        ];
        let words = said.into_iter().filter_map(|(n, what, of)| Some(format!("{what} {} {of}", n.filter(|n| *n > 0)?)));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// The figures of the whole run, by name; none where nothing was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(super) struct Figures(BTreeMap<String, Option<f64>>);

impl Figures {
    /// All there are: what thresholds may name.
    pub(super) const NAMES: [&'static str; 35] = [
        "age_p50_ms",
        "age_p95_ms",
        "age_p99_ms",
        "age_p999_ms",
        "age_max_ms",
        "age_uncertainty_ms",
        "frames",
        "frames_lost",
        "frames_lost_percent",
        "frames_stale",
        "frames_not_sent",
        "packets",
        "packets_missing",
        "packets_corrupted",
        "packets_reordered",
        "packets_duplicated",
        "packets_foreign",
        "mbit_per_s",
        "viewers",
        "joins",
        "joins_failed",
        "leaves",
        "disconnects",
        "first_frame_p50_ms",
        "first_frame_p95_ms",
        "first_frame_p99_ms",
        "first_frame_max_ms",
        "gap_max_ms",
        "generator_cpu_percent",
        "generator_late_p99_ms",
        "generator_kernel_drops",
        "relay_cpu_percent",
        "relay_kernel_drops",
        "relay_left_out",
        "load_average",
    ];

    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied().flatten()
    }

    pub(super) fn set(&mut self, name: &str, value: Option<f64>) {
        debug_assert!(Self::NAMES.contains(&name), "{name}");
        self.0.insert(name.to_owned(), value.filter(|v| v.is_finite()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_two_digits_over_a_way_by_json_and_can_be_added() {
        let mut a = Times::default();
        (1..=1_000).for_each(|ms| a.record(ms * 1_000));
        let text = serde_json::to_string(&a).unwrap();
        let mut b: Times = serde_json::from_str(&text).unwrap();
        assert_eq!((a.len(), b.len()), (1_000, 1_000));
        for q in [0.5, 0.95, 0.99, 0.999] {
            let (x, y) = (a.ms(q).unwrap(), b.ms(q).unwrap());
            assert!((x - q * 1_000.0).abs() < 0.011 * x && (x - y).abs() <= 0.01 * x, "{q}: {x} {y}");
        }
        b.add(&a);
        assert_eq!(b.len(), 2_000);
        a.clear();
        assert_eq!((a.ms(0.5), a.max_ms(), Times::default().pairs()), (None, None, vec![]));
        a.record(u64::MAX);
        assert!((59_000.0..61_000.0).contains(&a.max_ms().unwrap()));
    }

    #[test]
    fn one_fault_that_many_find_is_one_fault_and_what_is_too_much_is_counted() {
        let named = |frame| Named { fault: Fault::Corrupt, feed: "load-0".to_owned(), frame, packet: Some(1) };
        let mut f = Faults::default();
        (0..6).for_each(|viewer| f.note(named(9), viewer));
        assert_eq!(f.list(), [Found { what: named(9), viewers: 6, first: 0 }]);
        // Frame 9 is known already: 3000 different faults in all.
        (0..3_000).for_each(|frame| f.note(named(frame), 1));
        assert_eq!((f.list().len(), f.unnamed), (MAX_FAULTS, 3_000 - MAX_FAULTS as u64));
        f.note(named(9), 2);
        assert_eq!((f.list()[9].viewers, f.unnamed), (8, 1_000), "one that is named is counted beyond the bound too");
    }
}
