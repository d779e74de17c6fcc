//! Acts of the surgeon at the patient's side. They come from the gate's own console and hardware inputs, never from a channel.

use super::Gate;
use super::grant::Confirmation;
use super::output::{Act, Why};
use super::register::{Offer, State};
use crate::handover::checks::Checks;
use crate::handover::message::{FromGate, Mode, Reason, Short};
use crate::handover::types::{ExpertId, GrantedSet, Oid};

impl<C: Checks> Gate<C> {
    pub(super) fn local(&mut self, act: Act) -> Result<(), Reason> {
        match act {
            Act::Offer { oid, expert, set, step } => self.offer_to(oid, expert, set, step),
            Act::Withdraw => self.withdraw(),
            Act::Confirm => self.confirm(Confirmation::First),
            Act::ConfirmAmber => self.confirm(Confirmation::Second),
            Act::Take => self.take(Why::Local),
            Act::Estop => {
                self.estop();
                Ok(())
            }
            Act::Reset => self.reset(),
            Act::Close => self.close(),
            Act::Mute(person) => self.estops.mute(person),
        }
    }

    /// TAKE: LOCAL in one step, from everywhere but ESTOP and CLOSED (HO-G-003).
    pub(super) fn take(&mut self, why: Why) -> Result<(), Reason> {
        match self.state.mode() {
            Mode::Estop => return Err(Reason::Latched), // HO-G-005
            Mode::Closed => return Err(Reason::SessionClosed),
            Mode::Local => self.device.select(self.state.selection()), // HO-G-004
            Mode::Offered | Mode::Ready | Mode::Granting => {
                self.device.select(self.state.selection());
                self.become_state(State::Local, why, None);
            }
            Mode::Hold | Mode::Remote => self.become_state(State::Local, why, None),
        }
        self.alarms.answered();
        self.alarms.set(super::Alarms::DISK, self.unwritten);
        Ok(())
    }

    /// HO-G-016. CLOSED is final and stays so, but the device is stopped once more.
    fn estop(&mut self) {
        self.device.stop();
        match self.state {
            State::Closed => self.device.select(self.state.selection()),
            _ => self.become_state(State::Estop, Why::Local, None),
        }
    }

    /// HO-G-017.
    fn reset(&mut self) -> Result<(), Reason> {
        if !matches!(self.state, State::Estop) {
            return Err(Reason::WrongState);
        }
        self.become_state(State::Hold, Why::Local, None);
        Ok(())
    }

    /// HO-G-018.
    fn close(&mut self) -> Result<(), Reason> {
        match self.state {
            State::Hold | State::Local | State::Estop => {
                self.become_state(State::Closed, Why::Local, None);
                Ok(())
            }
            State::Closed => Err(Reason::SessionClosed),
            _ => Err(Reason::WrongState),
        }
    }

    /// HO-G-020.
    fn withdraw(&mut self) -> Result<(), Reason> {
        if !self.state.is_open() {
            return Err(Reason::NoSuchOffer);
        }
        self.become_state(State::Local, Why::Local, None);
        Ok(())
    }

    fn offer_to(&mut self, oid: Oid, expert: ExpertId, set: GrantedSet, step: Short) -> Result<(), Reason> {
        if !matches!(self.state, State::Local) {
            return Err(Reason::WrongState); // HO-G-006, HO-I-011
        }
        self.may_offer(expert, set)?;
        let until = self.now.plus(self.cfg.offer_time);
        let message = FromGate::Offer {
            oid,
            set,
            grade: set.grade(),
            step: step.clone(),
            expires_ms: u32::try_from(self.cfg.offer_time / 1_000).unwrap_or(u32::MAX),
        };
        let offer = Offer { oid, expert, set, step };
        self.become_state(State::Offered { offer, until }, Why::Local, None);
        self.send_to(expert, &message); // HO-M-011
        Ok(())
    }

    /// HO-M-007, HO-M-009.
    fn may_offer(&self, expert: ExpertId, set: GrantedSet) -> Result<(), Reason> {
        if set.is_empty() || !C::set_is_consistent(set) {
            return Err(Reason::BadSet);
        }
        if self.epochs.next_grant().is_none() || !self.means {
            return Err(Reason::RemoteRefused); // HO-M-009, HO-R-014
        }
        if !C::consent_allows(self.consent) {
            return Err(Reason::NoConsent);
        }
        if self.console_is_lost() {
            return Err(Reason::NoConsole); // HO-G-027
        }
        let channel = self.channels.of(expert).next().ok_or(Reason::NotConnected)?;
        C::token_covers(channel.token.as_ref(), expert, set)
    }
}
