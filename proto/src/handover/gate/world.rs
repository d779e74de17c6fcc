//! Disk, device, link gates, consent, revocation: what is neither local nor an expert.

use super::Gate;
use super::output::{Alarms, DeviceReport, DiskDone, Notice, Output, Why};
use super::register::State;
use crate::handover::checks::Checks;
use crate::handover::message::{Figures, Mode, Reason};
use crate::handover::types::{ChannelId, Colours, ExpertId, Oid, Selection};

impl<C: Checks> Gate<C> {
    pub(super) fn disk(&mut self, done: DiskDone) -> Result<(), Reason> {
        match done {
            DiskDone::Reserved(end) => {
                self.epochs.reserved(end);
                self.try_grant();
            }
            DiskDone::Durable(oid, epoch) => self.intent_done(oid, epoch, true),
            DiskDone::Failed(oid, epoch) => self.intent_done(oid, epoch, false),
        }
        Ok(())
    }

    /// The device's own word on what it obeys.
    pub(super) fn device_report(&mut self, report: DeviceReport) {
        let first = !self.device.was_heard();
        self.device.note(self.now, report);
        let anothers = self.device.is_anothers(&report);
        self.alarms.set(Alarms::SECOND_GATE, anothers || report.rival); // HO-D-024
        self.alarms.set(Alarms::OVERRIDE, report.overridden);
        let higher = self.epochs.fence().is_none_or(|ours| report.highest > ours);
        if matches!(self.state, State::Remote(_)) && (anothers || higher) {
            self.alarm(Alarms::DEVICE);
            self.give_up(Why::Device, None); // HO-D-017
        }
        if !anothers && self.epochs.fence().is_none_or(|ours| report.highest > ours) {
            self.adopt_fence(report); // HO-E-005, HO-E-006
        }
        if report.overridden && matches!(self.state, State::Hold | State::Remote(_)) {
            // HO-G-024: refused in no state that is matched here.
            let _ = self.take(Why::Override);
        } else if first && !self.device.has_selected() {
            self.begin(report);
        }
    }

    /// The device and the gate agree for the first time: local stays selected where it is (HO-G-001).
    fn begin(&mut self, report: DeviceReport) {
        if matches!(self.state, State::Hold) && report.selected == Selection::Local {
            self.become_state(State::Local, Why::Start, None);
        } else {
            self.device.select(self.state.selection());
        }
    }

    fn adopt_fence(&mut self, report: DeviceReport) {
        self.alarm(Alarms::STORE);
        if matches!(self.state, State::Ready(_) | State::Granting(_) | State::Offered { .. }) {
            self.give_up(Why::Device, None);
        }
        let had_selected = self.device.has_selected() || self.state.mode() != Mode::Hold;
        self.epochs.adopt(report.highest);
        if let Some(fence) = self.epochs.fence() {
            self.device.fence(fence);
        }
        if had_selected {
            self.device.select(self.state.selection());
        }
    }

    /// Colours count for the offer that they were measured for (HO-K-008).
    pub(super) fn links(&mut self, oid: Oid, colours: Colours, figures: Figures) -> Result<(), Reason> {
        if self.state.offer().is_none_or(|o| o.oid != oid) {
            return Err(Reason::NoSuchOffer);
        }
        let Some(links) = self.state.links_mut() else { return Err(Reason::WrongState) };
        links.colours = colours;
        links.figures = figures;
        self.judge_links();
        Ok(())
    }

    /// A holder is not dropped by it (HO-U-003); an offer is (HO-G-027).
    pub(super) fn consent(&mut self, active: bool) {
        let ended = self.consent && !active;
        self.consent = active;
        self.alarms.set(Alarms::CONSENT, !active);
        if !ended {
            return;
        }
        self.emit(Output::Show(Notice::ConsentEnded));
        if self.state.is_open() {
            self.give_up(Why::Consent, None);
        }
        self.tell_change();
    }

    /// As with consent: a holder is not dropped by it, an offer is (HO-G-028).
    pub(super) fn means(&mut self, usable: bool) {
        let ended = self.means && !usable;
        self.means = usable;
        self.alarms.set(Alarms::MEANS, !usable);
        if ended && self.state.is_open() {
            self.give_up(Why::Means, None);
        }
        self.tell_change();
    }

    /// HO-M-021.
    pub(super) fn revoked(&mut self, expert: ExpertId) {
        if self.state.offer().is_some_and(|o| o.expert == expert) {
            self.alarm(Alarms::REVOKED);
            self.give_up(Why::Revoked, None);
        }
        let gone: Vec<ChannelId> =
            self.channels.iter_mut().filter(|c| c.expert() == Some(expert)).map(|c| c.id).collect();
        for channel in gone {
            self.channels.close(channel);
            self.emit(Output::Close(channel));
        }
    }
}
