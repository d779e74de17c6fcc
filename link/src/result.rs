//! What a measurement of a line found: the one value that verdict, reports and comparison read. JSON keys carry their unit.
//! What was not measured is left out, and `why_not` says why; a figure is never made up.

use serde::{Deserialize, Serialize};

/// The name and version of this shape, in [`LinkResult::schema`].
pub const SCHEMA: &str = "trocar-link-result/1";

/// A measured line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinkResult {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the program that measured.
    pub version: String,
    /// Seconds since 1970, UTC.
    pub started_unix_s: f64,
    /// How long it took.
    pub duration_s: f64,
    /// What was typed, for whoever wants to repeat it.
    pub command: String,
    /// This end, as an address and a name.
    pub here: String,
    /// The other end: an address as given, and what it says it is (`trocar link serve`, a relay).
    pub there: String,
    /// Load average of this machine over the last minute when it began: a busy machine measures itself.
    pub load_average: Option<f64>,
    /// The other end's clock against ours.
    pub clock: Option<Clock>,
    /// The way itself.
    pub path: Path,
    /// From here to there, then from there to here.
    pub directions: Vec<Direction>,
    /// The ladder of fallbacks, from the best rung down.
    pub ladder: Vec<Rung>,
    /// A second way at the same time, where one was given.
    pub second_path: Option<SecondPath>,
    /// What was not measured, and why: `(field, reason)`.
    pub why_not: Vec<(String, String)>,
}

/// Clock of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Its clock minus ours at the start.
    pub offset_us: f64,
    /// The truth lies within ± this: half of the smallest round trip, and what drift leaves.
    pub uncertainty_us: f64,
    /// How fast it runs away from ours, parts per million; and within ± what.
    pub drift_ppm: f64,
    /// ± of the drift.
    pub drift_uncertainty_ppm: f64,
}

/// What holds for both directions together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// Largest UDP payload that came through unfragmented.
    pub mtu_payload_bytes: Option<u32>,
    /// Round trip with nothing else on the line.
    pub rtt_idle_us: Option<Quantiles>,
    /// Round trip while the line is filled in one direction.
    pub rtt_loaded_us: Option<Quantiles>,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Whether the other family gets through as well.
    pub other_family: Option<bool>,
    /// Our address as the other end sees it, where that is another one: a NAT is between.
    pub mapped_address: Option<String>,
    /// `none`, `endpoint-independent` or `address-and-port-dependent` mapping (RFC 4787 section 4.1).
    pub nat_mapping: Option<String>,
    /// A mapping that rests so long is still the same one; the longest pause that was tried and survived.
    pub nat_lives_s: Option<f64>,
}

/// One direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// `up` from here to there, `down` from there to here.
    pub name: String,
    /// Smooth traffic, a small share of the line.
    pub idle: Option<Flow>,
    /// Traffic shaped like a picture: bursts at the pace of frames, larger ones for key frames.
    pub video: Option<VideoFlow>,
    /// The steps of the rate ramp, in the order in which they were tried.
    pub ramp: Vec<Step>,
    /// The highest rate, of UDP payload, at which next to nothing was lost and delay did not build up.
    pub capacity_mbit_s: Option<f64>,
    /// ± of it.
    pub capacity_uncertainty_mbit_s: Option<f64>,
    /// Whether a DSCP mark (AF41) that was set arrives.
    pub dscp_survives: Option<bool>,
    /// Whether an ECN mark (ECT(0)) that was set arrives.
    pub ecn_survives: Option<bool>,
}

/// What came of a run of numbered packets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Packets.
    pub sent: u64,
    /// Of those, the ones that came at least once.
    pub received: u64,
    /// Of those, the ones that did not.
    pub lost: u64,
    /// Copies that came beside the first.
    pub duplicated: u64,
    /// Packets that came behind one with a higher number (RFC 4737 type-P-reordered).
    pub reordered: u64,
    /// Packets that came damaged.
    pub corrupted: u64,
    /// How many bursts of loss had which length: `(packets in a row, how often)` (RFC 3357).
    pub loss_bursts: Vec<(u32, u64)>,
    /// One-way delay; it is as right as [`Clock::uncertainty_us`] says.
    pub delay_us: Option<Quantiles>,
    /// Delay variation against the smallest of the run (RFC 5481 PDV): needs no common clock.
    pub jitter_us: Option<Quantiles>,
    /// Delay over time, thinned to at most 1,000 points: `(seconds since the start of the run, microseconds)`.
    pub delay_over_time: Vec<(f64, f64)>,
    /// When packets were lost, thinned the same way: `(seconds, packets)`.
    pub loss_over_time: Vec<(f64, u32)>,
}

/// Traffic that is shaped like a picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VideoFlow {
    /// Mean rate of UDP payload.
    pub mbit_s: f64,
    /// Frames a second.
    pub fps: f64,
    /// Its packets.
    pub flow: Flow,
    /// Frames.
    pub frames: u64,
    /// Frames of which a packet is missing: what a line without repair costs.
    pub frames_damaged: u64,
    /// Time from a frame's sending to its last packet's coming.
    pub frame_delay_us: Option<Quantiles>,
}

/// One step of the ramp.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What was sent, UDP payload.
    pub offered_mbit_s: f64,
    /// What came.
    pub received_mbit_s: f64,
    /// Share that was lost, percent.
    pub loss_percent: f64,
    /// 95th percentile of the delay that built up above the idle minimum: bufferbloat.
    pub queue_p95_us: f64,
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// `quic-udp`, `webrtc-udp`, `ice-tcp`, `turn-udp`, `turn-tls-443`.
    pub name: String,
    /// Whether it works; none: not tried, see `detail`.
    pub reachable: Option<bool>,
    /// From the first packet to a way that stands, microseconds.
    pub connect_us: Option<f64>,
    /// Its round trip.
    pub rtt_us: Option<f64>,
    /// What that means for the delay of a picture, e.g. `as the line`, `waits for retransmissions (TCP)`.
    pub latency_class: String,
    /// What was tried, or what stopped it.
    pub detail: String,
}

/// The [`Rung::latency_class`] of a rung that the other end does not have: nothing was tried, and nothing would come of it.
pub const NOT_OFFERED: &str = "not offered";

/// What remains where UDP does not get through: the best rung that works, with its latency class. None where UDP gets through, or was not
/// tried.
#[must_use]
pub fn remains(ladder: &[Rung]) -> Option<String> {
    let direct = ["quic-udp", "webrtc-udp", "udp"];
    let ours = || ladder.iter().filter(|r| direct.contains(&r.name.as_str()));
    if ours().any(|r| r.reachable != Some(false)) || ours().next().is_none() {
        return None;
    }
    let blocked = "UDP to the relay is blocked";
    Some(match ladder.iter().find(|r| r.reachable == Some(true)) {
        Some(r) => {
            let rtt = r.rtt_us.map_or_else(String::new, |us| format!(", round trip {:.1} ms", us / 1_000.0));
            format!("{blocked}; what remains is {}: {}{rtt}", r.name, r.latency_class)
        }
        None => format!("{blocked}, and nothing else gets through"),
    })
}

/// A second way at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecondPath {
    /// How it was named.
    pub name: String,
    /// How far it is behind the first, in microseconds; below 0 it is ahead.
    pub skew_us: f64,
    /// Loss on the first, percent.
    pub loss_percent: f64,
    /// Loss on the second, percent.
    pub second_loss_percent: f64,
    /// Loss on both at once, percent: what the two together lose.
    pub both_loss_percent: f64,
    /// `both` divided by the product of the two: 1 where they fail independently, larger where they share a cause; none where
    /// nothing was lost.
    pub dependence: Option<f64>,
}

/// A distribution, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// The curve for a plot, at most 200 points: `(value, share of values at or below it)`.
    pub cdf: Vec<(f64, f64)>,
}
