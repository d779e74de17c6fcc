//! The gate's side of the device: what it is to do now, as a level and not as a queue, so that nothing old is ever in front of a
//! stop (HO-G-021).

use super::output::{DeviceAct, DeviceReport};
use crate::handover::config::Config;
use crate::handover::types::{BootId, Epoch, Selection};
use crate::units::Micros;

/// What was last selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Wanted {
    to: Selection,
    fence: Epoch,
    sequence: u64,
}

/// What the gate wants of the remote side; both are false outside of REMOTE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    /// Motion runs.
    pub(super) motion: bool,
    /// Energy is permitted.
    pub(super) energy: bool,
}

/// What the device has to be told, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Device {
    boot: BootId,
    fence: Option<Epoch>,
    sequence: u64,
    wanted: Option<Wanted>,
    energy_off: bool,
    hold: bool,
    select: bool,
    keep_alive: bool,
    keep_alive_due: Micros,
    report: Option<(DeviceReport, Micros)>,
    /// Since when the newest report shows more than the gate wants.
    excess_since: Option<Micros>,
}

impl Device {
    pub(super) const fn new(boot: BootId, now: Micros) -> Self {
        Self {
            boot,
            fence: None,
            sequence: 0,
            wanted: None,
            energy_off: false,
            hold: false,
            select: false,
            keep_alive: false,
            keep_alive_due: now,
            report: None,
            excess_since: None,
        }
    }

    /// From now on under this fence; its sequence starts anew.
    pub(super) fn fence(&mut self, fence: Epoch) {
        if self.fence != Some(fence) {
            self.fence = Some(fence);
            self.sequence = 0;
        }
    }

    /// Selects, again if it was selected before (HO-G-004). Without a fence it waits for one.
    pub(super) fn select(&mut self, to: Selection) {
        let Some(fence) = self.fence else { return };
        let sequence = self.next();
        self.wanted = Some(Wanted { to, fence, sequence });
        self.select = true;
    }

    /// Remote motion and energy stop (HO-S-005).
    pub(super) const fn stop(&mut self) {
        self.energy_off = true;
        self.hold = true;
    }

    /// Remote energy off.
    pub(super) const fn energy_off(&mut self) {
        self.energy_off = true;
    }

    /// The sequence of the next act under this fence.
    pub(super) const fn next(&mut self) -> u64 {
        self.sequence = self.sequence.saturating_add(1);
        self.sequence
    }

    /// Notes that a keep-alive is due, and with it a selection or a stop that the device did not report yet (HO-D-015, HO-D-016,
    /// HO-D-022). Stops that are repeated take the next sequences, so a command of after the stop is above them (HO-D-019).
    pub(super) fn tick(&mut self, now: Micros, wish: Wish, cfg: &Config) {
        if now < self.keep_alive_due {
            return;
        }
        self.keep_alive_due = now.plus(cfg.keep_alive);
        self.keep_alive = true;
        self.select |= self.wanted.is_some() && !self.is_acknowledged();
        let excess = self.excess(wish);
        self.energy_off |= excess.energy;
        self.hold |= excess.motion;
    }

    /// What to tell the device next: stops before selections before keep-alives.
    pub(super) fn poll(&mut self) -> Option<DeviceAct> {
        let fence = self.fence?;
        if std::mem::take(&mut self.energy_off) {
            return Some(DeviceAct::EnergyOff { fence, sequence: self.next() });
        }
        if std::mem::take(&mut self.hold) {
            return Some(DeviceAct::Hold { fence, sequence: self.next() });
        }
        let boot = self.boot;
        if std::mem::take(&mut self.select)
            && let Some(Wanted { to, fence, sequence }) = self.wanted
        {
            return Some(DeviceAct::Select { boot, to, fence, sequence });
        }
        std::mem::take(&mut self.keep_alive).then_some(DeviceAct::KeepAlive { boot, fence })
    }

    pub(super) const fn note(&mut self, now: Micros, report: DeviceReport) {
        self.report = Some((report, now));
    }

    /// Compares what the device shows with what the gate wants. True where it has shown more for too long (HO-D-023).
    pub(super) fn disobeys(&mut self, now: Micros, wish: Wish, cfg: &Config) -> bool {
        if self.excess(wish) == Wish::default() {
            self.excess_since = None;
            return false;
        }
        now.since(*self.excess_since.get_or_insert(now)) > cfg.device_report
    }

    /// What the newest report shows beyond the wish. A device that serves another gate, or a higher fence, is not this gate's to stop.
    fn excess(&self, wish: Wish) -> Wish {
        let ours = |r: &DeviceReport| !self.is_anothers(r) && self.fence.is_some_and(|fence| r.highest <= fence);
        self.report.map(|(report, _)| report).filter(ours).map_or_else(Wish::default, |report| Wish {
            motion: report.selected == Selection::Remote && !report.held && !wish.motion,
            energy: report.energy && !wish.energy,
        })
    }

    pub(super) const fn was_heard(&self) -> bool {
        self.report.is_some()
    }

    /// Whether anything was selected since the gate started.
    pub(super) const fn has_selected(&self) -> bool {
        self.wanted.is_some()
    }

    /// Another gate's keep-alive is current.
    pub(super) fn is_anothers(&self, report: &DeviceReport) -> bool {
        report.owner.is_some_and(|owner| owner != self.boot)
    }

    /// HO-D-018: a young report shows this gate as owner, no higher fence and no hardware override.
    pub(super) fn is_ours(&self, now: Micros, cfg: &Config) -> bool {
        self.report.is_some_and(|(report, at)| {
            now.since(at) <= cfg.device_report
                && report.owner == Some(self.boot)
                && !report.overridden
                && self.fence.is_some_and(|ours| report.highest <= ours)
        })
    }

    /// The device obeys the newest selection.
    fn is_acknowledged(&self) -> bool {
        match (self.wanted, self.report) {
            (Some(wanted), Some((report, _))) => {
                report.highest == wanted.fence && report.sequence == wanted.sequence && report.selected == wanted.to
            }
            _ => false,
        }
    }

    /// HO-D-017, in REMOTE since `since`: no report, or one that shows another selection under this fence.
    pub(super) fn is_lost(&self, now: Micros, since: Micros, cfg: &Config) -> bool {
        let Some((report, at)) = self.report else { return true };
        let silent = now.since(at) > cfg.device_report;
        let deaf = !self.is_acknowledged() && now.since(since) > cfg.device_report;
        let dropped = Some(report.highest) == self.fence && (report.selected != Selection::Remote || report.latched);
        silent || deaf || dropped
    }
}

#[cfg(trocar_model)]
impl Device {
    pub(super) fn canon(&mut self, cfg: &Config, by: &crate::handover::canon::Ruler) {
        by.due(&mut self.keep_alive_due);
        by.sequence(&mut self.sequence);
        if let Some(wanted) = &mut self.wanted {
            by.sequence(&mut wanted.sequence);
        }
        if let Some((report, at)) = &mut self.report {
            by.sequence(&mut report.sequence);
            by.past(at, cfg.device_report);
        }
        if let Some(since) = &mut self.excess_since {
            by.past(since, cfg.device_report);
        }
    }

    pub(super) fn sequences(&self, into: &mut Vec<u64>) {
        into.push(self.sequence);
        into.extend(self.wanted.map(|w| w.sequence));
        into.extend(self.report.map(|(r, _)| r.sequence));
    }
}
