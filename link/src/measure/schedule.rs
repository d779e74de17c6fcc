//! When a flow sends which packet. Both ends know it: so the receiver can say of a lost packet when it was due and of which
//! frame it was.

use serde::{Deserialize, Serialize};

/// Packets of one flow.
pub const PACKETS_MAX: u32 = 1_000_000;
/// Longest flow, in microseconds.
pub const DURATION_MAX_US: u64 = 600_000_000;

/// A flow of numbered packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// How its packets are spread.
    pub shape: Shape,
    /// UDP payload of each.
    pub packet_bytes: u16,
    /// How long it sends.
    pub duration_us: u64,
    /// What is put into the byte that was type of service: DSCP × 4 + ECN (RFC 2474, RFC 3168).
    #[serde(default)]
    pub tos: u8,
}

/// How packets are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// One after the other, evenly.
    Smooth {
        /// Packets a second.
        pps: f64,
    },
    /// Like a picture: each frame's packets at once.
    Video {
        /// Mean rate of UDP payload.
        mbit_s: f64,
        /// Frames a second.
        fps: f64,
        /// Every so many frames is a key frame.
        key_every: u32,
        /// How many times as large as another frame.
        key_size: f64,
    },
}

/// Why a flow is not sent.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{what} = {is}: {low} to {high} is right")]
pub struct SpecError {
    what: &'static str,
    is: f64,
    low: f64,
    high: f64,
}

/// One packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Number in the flow, from 0.
    pub seq: u32,
    /// Frame, from 0.
    pub frame: u32,
    /// Microseconds after the flow's beginning.
    pub at_us: u64,
}

impl FlowSpec {
    /// Evenly spread packets that make this rate of UDP payload.
    #[must_use]
    pub fn smooth_at(mbit_s: f64, packet_bytes: u16, duration_us: u64) -> Self {
        let pps = mbit_s * 1e6 / (8.0 * f64::from(packet_bytes.max(1)));
        Self { shape: Shape::Smooth { pps }, packet_bytes, duration_us, tos: 0 }
    }

    /// Mean rate of UDP payload.
    #[must_use]
    pub fn mbit_s(&self) -> f64 {
        match self.shape {
            Shape::Smooth { pps } => pps * f64::from(self.packet_bytes) * 8e-6,
            Shape::Video { mbit_s, .. } => mbit_s,
        }
    }

    /// How many packets it has.
    #[must_use]
    pub fn packets(&self) -> u32 {
        Schedule::new(*self).map_or(0, |s| s.count() as u32)
    }

    /// Whether it may be sent.
    ///
    /// # Errors
    /// Names what is out of range.
    pub fn check(&self, mbit_s_max: f64) -> Result<(), SpecError> {
        let between = |what, is: f64, low, high| {
            if (low..=high).contains(&is) { Ok(()) } else { Err(SpecError { what, is, low, high }) }
        };
        between("packet_bytes", f64::from(self.packet_bytes), 80.0, 8_972.0)?;
        between("duration_us", self.duration_us as f64, 1_000.0, DURATION_MAX_US as f64)?;
        match self.shape {
            Shape::Smooth { pps } => between("pps", pps, 0.1, 1e6)?,
            Shape::Video { fps, key_every, key_size, .. } => {
                between("fps", fps, 1.0, 240.0)?;
                between("key_every", f64::from(key_every), 1.0, 100_000.0)?;
                between("key_size", key_size, 1.0, 100.0)?;
            }
        }
        between("mbit_s", self.mbit_s(), 1e-6, mbit_s_max)?;
        let packets = self.mbit_s() * self.duration_us as f64 / (8.0 * f64::from(self.packet_bytes));
        between("packets", packets, 0.0, f64::from(PACKETS_MAX) * 0.9)
    }
}

/// The packets of a flow, in order.
#[derive(Debug, Clone)]
pub struct Schedule {
    spec: FlowSpec,
    seq: u32,
    frame: u32,
    /// Packets of the present frame that are still to come.
    left: u32,
}

impl Schedule {
    /// None where the flow has no packet.
    #[must_use]
    pub fn new(spec: FlowSpec) -> Option<Self> {
        let mut s = Self { spec, seq: 0, frame: 0, left: 0 };
        s.left = s.packets_of(0);
        (spec.packet_bytes > 0 && spec.mbit_s() > 0.0).then_some(s)
    }

    /// How many packets a frame has; the mean over a round of key frames is the flow's rate.
    fn packets_of(&self, frame: u32) -> u32 {
        let Shape::Video { mbit_s, fps, key_every, key_size } = self.spec.shape else { return 1 };
        let per_frame = mbit_s * 1e6 / 8.0 / f64::from(self.spec.packet_bytes.max(1)) / fps.max(1.0);
        let round = f64::from(key_every.max(1));
        let other = per_frame * round / (round - 1.0 + key_size);
        let size = if frame.is_multiple_of(key_every.max(1)) { other * key_size } else { other };
        // What is cut off by rounding goes to the next frame, so that the rate is right over time.
        let before = (f64::from(frame) * size).floor();
        (((f64::from(frame) + 1.0) * size).floor() - before).max(1.0) as u32
    }

    fn at_us(&self) -> u64 {
        match self.spec.shape {
            Shape::Smooth { pps } => (f64::from(self.seq) * 1e6 / pps).round() as u64,
            Shape::Video { fps, .. } => (f64::from(self.frame) * 1e6 / fps.max(1.0)).round() as u64,
        }
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let due = Due { seq: self.seq, frame: self.frame, at_us: self.at_us() };
        if due.at_us >= self.spec.duration_us || self.seq >= PACKETS_MAX {
            return None;
        }
        self.seq += 1;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.frame += 1;
            self.left = self.packets_of(self.frame);
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: Shape = Shape::Video { mbit_s: 25.0, fps: 60.0, key_every: 60, key_size: 5.0 };

    #[test]
    fn a_smooth_flow_sends_evenly() {
        let spec = FlowSpec { shape: Shape::Smooth { pps: 100.0 }, packet_bytes: 200, duration_us: 1_000_000, tos: 0 };
        let all: Vec<Due> = Schedule::new(spec).unwrap().collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().enumerate().all(|(i, d)| d.seq == i as u32 && d.at_us == i as u64 * 10_000));
        assert!((FlowSpec::smooth_at(9.6, 1_200, 1_000_000).mbit_s() - 9.6).abs() < 1e-9);
    }

    #[test]
    fn a_picture_comes_in_bursts_with_larger_key_frames_at_the_mean_rate_asked_for() {
        let spec = FlowSpec { shape: VIDEO, packet_bytes: 1_200, duration_us: 10_000_000, tos: 0 };
        let all: Vec<Due> = Schedule::new(spec).unwrap().collect();
        let of = |f: u32| all.iter().filter(|d| d.frame == f).count() as f64;
        assert_eq!(all.last().unwrap().frame, 599);
        assert!((of(60) / of(61) - 5.0).abs() < 0.2, "{} {}", of(60), of(61));
        let mbit_s = all.len() as f64 * 1_200.0 * 8e-6 / 10.0;
        assert!((mbit_s / 25.0 - 1.0).abs() < 0.01, "{mbit_s}");
        assert!(all.windows(2).all(|w| (w[0].at_us == w[1].at_us) == (w[0].frame == w[1].frame)));
    }

    #[test]
    fn a_flow_out_of_range_is_refused_with_what_would_be_right() {
        let good = FlowSpec { shape: VIDEO, packet_bytes: 1_200, duration_us: 1_000_000, tos: 0 };
        assert_eq!(good.check(100.0), Ok(()));
        let e = good.check(10.0).unwrap_err().to_string();
        assert_eq!(e, "mbit_s = 25: 0.000001 to 10 is right");
        assert!(FlowSpec { packet_bytes: 10, ..good }.check(100.0).is_err());
        assert!(FlowSpec { duration_us: u64::MAX, ..good }.check(100.0).is_err());
        assert!(FlowSpec { shape: Shape::Smooth { pps: f64::NAN }, ..good }.check(100.0).is_err());
        assert!(FlowSpec::smooth_at(1_000.0, 80, 60_000_000).check(10_000.0).is_err(), "too many packets");
    }
}
