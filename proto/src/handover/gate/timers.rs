//! What time alone does. Judged before every input and before everything that is handed out (HO-A-011).

use super::Gate;
use super::device::Wish;
use super::output::{Alarms, DiskAct, Output, Why};
use super::register::{Remote, State};
use super::stops::{Demand, Stop};
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::message::Beacon;
use crate::handover::types::Nonce;
use crate::units::Micros;

impl<C: Checks> Gate<C> {
    /// Time is `now`, or what it was where that is later (HO-G-025).
    pub(super) fn advance(&mut self, now: Micros) {
        self.now = self.now.max(now);
        self.judge();
    }

    /// Ends what is over, stops what has to stop.
    pub(super) fn judge(&mut self) {
        let now = self.now;
        let console = self.console_is_lost();
        match &mut self.state {
            State::Offered { until, .. } if now >= *until => self.give_up(Why::Time, None), // HO-G-007
            State::Ready(ready) if now >= ready.until => self.give_up(Why::Time, None),     // HO-G-009
            State::Granting(granting) if now >= granting.until => self.give_up(Why::Time, None), // HO-G-011
            State::Offered { .. } | State::Ready(_) | State::Granting(_) if console => {
                self.alarm(Alarms::CONSOLE);
                self.give_up(Why::Console, None); // HO-G-027
            }
            State::Granting(_) => self.try_grant(),
            State::Remote(remote) => {
                let over = exit_due::<C>(remote, now, &self.cfg)
                    .or_else(|| console.then_some((Why::Console, Alarms::CONSOLE))) // HO-A-012
                    .or_else(|| {
                        let lost = self.device.is_lost(now, self.since, &self.cfg);
                        lost.then_some((Why::Device, Alarms::DEVICE)) // HO-D-017
                    });
                match over {
                    Some((why, alarm)) => {
                        self.alarm(alarm);
                        self.give_up(why, None);
                    }
                    None => self.judge_motion(),
                }
            }
            _ => {}
        }
        if self.device.disobeys(now, self.wish(), &self.cfg) {
            self.alarm(Alarms::DEVICE);
            if matches!(self.state, State::Remote(_)) {
                self.give_up(Why::Device, None); // HO-D-023
            }
        }
    }

    /// What remote may do now.
    fn wish(&self) -> Wish {
        let State::Remote(remote) = &self.state else { return Wish::default() };
        let energy = super::actuate::permits_energy::<C>(remote, self.now, &self.cfg);
        Wish { motion: remote.stop.is_none(), energy }
    }

    /// Stops, holds, and ends the energy permit, each in this very step (HO-S-005, HO-N-004).
    fn judge_motion(&mut self) {
        let now = self.now;
        let State::Remote(remote) = &mut self.state else { return };
        match remote.judge_stop::<C>(now, &self.cfg) {
            Demand::Nothing => {
                if remote.energised && !super::actuate::permits_energy::<C>(remote, now, &self.cfg) {
                    remote.energised = false;
                    self.device.energy_off();
                }
            }
            Demand::Stop => {
                remote.stop = Some(Stop::new(now, remote.clutch_open));
                remote.waiting.clear();
                remote.energised = false;
                self.device.stop();
                self.tell_change();
                // The new stop is judged too: an open clutch with all else fresh is repositioning from the start.
                if let State::Remote(remote) = &mut self.state {
                    let _ = remote.judge_stop::<C>(now, &self.cfg);
                }
            }
            Demand::Hold => {
                self.alarm(Alarms::STOPPED);
                self.give_up(Why::Stopped, None);
            }
        }
    }

    /// HO-R-009: the console was not heard for `console`; never heard is lost.
    pub(super) fn console_is_lost(&self) -> bool {
        self.console.is_none_or(|at| self.now.since(at) >= self.cfg.console)
    }

    /// Beacons, keep-alives, STATUS, blocks: what is done from time to time.
    pub(super) fn tick(&mut self, nonce: Nonce) {
        let (now, every) = (self.now, self.cfg.beacon);
        self.device.tick(now, self.wish(), &self.cfg);
        if let Some(talk) = self.state.talk_mut()
            && let Some(counter) = talk.beacons.issue(now, nonce, every)
        {
            // HO-A-001
            let (key, beacon) = (talk.key, Beacon { binding: talk.binding, counter, nonce });
            self.emit(Output::Seal(key, beacon));
        }
        if let Some(end) = self.epochs.ask(now, self.cfg.epoch_block) {
            self.emit(Output::Disk(DiskAct::Reserve(end)));
        }
        if now >= self.status_due {
            self.tell_status();
        }
    }
}

/// What ends REMOTE by age alone.
fn exit_due<C: Checks>(remote: &Remote, now: Micros, cfg: &Config) -> Option<(Why, Alarms)> {
    if remote.talk.lease_is_over(now, cfg) {
        return Some((Why::Lease, Alarms::LINK)); // HO-A-006
    }
    if remote.slow_since.is_some_and(|since| now.since(since) >= cfg.withdraw_time) {
        return Some((Why::Slow, Alarms::LINK)); // HO-A-009
    }
    let young = C::frame_is_young(remote.talk.frame_age(now), cfg.frame_hold);
    (!young).then_some((Why::Frame, Alarms::FRAME)) // HO-F-005
}
