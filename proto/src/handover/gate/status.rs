//! STATUS: the register as everybody is told it (HO-M-012, HO-M-013).

use super::Gate;
use super::output::{Alarms, Output};
use super::register::State;
use super::stops::Causes;
use crate::handover::checks::Checks;
use crate::handover::message::{FromGate, Status, Timers};
use crate::handover::paths::Protection;
use crate::handover::types::{ChannelId, ExpertId};

/// Experts with two paths at most: as many as there are channels for.
const EXPERTS: usize = 16;

impl<C: Checks> Gate<C> {
    /// The register as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        let offer = self.state.offer();
        let links = self.state.links();
        let stopped = match &self.state {
            State::Remote(remote) => remote.shown_causes::<C>(self.now, &self.cfg),
            _ => Causes::default(),
        };
        Status {
            epoch: self.epochs.current(),
            mode: self.state.mode(),
            expert: offer.map(|o| o.expert),
            set: offer.map(|o| o.set).unwrap_or_default(),
            since_ms: self.now.since(self.since) / 1_000,
            stopped: stopped.0,
            alarms: self.alarms.0,
            colours: links.map(|l| l.colours).unwrap_or_default(),
            figures: links.map(|l| l.figures).unwrap_or_default(),
            answers: Vec::new(),
            paths: self.protection(offer.map(|o| o.expert)),
            timers: Timers::from(&self.cfg),
        }
    }

    /// Of that expert, or of whoever has the most to tell where nobody is meant.
    fn protection(&self, of: Option<ExpertId>) -> Protection {
        let all = self.paths.iter().filter(|(expert, _)| of.is_none_or(|of| of == *expert));
        all.map(|(_, protection)| *protection).max().unwrap_or_default()
    }

    /// HO-C-011: the alarm stands as long as an expert that had two paths has one.
    pub(super) fn paths(&mut self, of: ExpertId, protection: Protection) {
        let before = self.protection(Some(of));
        self.paths.retain(|(expert, _)| *expert != of);
        if protection != Protection::Single && self.paths.len() < EXPERTS {
            self.paths.push((of, protection));
        }
        let lost = self.paths.iter().any(|(_, each)| *each == Protection::Unprotected);
        self.alarms.set(Alarms::PATH, lost);
        if before != protection {
            self.tell_change();
        }
    }

    /// To every channel now, each with the answers to its own probes; the next one after `status`.
    pub(super) fn tell_status(&mut self) {
        self.status_due = self.now.plus(self.cfg.status);
        let status = self.status();
        let told: Vec<(ChannelId, Status)> = self
            .channels
            .iter_mut()
            .filter(|c| c.hello)
            .map(|c| (c.id, Status { answers: c.answers(), ..status.clone() }))
            .collect();
        for (channel, status) in told {
            self.emit(Output::Send(channel, FromGate::Status(status)));
        }
    }

    /// Something that STATUS shows changed inside a state: told with the next tick, so that nobody can make a flood of it.
    pub(super) const fn tell_change(&mut self) {
        self.status_due = self.now;
    }
}
