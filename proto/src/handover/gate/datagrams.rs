//! HB and CMD, after their channel's key opened them (HANDOVER.md sections 7 and 11).

use super::Gate;
use super::output::{Alarms, Output, Sample, Why};
use super::register::{State, Waiting};
use super::talk::Heard;
use crate::handover::checks::Checks;
use crate::handover::message::{Command, Heartbeat, Reason};
use crate::handover::types::{Binding, ChannelId, Clutch};
use crate::units::Micros;

/// Commands that wait for the caller's poll at most; the oldest is dropped (HO-S-015).
const WAITING: usize = 32;

impl<C: Checks> Gate<C> {
    pub(super) fn heartbeat(&mut self, channel: ChannelId, hb: &Heartbeat) -> Result<(), Reason> {
        let result = self.judge_heartbeat(channel, hb);
        self.report(channel, result)
    }

    pub(super) fn command(&mut self, channel: ChannelId, command: Command) -> Result<(), Reason> {
        let result = self.judge_command(channel, command);
        self.report(channel, result)
    }

    fn report(&mut self, channel: ChannelId, result: Result<(), Reason>) -> Result<(), Reason> {
        if let Err(reason) = result {
            self.emit(Output::Refused(channel, reason));
        }
        result
    }

    fn judge_heartbeat(&mut self, channel: ChannelId, hb: &Heartbeat) -> Result<(), Reason> {
        #[cfg(any(test, trocar_model))]
        self.resume_as_mutant(hb);
        let heard = Heard {
            channel,
            binding: hb.binding,
            counter: hb.counter,
            nonce: hb.nonce,
            echo: hb.echo,
            is_command: false,
        };
        let issued = self.hear(&heard)?;
        self.sample(&heard, issued, Some(hb.beat));
        let (now, age) = (self.now, self.now.since(issued));
        if let Some(talk) = self.state.talk_mut() {
            talk.beat(now, issued, hb);
        }
        let wants_pose = match &mut self.state {
            State::Remote(remote) if age > self.cfg.withdraw_at_once => {
                remote.slow_since = None;
                self.alarm(Alarms::LINK);
                self.give_up(Why::TooLate, None); // HO-A-010
                return Ok(());
            }
            State::Remote(remote) => {
                let slow = age > self.cfg.withdraw_age;
                remote.slow_since = remote.slow_since.or(Some(now)).filter(|_| slow); // HO-A-009
                remote.stop.is_some()
            }
            _ => true,
        };
        if wants_pose {
            self.emit(Output::Judge(hb.binding, hb.counter, hb.pose.clone()));
        }
        Ok(())
    }

    fn judge_command(&mut self, channel: ChannelId, command: Command) -> Result<(), Reason> {
        if !matches!(self.state, State::Remote(_)) {
            return Err(Reason::NotTheHolder);
        }
        let heard = Heard {
            channel,
            binding: Binding::Epoch(command.epoch),
            counter: command.counter,
            nonce: command.nonce,
            echo: command.echo,
            is_command: true,
        };
        let issued = self.hear(&heard)?;
        self.sample(&heard, issued, None);
        let now = self.now;
        let State::Remote(remote) = &mut self.state else { return Err(Reason::NotTheHolder) };
        let young = C::age_is_within(now.since(issued), self.cfg.command_age);
        if command.clutch == Clutch::Open {
            remote.clutch_open = true; // however old: this only stops
        }
        if !young {
            return Err(Reason::TooOld); // HO-S-013
        }
        if remote.stop.is_some() || command.clutch == Clutch::Open {
            let resumed = remote.clutch::<C>(now, command.clutch, &self.cfg)?;
            if resumed {
                self.tell_change();
            }
            return Ok(()); // HO-S-011: what works the clutch is not actuated
        }
        if remote.waiting.len() >= WAITING {
            remote.waiting.pop_front();
        }
        remote.waiting.push_back(Waiting { command, issued });
        Ok(())
    }

    fn hear(&mut self, heard: &Heard) -> Result<Micros, Reason> {
        let talk = self.state.talk_mut().ok_or(Reason::NotTheHolder)?;
        talk.hear::<C>(self.now, heard, &self.cfg, &self.frames)
    }

    /// For the meter of the link gates (HO-K-001).
    fn sample(&mut self, heard: &Heard, issued: Micros, beat: Option<u32>) {
        let (Some(offer), Some(talk)) = (self.state.offer(), self.state.talk()) else { return };
        let sample = Sample {
            oid: offer.oid,
            binding: heard.binding,
            counter: heard.counter,
            beat,
            loop_age: self.now.since(issued),
            frame_age: talk.frame_age(self.now),
        };
        self.emit(Output::Sample(sample));
    }

    /// The mutant "auto-resume after HOLD": the former holder comes back by a heartbeat. No code outside of tests has this.
    #[cfg(any(test, trocar_model))]
    fn resume_as_mutant(&mut self, hb: &Heartbeat) {
        if C::RESUMES_AFTER_HOLD
            && matches!(self.state, State::Hold)
            && let Some(mut remote) = self.former.take_if(|r| r.talk.binding == hb.binding)
        {
            remote.talk = remote.talk.granted(self.now, hb.binding, &self.cfg);
            self.become_state(State::Remote(remote), Why::Granted, None);
        }
    }
}
