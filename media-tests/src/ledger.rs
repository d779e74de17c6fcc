//! What the ledger of `trocar impair` says of the packets of one program: the truth that the program's figures are held against.

use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use trocar_proto::link::ledger::FateName;
use trocar_proto::link::{Direction, Record};

/// The lines of a ledger file.
///
/// # Errors
/// Where it cannot be read, or a line is none of a ledger.
pub fn read(file: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.lines().map(|l| serde_json::from_str(l).with_context(|| l.to_owned())).collect()
}

/// One packet, by the emulator's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    len: u32,
    arrived_us: u64,
    /// When it was sent on; none where it was lost.
    sent_us: Option<u64>,
}

impl Packet {
    fn delay_us(&self) -> Option<u64> {
        self.sent_us.map(|s| s.saturating_sub(self.arrived_us))
    }
}

/// Packets of one program in one direction, in the order of their numbers. Copies that the emulator made are no packets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flow {
    packets: Vec<Packet>,
}

impl Flow {
    /// Those packets of a direction whose length, of UDP payload, is `wanted`.
    #[must_use]
    pub fn of(ledger: &[Record], way: Direction, wanted: impl Fn(u32) -> bool) -> Self {
        let mut packets = BTreeMap::new();
        for r in ledger.iter().filter(|r| r.direction == way && !r.copy && wanted(r.len)) {
            let sent_us = r.sent_us.filter(|_| r.fate == FateName::Delivered);
            packets.insert(r.seq, Packet { len: r.len, arrived_us: r.arrived_us, sent_us });
        }
        Self { packets: packets.into_values().collect() }
    }

    /// The first `count` of them.
    ///
    /// # Errors
    /// Where there are fewer.
    pub fn first(mut self, count: u64) -> anyhow::Result<Self> {
        ensure!(self.sent() >= count, "the ledger has {} of {count} packets", self.sent());
        self.packets.truncate(usize::try_from(count)?);
        Ok(self)
    }

    /// How many came to the emulator.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.packets.len() as u64
    }

    /// How many of these did not get through.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.packets.iter().filter(|p| p.sent_us.is_none()).count() as u64
    }

    /// Which of them did not, from 0.
    #[must_use]
    pub fn losses(&self) -> Vec<u64> {
        (0..).zip(&self.packets).filter(|(_, p)| p.sent_us.is_none()).map(|(n, _)| n).collect()
    }

    /// How many bursts of loss had which length, the shortest first (RFC 3357).
    #[must_use]
    pub fn bursts(&self) -> Vec<(u64, u64)> {
        let mut bursts = BTreeMap::new();
        let gone = |p: &Packet| p.sent_us.is_none();
        for run in self.packets.chunk_by(|a, b| gone(a) == gone(b)).filter(|r| r.first().is_some_and(gone)) {
            *bursts.entry(run.len() as u64).or_insert(0) += 1;
        }
        bursts.into_iter().collect()
    }

    /// How long the emulator had each packet that got through, in microseconds.
    fn delays_us(&self) -> impl Iterator<Item = u64> {
        self.packets.iter().filter_map(Packet::delay_us)
    }

    /// That time, in the middle; NaN where nothing got through.
    #[must_use]
    pub fn delay_us(&self) -> f64 {
        quantile(self.delays_us().collect(), 0.5)
    }

    /// That time above the smallest of the flow (RFC 5481 PDV), at this quantile.
    #[must_use]
    pub fn variation_us(&self, share: f64) -> f64 {
        let least = self.delays_us().min().unwrap_or(0);
        quantile(self.delays_us().map(|d| d - least).collect(), share)
    }

    /// The smoothed jitter of RFC 3550 section 6.4.1 behind the last packet, in microseconds.
    #[must_use]
    pub fn smoothed_jitter_us(&self) -> f64 {
        let delays: Vec<f64> = self.delays_us().map(|d| d as f64).collect();
        delays.windows(2).fold(0.0, |jitter, w| match w {
            [before, now] => jitter + ((now - before).abs() - jitter) / 16.0,
            _ => jitter,
        })
    }

    /// What got through from the first packet to the last one, in Mbit/s, where each packet costs so many bytes beside its own.
    #[must_use]
    pub fn mbit_s(&self, overhead: u32) -> f64 {
        let through: Vec<(u64, u64)> =
            self.packets.iter().filter_map(|p| Some((p.sent_us?, u64::from(p.len + overhead)))).collect();
        let (Some((first, _)), Some((last, _))) = (through.first(), through.last()) else { return 0.0 };
        // The first packet begins the time in which the others come.
        let bytes: u64 = through.iter().skip(1).map(|(_, len)| len).sum();
        bytes as f64 * 8.0 / (last - first).max(1) as f64
    }
}

/// The value at a quantile; NaN of nothing.
fn quantile(mut values: Vec<u64>, share: f64) -> f64 {
    values.sort_unstable();
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).map_or(f64::NAN, |v| *v as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, delay_us: Option<u64>) -> Record {
        let arrived_us = seq * 10_000;
        Record {
            direction: Direction::Up,
            client: 0,
            seq,
            copy: false,
            len: 1_000,
            arrived_us,
            fate: if delay_us.is_some() { FateName::Delivered } else { FateName::Lost },
            due_us: None,
            sent_us: delay_us.map(|d| arrived_us + d),
            reordered: false,
            corrupt_bit: None,
        }
    }

    #[test]
    fn losses_delays_and_rate_are_those_of_the_packets_that_were_asked_for() {
        let mut ledger: Vec<Record> = [Some(100), None, None, Some(300), None, Some(100), Some(500)]
            .into_iter()
            .enumerate()
            .map(|(seq, delay)| record(seq as u64, delay))
            .collect();
        // None of these is one of them: another length, the other direction, a copy.
        ledger.push(Record { len: 999, ..record(7, None) });
        ledger.push(Record { direction: Direction::Down, ..record(7, None) });
        ledger.push(Record { copy: true, ..record(3, Some(9_000)) });
        ledger.reverse();
        let flow = Flow::of(&ledger, Direction::Up, |len| len == 1_000);
        assert_eq!((flow.sent(), flow.lost(), flow.bursts()), (7, 3, vec![(1, 1), (2, 1)]));
        assert_eq!(flow.losses(), [1, 2, 4]);
        assert_eq!((flow.delay_us(), flow.variation_us(0.0), flow.variation_us(1.0)), (300.0, 0.0, 400.0));
        // 200, 200 and 400 us of change: 12.5, then 24.21875, then 47.705.
        assert!((flow.smoothed_jitter_us() - 47.705).abs() < 0.001, "{}", flow.smoothed_jitter_us());
        // Three packets in 60.4 ms behind the first.
        assert!((flow.mbit_s(28) - 3.0 * 1_028.0 * 8.0 / 60_400.0).abs() < 1e-9, "{}", flow.mbit_s(28));
        assert_eq!(flow.clone().first(3).unwrap().lost(), 2);
        assert!(flow.first(8).unwrap_err().to_string().contains("7 of 8"));
        assert!(Flow::default().delay_us().is_nan() && Flow::default().mbit_s(0) == 0.0);
    }
}
