//! The link gates: loop age, jitter, loss and frame age as colours (HANDOVER.md section 12).
//!
//! Measuring is kept apart from deciding: the gate knows colours only, and the caller hands them to it. One [`Meter`] belongs to one
//! offer and is made when it is accepted, so nobody's figures stand for another's.

mod histogram;

use super::config::Config;
use super::gate::Sample;
use super::message::Figures;
use super::types::{Binding, Colour, Colours, Counter, Oid};
use crate::units::Micros;
use histogram::Histogram;
use std::collections::VecDeque;

/// The window is looked at in so many pieces; the oldest leaves as a whole.
const PIECES: u64 = 10;

/// What one piece of the window saw.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Piece {
    began: Micros,
    loop_age: Histogram,
    jitter: Histogram,
    beats: u64,
    /// Datagrams that came, and those that should have.
    came: u64,
    due: u64,
}

impl Piece {
    fn new(began: Micros) -> Self {
        // 2 ms steps up to 512 ms; 500 µs steps up to 64 ms.
        let (loop_age, jitter) = (Histogram::new(2_000, 256), Histogram::new(500, 128));
        Self { began, loop_age, jitter, beats: 0, came: 0, due: 0 }
    }
}

/// One colour that becomes worse at once and better late (HO-K-006).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Slow {
    shown: Colour,
    better_since: Option<Micros>,
    worst: Colour,
}

impl Slow {
    fn see(&mut self, now: Micros, raw: Colour, hysteresis: u64) -> Colour {
        if self.shown == Colour::Unmeasured || raw == Colour::Unmeasured || raw >= self.shown {
            *self = Self { shown: raw, ..Self::default() };
            return self.shown;
        }
        let since = *self.better_since.get_or_insert(now);
        self.worst = self.worst.max(raw);
        if now.since(since) >= hysteresis {
            *self = Self { shown: self.worst, ..Self::default() };
        }
        self.shown
    }
}

/// Measures one expert's link for one offer and the epoch that follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meter {
    oid: Oid,
    /// When the first datagram came.
    began: Option<Micros>,
    pieces: VecDeque<Piece>,
    /// The newest HB, for jitter: under which binding, which one, when.
    beat: Option<(Binding, u32, Micros)>,
    /// The newest number, for loss.
    counter: Option<(Binding, Counter)>,
    frame_age: Option<u64>,
    gates: [Slow; 4],
}

impl Meter {
    /// Nothing is measured yet.
    #[must_use]
    pub fn new(oid: Oid) -> Self {
        Self {
            oid,
            began: None,
            pieces: VecDeque::new(),
            beat: None,
            counter: None,
            frame_age: None,
            gates: [Slow::default(); 4],
        }
    }

    /// The offer that it measures for.
    #[must_use]
    pub const fn oid(&self) -> Oid {
        self.oid
    }

    /// A datagram counted. Samples of another offer are ignored (HO-K-008).
    pub fn note(&mut self, now: Micros, sample: &Sample, cfg: &Config) {
        if sample.oid != self.oid {
            return;
        }
        self.began.get_or_insert(now);
        self.frame_age = sample.frame_age;
        let jitter = self.jitter_of(now, sample, cfg);
        let due = self.due_of(sample, cfg);
        self.in_piece(now, cfg, |piece| {
            piece.loop_age.add(sample.loop_age);
            piece.came += 1;
            piece.due += due;
            piece.beats += u64::from(sample.beat.is_some());
            if let Some(jitter) = jitter {
                piece.jitter.add(jitter);
            }
        });
    }

    /// Colours and figures now; to be handed to the gate at each tick.
    pub fn colours(&mut self, now: Micros, cfg: &Config) -> (Colours, Figures) {
        self.drop_old(now, cfg);
        let (mut loop_age, mut jitter) = (Histogram::new(2_000, 256), Histogram::new(500, 128));
        let (mut beats, mut came, mut due) = (0, 0, 0);
        for piece in &self.pieces {
            loop_age.merge(&piece.loop_age);
            jitter.merge(&piece.jitter);
            beats += piece.beats;
            came += piece.came;
            due += piece.due;
        }
        let full = self.began.is_some_and(|at| now.since(at) >= cfg.window_time)
            && beats >= cfg.window_time / cfg.heartbeat.max(1) / 2; // HO-K-002
        let lost = u64::saturating_sub(due, came).saturating_mul(1_000_000).checked_div(due);
        let (loop_p95, jitter_p95) = (loop_age.percentile(95), jitter.percentile(95));
        let raw = [
            judge(loop_p95, cfg.grant_green, cfg.grant_amber),     // HO-K-003
            judge(jitter_p95, cfg.jitter_green, u64::MAX),         // HO-K-004
            judge(lost, cfg.loss_green_ppm, cfg.loss_red_ppm),     // HO-K-005
            judge(self.frame_age, cfg.frame_stop, cfg.frame_hold), // HO-K-001
        ];
        let mut shown = [Colour::Unmeasured; 4];
        for ((gate, raw), shown) in self.gates.iter_mut().zip(raw).zip(&mut shown) {
            *shown = gate.see(now, if full { raw } else { Colour::Unmeasured }, cfg.hysteresis);
        }
        let [a, b, c, d] = shown;
        let figure = |v: Option<u64>| v.map_or(u32::MAX, |v| u32::try_from(v).unwrap_or(u32::MAX - 1));
        let figures = Figures {
            loop_p50: figure(loop_age.percentile(50)),
            loop_p95: figure(loop_p95),
            jitter_p95: figure(jitter_p95),
            loss_ppm: figure(lost),
            frame_age: figure(self.frame_age),
        };
        (Colours { loop_age: a, jitter: b, loss: c, frame_age: d }, figures)
    }

    /// How far the HB came from where the one before it said: |time between − HBs between × 20 ms|.
    fn jitter_of(&mut self, now: Micros, sample: &Sample, cfg: &Config) -> Option<u64> {
        let beat = sample.beat?;
        let before = self.beat.replace((sample.binding, beat, now));
        let (_, old, at) = before.filter(|(binding, old, _)| *binding == sample.binding && *old < beat)?;
        let meant = u64::from(beat - old).saturating_mul(cfg.heartbeat);
        Some(now.since(at).abs_diff(meant))
    }

    /// How many datagrams should have come since the newest. What overtook it counts as lost: it was of no use.
    fn due_of(&mut self, sample: &Sample, cfg: &Config) -> u64 {
        let before = self.counter.replace((sample.binding, sample.counter));
        match before {
            Some((binding, newest)) if binding == sample.binding => {
                sample.counter.0.saturating_sub(newest.0).clamp(1, cfg.window)
            }
            _ => 1,
        }
    }

    /// Gives the newest piece to `with`, a new one where its time is over (HO-K-007).
    fn in_piece(&mut self, now: Micros, cfg: &Config, with: impl FnOnce(&mut Piece)) {
        self.drop_old(now, cfg);
        let length = cfg.window_time / PIECES;
        if self.pieces.back().is_none_or(|p| now.since(p.began) >= length) {
            self.pieces.push_back(Piece::new(now));
        }
        if let Some(piece) = self.pieces.back_mut() {
            with(piece);
        }
    }

    fn drop_old(&mut self, now: Micros, cfg: &Config) {
        while self.pieces.front().is_some_and(|p| now.since(p.began) > cfg.window_time) {
            self.pieces.pop_front();
        }
    }
}

/// Nothing to judge is unmeasured.
fn judge(value: Option<u64>, green: u64, amber: u64) -> Colour {
    match value {
        None => Colour::Unmeasured,
        Some(v) if v <= green => Colour::Green,
        Some(v) if v <= amber => Colour::Amber,
        Some(_) => Colour::Red,
    }
}

#[cfg(test)]
mod tests;
