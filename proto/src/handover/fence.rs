//! The device's own rule (HANDOVER.md section 3): whom it obeys, and when it holds by itself. Every device adapter shows the same
//! behaviour; `trocar-sim-device` runs this very code.
//!
//! Driving contract: hand in what came, do what [`Effects`] say in the order of its fields, call [`Fence::tick`] at least every 5 ms
//! and [`Fence::persisted`] when a fence is on disk. Selecting local waits for no disk; commands do.

use super::checks::{Checks, Strict};
use super::gate::{DeviceAct, DeviceReport};
use super::types::{BootId, Epoch, Selection};
use crate::units::Micros;
use std::marker::PhantomData;

/// What the device has to do now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects {
    /// Turn the remote side's energy off.
    pub energy_off: bool,
    /// Hold position: nothing of remote moves.
    pub hold: bool,
    /// Obey this one from now on.
    pub obey: Option<Selection>,
    /// Make this fence durable, then call [`Fence::persisted`].
    pub persist: Option<Epoch>,
    /// Carry out the command; the value says whether energy may act with it.
    pub actuate: Option<bool>,
}

/// Why the device refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FenceError {
    /// Lower than the highest that it has seen.
    #[error("the fence is lower than the highest")]
    LowFence,
    /// Another gate's keep-alive is current, or the fence is not above the highest.
    #[error("another gate is served")]
    NotOwner,
    /// Not above the newest.
    #[error("the sequence is not above the newest of this fence")]
    OldSequence,
    /// The watchdog's hold is latched.
    #[error("latched until a higher fence is selected")]
    Latched,
    /// The hardware override gave the device to local.
    #[error("overridden by hardware: only local can be selected")]
    Overridden,
    /// Remote is not selected.
    #[error("remote is not selected")]
    NotSelected,
    /// The fence is not on the device's disk yet.
    #[error("the fence is not durable yet")]
    NotDurable,
}

/// A gate that was refused is told to the one that is served for so long, in microseconds (HO-D-024).
pub const RIVAL: u64 = 1_000_000;

/// Whether another gate was refused lately: what a device keeps beside its [`Fence`], which decides nothing by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rivals(Option<Micros>);

impl Rivals {
    /// What this act says was refused, while `owner` was served.
    pub fn note(&mut self, now: Micros, act: &DeviceAct, owner: Option<BootId>) {
        if let DeviceAct::KeepAlive { boot, .. } | DeviceAct::Select { boot, .. } = act
            && owner.is_some_and(|owner| owner != *boot)
        {
            self.0 = Some(now);
        }
    }

    /// For the report.
    #[must_use]
    pub fn is_near(&self, now: Micros) -> bool {
        self.0.is_some_and(|at| now.since(at) < RIVAL)
    }
}

/// The device's state of mind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence<C: Checks = Strict> {
    watchdog: u64,
    now: Micros,
    highest: Epoch,
    persisted: Epoch,
    /// The gate served last, and when it was alive.
    owner: Option<(BootId, Micros)>,
    selected: Selection,
    /// Newest selection under `highest`.
    select_sequence: u64,
    /// Newest command, hold or energy-off under `highest`.
    act_sequence: u64,
    latched: bool,
    overridden: bool,
    /// Remote energy as the effects left it.
    energy: bool,
    /// No command was actuated since the last hold or selection.
    held: bool,
    checks: PhantomData<C>,
}

impl Fence<Strict> {
    /// A device that starts: nobody selected, latched, its fence as on its disk (HO-D-012). `watchdog` in microseconds.
    #[must_use]
    pub fn new(now: Micros, persisted: Epoch, watchdog: u64) -> Self {
        Self::with_checks(now, persisted, watchdog)
    }
}

impl<C: Checks> Fence<C> {
    /// As [`Fence::new`], for the checks that the type names.
    #[must_use]
    pub const fn with_checks(now: Micros, persisted: Epoch, watchdog: u64) -> Self {
        Self {
            watchdog,
            now,
            highest: persisted,
            persisted,
            owner: None,
            selected: Selection::Nobody,
            select_sequence: 0,
            act_sequence: 0,
            latched: true,
            overridden: false,
            energy: false,
            held: true,
            checks: PhantomData,
        }
    }

    /// Something came from a gate's adapter. The watchdog is judged first, so a backlog finds the latch closed; its effects are in the
    /// first value, and hold whether or not the act was refused.
    pub fn handle(&mut self, now: Micros, act: &DeviceAct) -> (Effects, Result<Effects, FenceError>) {
        let before = self.tick(now);
        let result = match *act {
            DeviceAct::KeepAlive { boot, fence } => self.serve(boot, fence).map(|()| Effects::default()),
            DeviceAct::Select { boot, to, fence, sequence } => self.select(boot, to, fence, sequence),
            DeviceAct::Hold { fence, sequence } => self.stop(fence, sequence).map(|()| Effects {
                hold: self.obeys_remote(),
                energy_off: true,
                ..Effects::default()
            }),
            DeviceAct::EnergyOff { fence, sequence } => {
                self.stop(fence, sequence).map(|()| Effects { energy_off: true, ..Effects::default() })
            }
            DeviceAct::Command { fence, sequence, energy, .. } => {
                self.command(fence, sequence).map(|()| Effects { actuate: Some(energy), ..Effects::default() })
            }
        };
        if let Ok(effects) = &result {
            self.note(effects);
        }
        (before, result)
    }

    /// Time passes: the watchdog (HO-D-005, HO-D-006). While local is selected it does nothing (HO-D-007).
    pub fn tick(&mut self, now: Micros) -> Effects {
        self.now = self.now.max(now);
        if self.selected != Selection::Remote || self.latched || self.owner_is_current() {
            return Effects::default();
        }
        self.latched = true;
        let effects = Effects { energy_off: true, hold: true, ..Effects::default() };
        self.note(&effects);
        effects
    }

    /// This fence is on the device's disk.
    pub fn persisted(&mut self, fence: Epoch) {
        self.persisted = self.persisted.max(fence);
    }

    /// The hardware switch that needs no gate (HO-D-011).
    pub const fn override_to_local(&mut self) -> Effects {
        self.selected = Selection::Local;
        self.overridden = true;
        self.latched = true;
        let effects =
            Effects { energy_off: true, hold: false, obey: Some(Selection::Local), persist: None, actuate: None };
        self.note(&effects);
        effects
    }

    /// How the device is, for the gate. A device that measures its energy reports what it measured instead, and what [`Rivals`] says.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        DeviceReport {
            highest: self.highest,
            owner: self.owner.filter(|_| self.owner_is_current()).map(|(boot, _)| boot),
            selected: self.selected,
            sequence: self.select_sequence,
            latched: self.latched,
            overridden: self.overridden,
            energy: self.energy,
            held: self.held,
            rival: false,
        }
    }

    /// Whom the device obeys.
    #[must_use]
    pub const fn selected(&self) -> Selection {
        self.selected
    }

    /// The highest fence that it accepted.
    #[must_use]
    pub const fn highest(&self) -> Epoch {
        self.highest
    }

    /// Whether a command could move it now.
    #[must_use]
    pub const fn obeys_remote(&self) -> bool {
        matches!(self.selected, Selection::Remote) && !self.latched
    }

    /// HO-D-020, HO-D-021.
    const fn note(&mut self, effects: &Effects) {
        if effects.energy_off {
            self.energy = false;
        }
        if effects.hold || effects.obey.is_some() {
            self.held = true;
        }
        if let Some(energy) = effects.actuate {
            self.energy = energy;
            self.held = false;
        }
    }

    fn owner_is_current(&self) -> bool {
        self.owner.is_some_and(|(_, at)| self.now.since(at) < self.watchdog)
    }

    /// A gate shows that it lives. It is served when it is the owner, or may become it (HO-D-001, HO-D-002, HO-D-003,
    /// HO-D-004).
    fn serve(&mut self, boot: BootId, fence: Epoch) -> Result<(), FenceError> {
        if !C::fence_is_high_enough(self.highest, fence) {
            return Err(FenceError::LowFence);
        }
        match self.owner {
            // After the device's own restart the gate at work shows the fence that is on the device's disk.
            None => {}
            Some((owner, _)) if owner == boot => {}
            Some(_) if C::owner_may_change(self.owner_is_current(), self.highest, fence) => {}
            Some(_) => return Err(FenceError::NotOwner),
        }
        self.owner = Some((boot, self.now));
        Ok(())
    }

    fn select(&mut self, boot: BootId, to: Selection, fence: Epoch, sequence: u64) -> Result<Effects, FenceError> {
        if self.overridden && to != Selection::Local {
            return Err(FenceError::Overridden); // HO-D-011
        }
        let higher = fence > self.highest;
        if fence == self.highest && sequence <= self.select_sequence {
            let repeats = sequence == self.select_sequence && to == self.selected && !self.overridden;
            self.serve(boot, fence)?;
            return if repeats { Ok(Effects::default()) } else { Err(FenceError::OldSequence) }; // HO-D-008
        }
        if to == Selection::Remote && !higher && !C::latch_lets_pass(self.latched) {
            return Err(FenceError::Latched); // HO-D-013
        }
        self.serve(boot, fence)?;
        if higher {
            self.highest = fence;
            self.act_sequence = 0;
            self.latched = false;
        }
        self.select_sequence = sequence;
        self.selected = to;
        self.overridden = false;
        let remote = to == Selection::Remote;
        Ok(Effects {
            energy_off: !remote, // HO-D-014
            hold: to == Selection::Nobody,
            obey: Some(to),
            persist: (self.highest > self.persisted).then_some(self.highest),
            actuate: None,
        })
    }

    /// Hold and energy-off always work, but for a gate of the past; what was sent before them does not overtake them (HO-D-019).
    fn stop(&mut self, fence: Epoch, sequence: u64) -> Result<(), FenceError> {
        if !C::fence_is_high_enough(self.highest, fence) {
            return Err(FenceError::LowFence);
        }
        if fence == self.highest {
            self.act_sequence = self.act_sequence.max(sequence);
        }
        Ok(())
    }

    /// HO-D-009, HO-D-010.
    fn command(&mut self, fence: Epoch, sequence: u64) -> Result<(), FenceError> {
        if !C::fence_is_high_enough(self.highest, fence) {
            return Err(FenceError::LowFence);
        }
        if self.selected != Selection::Remote || fence != self.highest {
            return Err(FenceError::NotSelected);
        }
        if self.persisted < fence {
            return Err(FenceError::NotDurable);
        }
        if !C::latch_lets_pass(self.latched) {
            return Err(FenceError::Latched);
        }
        if !self.owner_is_current() {
            return Err(FenceError::NotOwner);
        }
        if sequence <= self.act_sequence {
            return Err(FenceError::OldSequence);
        }
        self.act_sequence = sequence;
        Ok(())
    }
}

#[cfg(trocar_model)]
impl<C: Checks> super::canon::Canon for Fence<C> {
    fn canon(&mut self, by: &super::canon::Ruler) {
        by.past(&mut self.now, self.watchdog);
        if let Some((_, at)) = &mut self.owner {
            by.past(at, self.watchdog);
        }
        by.sequence(&mut self.select_sequence);
        by.sequence(&mut self.act_sequence);
    }
}

#[cfg(trocar_model)]
impl<C: Checks> Fence<C> {
    /// Its sequences.
    pub fn sequences(&self, into: &mut Vec<u64>) {
        into.extend([self.select_sequence, self.act_sequence]);
    }

    /// The hold is latched.
    #[must_use]
    pub const fn is_latched(&self) -> bool {
        self.latched
    }
}

#[cfg(test)]
mod tests;
