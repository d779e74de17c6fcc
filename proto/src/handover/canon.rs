//! One name for situations that differ only in when they happen, for the model checker alone: it compiles these files once more for
//! itself (`media-tests/model`), and nothing else has this module.
//!
//! No machine here compares anything but differences of times, and orders of numbers. So a whole world may be moved in time, and its
//! numbers be counted anew from its newest, without a difference to anybody in it; and what is older than every limit that it is
//! held against is simply old. Then a protocol that runs for ever has a finite number of situations.

use super::types::{Binding, Counter, FrameRef, Nonce};
use crate::units::Micros;

/// How a world is moved: `now` becomes `then`.
#[derive(Debug, Clone)]
pub struct Ruler {
    /// The world's time.
    pub now: Micros,
    /// What it becomes.
    pub then: Micros,
    /// Length of a tick of the world. Nonces and frames are named by the tick in which they were made.
    pub tick: u64,
    /// What counters under a binding are lowered by.
    pub counters: Vec<(Binding, u64)>,
    /// What BEACONs' counters under a binding are lowered by.
    pub beacons: Vec<(Binding, u64)>,
    /// Every sequence of the device in this world, in order; each is named by its place. Empty: they stay.
    pub sequences: Vec<u64>,
}

/// What can be named anew.
pub trait Canon {
    /// Names it anew.
    fn canon(&mut self, by: &Ruler);
}

impl Ruler {
    /// A time in the past that is held against `limit`: exact up to it, "old" beyond.
    pub fn past(&self, time: &mut Micros, limit: u64) {
        let oldest = self.now.0.saturating_sub(limit.saturating_add(self.tick));
        self.shift(time, oldest);
    }

    /// A time before which a bucket of `most` microseconds is full.
    pub fn full(&self, time: &mut Micros, most: u64) {
        self.shift(time, self.now.0.saturating_sub(most));
    }

    /// A time at which something is due: exact in the future, "due" before.
    pub fn due(&self, time: &mut Micros) {
        self.shift(time, self.now.0);
    }

    fn shift(&self, time: &mut Micros, floor: u64) {
        let from_now = time.0.max(floor) + self.then.0;
        time.0 = from_now.saturating_sub(self.now.0);
    }

    /// Upper half: who made it. Lower half: in which tick.
    pub fn nonce(&self, nonce: &mut Nonce) {
        let (who, tick) = (nonce.0 >> 32, nonce.0 & 0xffff_ffff);
        nonce.0 = who << 32 | self.named(tick);
    }

    /// A frame's number is the tick in which it was made.
    pub fn frame(&self, frame: &mut FrameRef) {
        frame.frame = u32::try_from(self.named(frame.frame.into())).unwrap_or(0);
        frame.digest = frame.frame.into();
    }

    /// A raw picture likewise; pictures older than `limit` have one name, as their times have.
    pub fn raw(&self, raw: &mut u128, limit: u64) {
        let oldest = self.then.0.saturating_sub(limit.saturating_add(self.tick)) / self.tick;
        *raw = self.named(u64::try_from(*raw).unwrap_or(0)).max(oldest).into();
    }

    fn named(&self, tick: u64) -> u64 {
        tick.saturating_add(self.then.0 / self.tick).saturating_sub(self.now.0 / self.tick)
    }

    /// A number under a binding.
    pub fn counter(&self, binding: Binding, counter: &mut Counter) {
        lower(&self.counters, binding, counter);
    }

    /// A BEACON's number.
    pub fn beacon(&self, binding: Binding, counter: &mut Counter) {
        lower(&self.beacons, binding, counter);
    }

    /// A sequence of the device.
    pub fn sequence(&self, sequence: &mut u64) {
        if let Ok(place) = self.sequences.binary_search(sequence) {
            *sequence = place as u64;
        }
    }
}

fn lower(by: &[(Binding, u64)], binding: Binding, counter: &mut Counter) {
    let by = by.iter().find(|(each, _)| *each == binding).map_or(0, |(_, by)| *by);
    counter.0 = counter.0.saturating_sub(by);
}
