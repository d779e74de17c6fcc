//! What can be limited: every measure, its unit, and whether more or less of it is better.

use serde::{Deserialize, Serialize};

/// A direction of a line, as the result names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From here to there.
    Up,
    /// From there to here.
    Down,
}

impl Way {
    /// Both, in the order of a report.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// As in a result and in a limit's key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    const fn turned(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// Which side of a threshold is right. The threshold itself always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// `min` in the file.
    AtLeast,
    /// `max` in the file.
    AtMost,
}

/// What is measured. The order is that of a verdict: what makes everything behind it pointless comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// Rungs of the ladder of fallbacks that work, of those that the class can live with.
    Rungs,
    /// Largest UDP payload.
    Mtu,
    /// Highest rate at which next to nothing is lost.
    Rate,
    /// One-way delay of packets, 99th percentile.
    Delay,
    /// From the sending of a frame to its last packet, 99th percentile.
    FrameDelay,
    /// Round trip with nothing else on the line, 99th percentile.
    Rtt,
    /// Round trip while the line is filled, 99th percentile.
    RttLoaded,
    /// Delay above the smallest of the run, 99th percentile.
    Jitter,
    /// Packets lost.
    Loss,
    /// Longest run of packets lost in a row.
    Burst,
    /// Frames of which a packet is missing.
    FramesDamaged,
    /// Packets behind one with a higher number.
    Reordered,
    /// Delay that builds up at the rate that the class needs.
    Queue,
    /// Packets lost on both of two paths.
    BothPathsLoss,
    /// How far the second path is from the first.
    PathSkew,
    /// Loss on both at once, against what chance would make of it.
    PathDependence,
}

/// One measure as a report and a file name it.
struct About {
    /// Key without direction and unit.
    stem: &'static str,
    /// The unit at the end of a key; empty where there is none.
    suffix: &'static str,
    /// The unit for people.
    unit: &'static str,
    title: &'static str,
    sense: Sense,
    both_ways: bool,
}

impl Measure {
    /// All of them, in the order of a verdict.
    pub const ALL: [Self; 16] = [
        Self::Rungs,
        Self::Mtu,
        Self::Rate,
        Self::Delay,
        Self::FrameDelay,
        Self::Rtt,
        Self::RttLoaded,
        Self::Jitter,
        Self::Loss,
        Self::Burst,
        Self::FramesDamaged,
        Self::Reordered,
        Self::Queue,
        Self::BothPathsLoss,
        Self::PathSkew,
        Self::PathDependence,
    ];

    const fn about(self) -> About {
        use Sense::{AtLeast, AtMost};
        let (stem, suffix, unit, title, sense, both_ways) = match self {
            Self::Rungs => ("rungs", "", "", "Number of ways that get through", AtLeast, false),
            Self::Mtu => ("mtu_payload", "bytes", "bytes", "Largest packet (UDP payload)", AtLeast, false),
            Self::Rate => ("rate", "mbit_s", "Mbit/s", "Rate", AtLeast, true),
            Self::Delay => ("delay_p99", "ms", "ms", "One-way delay, p99", AtMost, true),
            Self::FrameDelay => ("frame_delay_p99", "ms", "ms", "Delay of a whole frame, p99", AtMost, true),
            Self::Rtt => ("rtt_p99", "ms", "ms", "Round trip, p99", AtMost, false),
            Self::RttLoaded => ("rtt_loaded_p99", "ms", "ms", "Round trip under load, p99", AtMost, false),
            Self::Jitter => ("jitter_p99", "ms", "ms", "Jitter, p99", AtMost, true),
            Self::Loss => ("loss", "percent", "%", "Loss", AtMost, true),
            Self::Burst => ("burst", "packets", "packets", "Longest loss burst", AtMost, true),
            Self::FramesDamaged => ("frames_damaged", "percent", "%", "Frames damaged before repair", AtMost, true),
            Self::Reordered => ("reordered", "percent", "%", "Reordering", AtMost, true),
            Self::Queue => ("queue_p95", "ms", "ms", "Queue at the class's rate, p95", AtMost, true),
            Self::BothPathsLoss => ("both_paths_loss", "percent", "%", "Loss on both paths at once", AtMost, false),
            Self::PathSkew => ("path_skew", "ms", "ms", "Skew of the second path", AtMost, false),
            Self::PathDependence => ("path_dependence", "", "", "Dependence of the two paths", AtMost, false),
        };
        About { stem, suffix, unit, title, sense, both_ways }
    }
}

/// A measure and its direction: what a class can set a threshold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Limit {
    /// What is measured.
    pub measure: Measure,
    /// In which direction, where that makes a difference.
    pub way: Option<Way>,
}

impl Limit {
    /// Every limit that there is, in the order of a verdict.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let ways = |m: Measure| if m.about().both_ways { vec![Some(Way::Up), Some(Way::Down)] } else { vec![None] };
        Measure::ALL
            .into_iter()
            .flat_map(|measure| ways(measure).into_iter().map(move |way| Self { measure, way }))
            .collect()
    }

    /// The limit of a key of the file.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        Self::all().into_iter().find(|l| l.key() == key)
    }

    /// Its key in the file, with direction and unit, e.g. `delay_p99_up_ms`.
    #[must_use]
    pub fn key(self) -> String {
        let About { stem, suffix, .. } = self.measure.about();
        [stem, self.way.map_or("", Way::name), suffix]
            .iter()
            .filter(|s| !s.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("_")
    }

    /// For people, without the direction.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.measure.about().title
    }

    /// For people; empty for a plain number.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        self.measure.about().unit
    }

    /// Whether more or less is better.
    #[must_use]
    pub const fn sense(self) -> Sense {
        self.measure.about().sense
    }

    /// The same for who measured from the other end.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { way: self.way.map(Way::turned), ..self }
    }
}
