//! The gate's part of [`Canon`], and what the model checker's ruler is made of.

use super::Gate;
use super::register::{Remote, State};
use crate::handover::canon::{Canon, Ruler};
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::types::Binding;
use crate::units::Micros;

impl<C: Checks> Gate<C> {
    /// The present binding with the newest counter accepted and the newest BEACON's.
    #[must_use]
    pub fn newest(&self) -> Option<(Binding, u64, u64)> {
        self.state.talk().map(|t| (t.binding, t.newest().0, t.beacons.newest().0))
    }

    /// Sequences of the device that the gate knows of.
    pub fn sequences(&self, into: &mut Vec<u64>) {
        self.device.sequences(into);
    }
}

impl<C: Checks> Canon for Gate<C> {
    fn canon(&mut self, by: &Ruler) {
        let cfg = &self.cfg;
        // A gate that is paused has an older time; longer than every limit is one and the same.
        by.past(&mut self.now, cfg.lease.max(cfg.device_report).max(cfg.console).max(cfg.stop_hold));
        // Only in REMOTE anything is counted from it.
        let limit = if matches!(self.state, State::Remote(_)) { cfg.device_report } else { 0 };
        if limit == 0 {
            self.since = Micros(0);
        }
        by.past(&mut self.since, limit);
        if let Some(at) = &mut self.console {
            by.past(at, cfg.console);
        }
        by.due(&mut self.status_due);
        self.epochs.canon(by);
        self.device.canon(cfg, by);
        self.channels.canon(by);
        self.estops.canon(cfg.estop_every, by);
        let shown = self.state.talk_mut().and_then(|t| t.shown.as_mut());
        self.frames.canon(cfg.frame_hold, shown, by);
        if let Some(talk) = self.state.talk_mut() {
            talk.canon(cfg, by);
        }
        match &mut self.state {
            State::Offered { until, .. } => by.due(until),
            State::Ready(ready) => by.due(&mut ready.until),
            State::Granting(granting) => {
                by.due(&mut granting.until);
                by.due(&mut granting.ready.until);
            }
            State::Remote(remote) => remote.canon(cfg, by),
            State::Hold | State::Local | State::Estop | State::Closed => {}
        }
        match &mut self.former {
            Some(remote) if C::RESUMES_AFTER_HOLD => {
                remote.talk.canon(cfg, by);
                remote.canon(cfg, by);
            }
            former => *former = None,
        }
    }
}

impl Remote {
    fn canon(&mut self, cfg: &Config, by: &Ruler) {
        if let Some(stop) = &mut self.stop {
            stop.canon(cfg, by);
        }
        if let Some(at) = &mut self.camera_moved {
            by.past(at, cfg.gap);
        }
        if let Some(at) = &mut self.slow_since {
            by.past(at, cfg.withdraw_time);
        }
        for waiting in &mut self.waiting {
            by.past(&mut waiting.issued, cfg.command_age);
            by.counter(Binding::Epoch(waiting.command.epoch), &mut waiting.command.counter);
        }
    }
}
