//! What a link shall do, as typed values that can be read from TOML. Every key has its unit in its name; a key that nobody
//! knows is refused by name, and a value out of range with what would be right.

use super::trace::Trace;
use serde::Deserialize;

/// Longest delay, and longest hold of a packet that is put back, in milliseconds.
pub const DELAY_MAX_MS: f64 = 10_000.0;
/// Blackout windows per direction.
pub const BLACKOUTS_MAX: usize = 64;
/// Longest time that a schedule names, in milliseconds: 31 days.
const SCHEDULE_MAX_MS: f64 = 31.0 * 86_400_000.0;

/// Both directions of a line, and where the figures come from. In TOML: `[up]` and `[down]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What a person should read.
    pub title: String,
    /// Where the figures come from.
    pub source: String,
    /// Seconds after a client's first packet at which its address, as the target sees it, becomes another: once.
    pub rebind_after_s: Option<f64>,
    /// From the clients to the target.
    pub up: LinkConfig,
    /// From the target to the clients.
    pub down: LinkConfig,
}

/// One direction. What is left out does nothing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// How long a packet is under way, after the line has sent it.
    pub delay: Delay,
    /// Whether a packet with a short delay overtakes one with a long delay. Otherwise it arrives right behind it.
    pub jitter_reorders: bool,
    /// Which packets are lost.
    pub loss: Option<Loss>,
    /// Which packets are put back behind later ones.
    pub reorder: Option<Reorder>,
    /// Packets that come twice, in per cent of those not lost.
    pub duplicate_percent: f64,
    /// Packets and copies in which one bit is turned, in per cent.
    pub corrupt_percent: f64,
    /// How fast the line is, and how long its queue.
    pub line: Option<Line>,
    /// When nothing gets through. In TOML: `[[up.blackout]]`.
    pub blackout: Vec<Blackout>,
}

/// How long a packet is under way, in milliseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub enum Delay {
    /// Always the same.
    Constant {
        /// The delay.
        ms: f64,
    },
    /// Even between two values.
    Uniform {
        /// Smallest.
        min_ms: f64,
        /// Largest.
        max_ms: f64,
    },
    /// Normal, cut: what falls outside is drawn anew.
    Normal {
        /// Mean before the cut.
        mean_ms: f64,
        /// Standard deviation before the cut.
        sd_ms: f64,
        /// Smallest.
        #[serde(default)]
        min_ms: f64,
        /// Largest; `mean_ms + 4 sd_ms` where left out.
        max_ms: Option<f64>,
    },
    /// A constant part and an excess with a long tail: Pareto of the second type (Lomax 1954), cut. The chance of an
    /// excess above x is (1 + x / scale)^-alpha before the cut.
    Pareto {
        /// Smallest delay.
        base_ms: f64,
        /// Scale of the excess.
        scale_ms: f64,
        /// The smaller, the longer the tail.
        alpha: f64,
        /// Largest delay.
        max_ms: f64,
    },
}

impl Default for Delay {
    fn default() -> Self {
        Self::Constant { ms: 0.0 }
    }
}

/// Which packets are lost; see [`super::loss`] for what to expect.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "model", rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Each by itself.
    Random {
        /// Chance of each packet.
        percent: f64,
    },
    /// In bursts: the two-state chain that has this mean and this mean burst (Gilbert 1960).
    Bursts {
        /// Mean loss.
        percent: f64,
        /// Mean number of packets lost in a row.
        burst_packets: f64,
    },
    /// The chain with its four probabilities, per packet.
    GilbertElliott {
        /// From the good state to the bad one.
        to_bad_percent: f64,
        /// From the bad state to the good one.
        to_good_percent: f64,
        /// Loss in the good state.
        #[serde(default)]
        good_percent: f64,
        /// Loss in the bad state.
        bad_percent: f64,
    },
}

/// Which packets are put back.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reorder {
    /// Packets put back.
    pub percent: f64,
    /// How many others go before such a packet, 1 to 1,000.
    pub gap_packets: u32,
    /// How long it waits for them at most.
    #[serde(default = "default_hold_ms")]
    pub hold_ms: f64,
}

const fn default_hold_ms() -> f64 {
    100.0
}

/// How fast the line is: by `mbit_s` or by a trace.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// Rate in Mbit/s (10^6 bits per second).
    pub mbit_s: Option<f64>,
    /// File with a trace in mahimahi's format. Whoever reads the file puts it into `trace`.
    pub trace_file: Option<String>,
    /// The trace.
    #[serde(skip)]
    pub trace: Option<Trace>,
    /// Room for waiting packets, as the time in which the line (a trace: on average) sends them; 100 where neither this
    /// nor `queue_bytes` is given.
    pub queue_ms: Option<f64>,
    /// Room for waiting packets in bytes. With both, the smaller counts. The packet being sent is not counted.
    pub queue_bytes: Option<u64>,
    /// Which packet goes when there is no room.
    pub drop: DropAt,
    /// Bytes that each packet costs on the line beside its own: 28 for UDP over IPv4, 48 over IPv6.
    pub overhead_bytes: u32,
}

/// Which packet goes when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropAt {
    /// The one that came last.
    #[default]
    Tail,
    /// The ones that have waited longest.
    Head,
}

/// A time in which every packet that comes to the link is lost. What is in the link already goes on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// When it begins, from the origin of the caller's clock.
    pub start_ms: f64,
    /// How long it lasts; the end is not part of it.
    pub length_ms: f64,
    /// From one beginning to the next, where it comes again.
    pub every_ms: Option<f64>,
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {is}: {right}")]
pub struct ConfigError {
    /// The key with its sections, as in the file.
    pub key: String,
    /// What it is.
    pub is: String,
    /// What would be right.
    pub right: String,
}

impl ConfigError {
    fn new(key: &str, is: impl ToString, right: impl ToString) -> Self {
        Self { key: key.to_owned(), is: is.to_string(), right: right.to_string() }
    }

    fn within(mut self, section: &str) -> Self {
        self.key = format!("{section}.{}", self.key);
        self
    }
}

type Checked = Result<(), ConfigError>;

/// A value within two limits, both allowed. What is no number is not within.
fn between(key: &str, value: f64, low: f64, high: f64) -> Checked {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(key, value, format!("{low} to {high} is right")))
}

fn percent(key: &str, value: f64) -> Checked {
    between(key, value, 0.0, 100.0)
}

impl Profile {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// Names the first key whose value cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(s) = self.rebind_after_s {
            between("rebind_after_s", s, 0.001, SCHEDULE_MAX_MS / 1_000.0)?;
        }
        self.up.check().map_err(|e| e.within("up"))?;
        self.down.check().map_err(|e| e.within("down"))
    }
}

impl LinkConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// Names the first key whose value cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.delay.check().map_err(|e| e.within("delay"))?;
        self.loss.as_ref().map_or(Ok(()), Loss::check).map_err(|e| e.within("loss"))?;
        self.reorder.as_ref().map_or(Ok(()), Reorder::check).map_err(|e| e.within("reorder"))?;
        percent("duplicate_percent", self.duplicate_percent)?;
        percent("corrupt_percent", self.corrupt_percent)?;
        self.line.as_ref().map_or(Ok(()), Line::check).map_err(|e| e.within("line"))?;
        if self.blackout.len() > BLACKOUTS_MAX {
            let right = format!("at most {BLACKOUTS_MAX} windows are right; every_ms repeats one");
            return Err(ConfigError::new("blackout", format!("{} windows", self.blackout.len()), right));
        }
        self.blackout.iter().try_for_each(Blackout::check).map_err(|e| e.within("blackout"))
    }
}

impl Delay {
    fn check(&self) -> Checked {
        match *self {
            Self::Constant { ms } => between("ms", ms, 0.0, DELAY_MAX_MS),
            Self::Uniform { min_ms, max_ms } => {
                between("min_ms", min_ms, 0.0, DELAY_MAX_MS)?;
                between("max_ms", max_ms, min_ms, DELAY_MAX_MS)
            }
            Self::Normal { mean_ms, sd_ms, min_ms, max_ms } => {
                between("mean_ms", mean_ms, 0.0, DELAY_MAX_MS)?;
                between("sd_ms", sd_ms, 0.0, DELAY_MAX_MS)?;
                between("min_ms", min_ms, 0.0, mean_ms)?;
                // A whole standard deviation on one side at least: each draw falls inside with a chance above a third.
                let low = if mean_ms - min_ms >= sd_ms { mean_ms } else { mean_ms + sd_ms };
                between("max_ms", max_ms.unwrap_or(mean_ms + 4.0 * sd_ms), low, DELAY_MAX_MS)
            }
            Self::Pareto { base_ms, scale_ms, alpha, max_ms } => {
                between("base_ms", base_ms, 0.0, DELAY_MAX_MS)?;
                between("scale_ms", scale_ms, 0.001, DELAY_MAX_MS)?;
                between("alpha", alpha, 0.1, 100.0)?;
                between("max_ms", max_ms, base_ms, DELAY_MAX_MS)
            }
        }
    }
}

impl Loss {
    fn check(&self) -> Checked {
        match *self {
            Self::Random { percent: p } => percent("percent", p),
            Self::Bursts { percent: p, burst_packets } => {
                between("burst_packets", burst_packets, 1.0, 1e6)?;
                // Above this the chain would have to leave the good state with a probability above 1.
                between("percent", p, 0.0, 100.0 * burst_packets / (burst_packets + 1.0))
            }
            Self::GilbertElliott { to_bad_percent, to_good_percent, good_percent, bad_percent } => {
                percent("to_bad_percent", to_bad_percent)?;
                between("to_good_percent", to_good_percent, 1e-6, 100.0)?;
                percent("good_percent", good_percent)?;
                percent("bad_percent", bad_percent)
            }
        }
    }
}

impl Reorder {
    fn check(&self) -> Checked {
        percent("percent", self.percent)?;
        between("gap_packets", f64::from(self.gap_packets), 1.0, 1_000.0)?;
        between("hold_ms", self.hold_ms, 0.001, DELAY_MAX_MS)
    }
}

impl Line {
    fn check(&self) -> Checked {
        match (self.mbit_s, &self.trace_file, &self.trace) {
            (Some(rate), None, None) => between("mbit_s", rate, 0.001, 100_000.0)?,
            (None, _, Some(_)) => {}
            (None, Some(file), None) => {
                return Err(ConfigError::new("trace_file", file, "it has to be read before the link is made"));
            }
            (None, None, None) => return Err(ConfigError::new("mbit_s", "nothing", "a rate or trace_file is right")),
            (Some(_), _, _) => {
                return Err(ConfigError::new("mbit_s", "given beside trace_file", "one of the two is right"));
            }
        }
        self.queue_ms.map_or(Ok(()), |ms| between("queue_ms", ms, 0.0, 60_000.0))?;
        self.queue_bytes.map_or(Ok(()), |bytes| between("queue_bytes", bytes as f64, 0.0, 1e9))?;
        between("overhead_bytes", f64::from(self.overhead_bytes), 0.0, 1_000.0)
    }
}

impl Blackout {
    fn check(&self) -> Checked {
        between("start_ms", self.start_ms, 0.0, SCHEDULE_MAX_MS)?;
        between("length_ms", self.length_ms, 0.001, SCHEDULE_MAX_MS)?;
        self.every_ms.map_or(Ok(()), |every| between("every_ms", every, self.length_ms, SCHEDULE_MAX_MS))
    }

    /// Whether it is dark at a point of the caller's clock, in microseconds.
    #[must_use]
    pub fn covers(&self, at_us: u64) -> bool {
        let Some(since) = at_us.checked_sub(micros(self.start_ms)) else { return false };
        let since = self.every_ms.map_or(since, |every| since % micros(every).max(1));
        since < micros(self.length_ms)
    }

    /// When it is light again, each time; in microseconds from the origin of the caller's clock.
    pub fn ends(&self) -> impl Iterator<Item = u64> {
        let first = micros(self.start_ms) + micros(self.length_ms);
        let times = if self.every_ms.is_some() { usize::MAX } else { 1 };
        let every = self.every_ms.map_or(0, micros);
        (0..).map(move |n: u64| first + n * every).take(times)
    }
}

/// Milliseconds as microseconds, rounded to the nearest; 0 for what is negative or no number.
pub(super) fn micros(ms: f64) -> u64 {
    (ms * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut LinkConfig)) -> String {
        let mut profile = Profile::default();
        change(&mut profile.down);
        profile.check().unwrap_err().to_string()
    }

    #[test]
    fn the_dark_ends_where_it_covers_no_more() {
        let dark = Blackout { start_ms: 100.0, length_ms: 1.5, every_ms: Some(20.0) };
        let ends: Vec<u64> = dark.ends().take(3).collect();
        assert_eq!(ends, [101_500, 121_500, 141_500]);
        assert!(ends.iter().all(|end| dark.covers(end - 1) && !dark.covers(*end)));
        assert_eq!(Blackout { every_ms: None, ..dark }.ends().collect::<Vec<_>>(), [101_500]);
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_is_right() {
        assert!(Profile::default().check().is_ok(), "the control");
        let line = |line: Line| wrong(|c| c.line = Some(line));
        for (is, want) in [
            (wrong(|c| c.duplicate_percent = 101.0), "down.duplicate_percent = 101: 0 to 100 is right"),
            (wrong(|c| c.corrupt_percent = f64::NAN), "down.corrupt_percent = NaN: 0 to 100 is right"),
            (wrong(|c| c.delay = Delay::Constant { ms: -1.0 }), "down.delay.ms = -1: 0 to 10000 is right"),
            (wrong(|c| c.delay = Delay::Uniform { min_ms: 9.0, max_ms: 3.0 }), "down.delay.max_ms = 3: 9 to 10000"),
            (
                wrong(|c| c.delay = Delay::Normal { mean_ms: 5.0, sd_ms: 9.0, min_ms: 5.0, max_ms: Some(6.0) }),
                "down.delay.max_ms = 6: 14 to",
            ),
            (wrong(|c| c.loss = Some(Loss::Random { percent: 120.0 })), "down.loss.percent = 120: 0 to 100"),
            (
                wrong(|c| c.loss = Some(Loss::Bursts { percent: 90.0, burst_packets: 4.0 })),
                "down.loss.percent = 90: 0 to 80 is right",
            ),
            (
                wrong(|c| c.reorder = Some(Reorder { percent: 1.0, gap_packets: 0, hold_ms: 1.0 })),
                "down.reorder.gap_packets = 0: 1 to 1000",
            ),
            (line(Line::default()), "down.line.mbit_s = nothing: a rate or trace_file is right"),
            (line(Line { trace_file: Some("x".into()), ..Line::default() }), "down.line.trace_file = x: it has to be"),
            (
                line(Line { mbit_s: Some(1.0), trace_file: Some("x".into()), ..Line::default() }),
                "down.line.mbit_s = given beside trace_file: one of the two",
            ),
            (
                wrong(|c| c.blackout = vec![Blackout { start_ms: 0.0, length_ms: 9.0, every_ms: Some(3.0) }]),
                "down.blackout.every_ms = 3: 9 to",
            ),
        ] {
            assert!(is.starts_with(want), "{is} does not begin with {want}");
        }
    }
}
