//! The last look before the device: everything is judged again with the time at which it is handed out (HO-S-012).

use super::Gate;
use super::output::{DeviceAct, Output};
use super::register::{Remote, State, Waiting};
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::message::Reason;
use crate::units::Micros;

impl<C: Checks> Gate<C> {
    /// The next command for the device. Those that grew too old while they waited are refused.
    pub(super) fn next_command(&mut self) -> Option<DeviceAct> {
        loop {
            let (now, fence) = (self.now, self.epochs.fence()?);
            let State::Remote(remote) = &mut self.state else { return None };
            let Waiting { command, issued } = remote.waiting.pop_front()?;
            let refused = if !C::epoch_matches(fence, command.epoch) {
                Some(Reason::WrongEpoch)
            } else if remote.stop.is_some() {
                Some(Reason::MotionStopped)
            } else if !C::age_is_within(now.since(issued), self.cfg.command_age) {
                Some(Reason::TooOld)
            } else {
                None
            };
            if let Some(reason) = refused {
                let key = remote.talk.key;
                self.emit(Output::Refused(key, reason));
                continue;
            }
            let energy = permits_energy::<C>(remote, now, &self.cfg);
            remote.energised |= energy;
            let set = remote.offer.set;
            let sequence = self.device.next();
            let (counter, payload) = (command.counter, command.payload);
            return Some(DeviceAct::Command { fence, sequence, counter, set, energy, payload });
        }
    }
}

/// HO-N-002, HO-N-003.
pub(super) fn permits_energy<C: Checks>(remote: &Remote, now: Micros, cfg: &Config) -> bool {
    let pedal = remote.talk.beat.is_some_and(|b| {
        C::pedal_permits_energy(b.presence, b.pedal, now.since(b.at), cfg.pedal)
            && C::age_is_within(b.age, cfg.command_age)
    });
    let set = remote.offer.set;
    set.energy && C::set_is_consistent(set) && remote.stop.is_none() && pedal
}
