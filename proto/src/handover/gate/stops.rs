//! Motion stopped inside REMOTE: causes, the re-clutch that ends a stop, the time after which a stop becomes HOLD.

use super::register::Remote;
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::message::Reason;
use crate::handover::types::Clutch;
use crate::units::Micros;

/// Why motion is stopped, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causes(pub u8);

impl Causes {
    /// Motion was never started, or waits for the re-clutch with no other cause left.
    pub const WAITING: Self = Self(1);
    /// Nothing fresh from the holder (HO-S-001).
    pub const GAP: Self = Self(2);
    /// Presence released (HO-S-002).
    pub const PRESENCE: Self = Self(4);
    /// Clutch open (HO-S-003).
    pub const CLUTCH: Self = Self(8);
    /// Picture too old, or none (HO-F-004).
    pub const FRAME: Self = Self(16);
    /// Somebody else moved the camera (HO-S-004).
    pub const CAMERA: Self = Self(32);

    /// Whether one of those is among these.
    #[must_use]
    pub const fn has(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }

    const fn with(self, which: Self, present: bool) -> Self {
        if present { Self(self.0 | which.0) } else { self }
    }
}

/// A stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stop {
    /// A clutch was seen open since the stop began, and not closed in vain since.
    pub(super) opened: bool,
    /// Since when the stop has been something else than a surgeon repositioning (HO-S-010).
    bad_since: Option<Micros>,
}

impl Stop {
    /// Begins now, as something that wants attention. A clutch that is open at this moment has been seen open.
    pub(super) const fn new(now: Micros, opened: bool) -> Self {
        Self { opened, bad_since: Some(now) }
    }
}

/// What the timers of a stop demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// Motion has to stop now.
    Stop,
    /// The stop lasted too long.
    Hold,
}

impl Remote {
    /// What speaks against motion now.
    pub(super) fn causes<C: Checks>(&self, now: Micros, cfg: &Config) -> Causes {
        let moved = self.offer.set.instruments && self.camera_moved.is_some_and(|at| now.since(at) < cfg.gap);
        Causes::default()
            .with(Causes::GAP, self.talk.silent(now, cfg))
            .with(Causes::PRESENCE, !self.talk.presence())
            .with(Causes::CLUTCH, self.clutch_open)
            .with(Causes::FRAME, !self.talk.frame_is_fresh::<C>(now, cfg))
            .with(Causes::CAMERA, moved)
    }

    /// What screens show: 0 while motion runs.
    pub(super) fn shown_causes<C: Checks>(&self, now: Micros, cfg: &Config) -> Causes {
        if self.stop.is_some() { self.causes::<C>(now, cfg).with(Causes::WAITING, true) } else { Causes::default() }
    }

    /// Judges causes and times. The caller stops, or holds, in the same step.
    pub(super) fn judge_stop<C: Checks>(&mut self, now: Micros, cfg: &Config) -> Demand {
        let causes = self.causes::<C>(now, cfg);
        let repositioning = self.is_repositioning::<C>(now, cfg, causes);
        let Some(stop) = &mut self.stop else {
            return if causes == Causes::default() { Demand::Nothing } else { Demand::Stop };
        };
        if repositioning {
            stop.bad_since = None; // HO-S-009
            return Demand::Nothing;
        }
        let since = *stop.bad_since.get_or_insert(now);
        if now.since(since) > cfg.stop_hold { Demand::Hold } else { Demand::Nothing } // HO-S-010
    }

    /// An open clutch with presence, HB and frames fresh (HO-S-009).
    fn is_repositioning<C: Checks>(&self, now: Micros, cfg: &Config, causes: Causes) -> bool {
        let spoiled = Causes(Causes::GAP.0 | Causes::PRESENCE.0 | Causes::FRAME.0);
        self.clutch_open && !causes.has(spoiled) && self.talk.beat_is_fresh::<C>(now, cfg)
    }

    /// The clutch of a fresh CMD. True where this closes a re-clutch and motion runs from the next command on (HO-S-006).
    ///
    /// # Errors
    /// [`Reason::MotionStopped`] or [`Reason::NotAligned`] where a clutch closes in vain; it has to be opened again.
    pub(super) fn clutch<C: Checks>(&mut self, now: Micros, clutch: Clutch, cfg: &Config) -> Result<bool, Reason> {
        self.clutch_open = clutch == Clutch::Open;
        let causes = self.causes::<C>(now, cfg);
        let fit = self.talk.beat_is_fresh::<C>(now, cfg);
        let aligned = self.talk.is_aligned(now, cfg);
        let Some(stop) = &mut self.stop else { return Ok(false) };
        if self.clutch_open {
            stop.opened = true;
            return Ok(false);
        }
        let anew = C::clutch_is_anew(clutch, stop.opened);
        stop.opened = false;
        if !anew || causes != Causes::default() || !fit {
            return Err(Reason::MotionStopped); // HO-S-008
        }
        if !aligned {
            return Err(Reason::NotAligned);
        }
        self.stop = None;
        Ok(true)
    }
}

#[cfg(trocar_model)]
impl Stop {
    pub(super) fn canon(&mut self, cfg: &Config, by: &crate::handover::canon::Ruler) {
        if let Some(since) = &mut self.bad_since {
            by.past(since, cfg.stop_hold);
        }
    }
}
