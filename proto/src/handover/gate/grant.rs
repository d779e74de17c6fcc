//! From CONFIRM to REMOTE: the guards, the intent on its way to the audit chain, the grant (HANDOVER.md section 6).

use super::Gate;
use super::output::{DiskAct, Output, Why};
use super::register::{Granting, Ready, Remote, State};
use super::stops::Stop;
use crate::handover::checks::Checks;
use crate::handover::message::{FromGate, Reason};
use crate::handover::types::{Binding, Colour, Epoch, Oid};
use std::collections::VecDeque;

/// Which of the two acts local performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    First,
    /// For amber only.
    Second,
}

impl<C: Checks> Gate<C> {
    /// "You have control" from local (HO-G-010).
    pub(super) fn confirm(&mut self, act: Confirmation) -> Result<(), Reason> {
        let State::Ready(ready) = &self.state else { return Err(Reason::WrongState) };
        let second = act == Confirmation::Second;
        if second && !ready.amber_told {
            return Err(Reason::WrongState); // HO-G-026
        }
        let passed = self.guards(ready, second);
        let epoch = self.epochs.next_grant().ok_or(Reason::RemoteRefused);
        let State::Ready(ready) = &mut self.state else { return Err(Reason::WrongState) };
        if passed == Err(Reason::LinkAmber) {
            ready.amber_told = true;
        }
        passed?;
        let epoch = epoch?;
        ready.amber_confirmed = second;
        let intent = DiskAct::Intent { oid: ready.offer.oid, epoch, expert: ready.offer.expert, set: ready.offer.set };
        let until = self.now.plus(self.cfg.grant_time);
        let granting = Granting { ready: ready.clone(), epoch, until, durable: false };
        self.become_state(State::Granting(granting), Why::Local, None);
        self.emit(Output::Disk(intent)); // HO-R-011
        if let Some(end) = self.epochs.ask(self.now, self.cfg.epoch_block) {
            self.emit(Output::Disk(DiskAct::Reserve(end)));
        }
        Ok(())
    }

    /// All guards of a grant, each by its name; amber last, so that nobody confirms amber for something that is refused anyway.
    fn guards(&self, ready: &Ready, second: bool) -> Result<(), Reason> {
        let (now, cfg) = (self.now, &self.cfg);
        if !C::consent_allows(self.consent) {
            return Err(Reason::NoConsent); // HO-R-008
        }
        if !C::set_is_consistent(ready.offer.set) {
            return Err(Reason::BadSet); // HO-N-001
        }
        if self.console_is_lost() {
            return Err(Reason::NoConsole); // HO-R-009
        }
        if !self.epochs.is_trusted() || !self.means {
            return Err(Reason::RemoteRefused); // HO-R-010, HO-R-014
        }
        if !self.device.is_ours(now, cfg) {
            return Err(Reason::NoDevice); // HO-D-018
        }
        if !ready.talk.beat_is_fresh::<C>(now, cfg) {
            return Err(Reason::NotHeard); // HO-R-006
        }
        if !ready.talk.presence_anew::<C>() {
            return Err(Reason::NoPresence); // HO-R-005
        }
        if !ready.talk.is_aligned(now, cfg) {
            return Err(Reason::NotAligned); // HO-R-004
        }
        if !C::frame_is_young(ready.talk.frame_age(now), cfg.frame_stop) {
            return Err(Reason::NoFrame); // HO-R-007
        }
        C::links_allow(ready.links.colours.overall(), second) // HO-R-002, HO-R-003
    }

    /// The intent is durable, or will not be. Anything that is not awaited counts for nothing (HO-G-013).
    pub(super) fn intent_done(&mut self, oid: Oid, epoch: Epoch, durable: bool) {
        let State::Granting(granting) = &mut self.state else { return };
        if !C::completion_is_awaited((granting.ready.offer.oid, granting.epoch), (oid, epoch)) {
            return;
        }
        if durable {
            granting.durable = true;
            self.try_grant();
        } else {
            self.alarm(super::Alarms::DISK);
            self.give_up(Why::Disk, None); // HO-E-008
        }
    }

    /// Whether the grant can be completed now (HO-G-012).
    fn may_complete(&self, granting: &Granting) -> Result<(), Reason> {
        if !C::intent_is_durable(granting.durable) {
            return Err(Reason::NotDurable);
        }
        if self.epochs.next_grant() != Some(granting.epoch) || !C::epochs_are_covered(granting.epoch, self.epochs.end())
        {
            return Err(Reason::NotCovered);
        }
        self.guards(&granting.ready, granting.ready.amber_confirmed) // HO-R-013
    }

    /// Completes the grant where everything passes at this moment; otherwise GRANTING waits for `grant_time`.
    pub(super) fn try_grant(&mut self) {
        let State::Granting(granting) = &self.state else { return };
        if self.may_complete(granting).is_err() {
            return;
        }
        let Granting { ready, epoch, .. } = granting.clone();
        let (holder, set) = (ready.offer.expert, ready.offer.set);
        let remote = Remote {
            talk: ready.talk.granted(self.now, Binding::Epoch(epoch), &self.cfg),
            offer: ready.offer,
            links: ready.links,
            stop: Some(Stop::new(self.now, false)), // HO-G-014
            clutch_open: false,
            camera_moved: None,
            slow_since: None,
            energised: false,
            waiting: VecDeque::new(),
        };
        self.become_state(State::Remote(remote), Why::Granted, None);
        let lease_ms = u32::try_from(self.cfg.lease / 1_000).unwrap_or(u32::MAX);
        self.send_to_all(&FromGate::Grant { holder, epoch, set, lease_ms }); // HO-M-011
    }

    /// Red ends an open offer; green again takes the first amber confirmation back (HO-R-012).
    pub(super) fn judge_links(&mut self) {
        let Some(overall) = self.state.links().map(|l| l.colours.overall()) else { return };
        match &mut self.state {
            State::Ready(_) | State::Granting(_) if overall == Colour::Red => self.give_up(Why::Red, None),
            State::Ready(ready) if overall != Colour::Amber => ready.amber_told = false,
            _ => {}
        }
    }
}
