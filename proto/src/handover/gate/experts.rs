//! Reliable messages: who may say what (HANDOVER.md section 5.2). The channel says who speaks; the message never does.

use super::Gate;
use super::channels::Sender;
use super::output::{Alarms, Notice, Output, Peer, Verified, Why};
use super::register::{Links, Ready, State};
use super::talk::Talk;
use crate::handover::checks::Checks;
use crate::handover::message::{Reason, Short, ToGate};
use crate::handover::types::{Binding, ChannelId, Epoch, ExpertId, Oid};

impl<C: Checks> Gate<C> {
    /// A refused one is answered with NACK (HO-M-014).
    pub(super) fn message(
        &mut self,
        channel: ChannelId,
        message: ToGate,
        token: Option<Verified>,
    ) -> Result<(), Reason> {
        let result = self.judge_message(channel, message, token);
        if let Err(reason) = result {
            self.nack(channel, reason);
        }
        result
    }

    fn judge_message(&mut self, id: ChannelId, message: ToGate, token: Option<Verified>) -> Result<(), Reason> {
        if let ToGate::Hello { .. } = message {
            return self.hello(id, token);
        }
        let channel = self.channels.get_mut(id).filter(|c| c.hello).ok_or(Reason::NoHello)?; // HO-M-002
        let peer = channel.peer;
        match message {
            ToGate::Hello { .. } => Ok(()),
            ToGate::Probe { nonce } => {
                channel.probe(nonce);
                Ok(())
            }
            ToGate::Request { set, reason, .. } => {
                self.emit(Output::Show(Notice::Request { channel: id, set, reason })); // HO-M-008
                Ok(())
            }
            ToGate::Accept { oid, .. } => self.accept(id, expert_of(peer)?, oid, token.as_ref()),
            ToGate::Decline { oid, reason } => self.decline(expert_of(peer)?, oid, reason),
            ToGate::Return { epoch } => self.hand_back(expert_of(peer)?, epoch),
            ToGate::Estop { person, reason } => {
                let own = channel.token.as_ref().map(|t| t.person.clone()).unwrap_or_default();
                let person = if peer == Peer::Signaling { person.unwrap_or_default() } else { own }; // HO-M-018
                self.network_estop(Sender::of(peer, &person), reason)
            }
        }
    }

    /// A station shows a token of its own certificate; signaling is who its certificate says. May be repeated.
    fn hello(&mut self, id: ChannelId, token: Option<Verified>) -> Result<(), Reason> {
        let channel = self.channels.get_mut(id).ok_or(Reason::NotConnected)?;
        if let Peer::Station(expert) = channel.peer {
            channel.token = Some(token.filter(|t| t.expert == expert).ok_or(Reason::BadToken)?);
        }
        channel.hello = true;
        self.tell_status();
        Ok(())
    }

    /// "I have control" from the expert (HO-G-008).
    fn accept(&mut self, id: ChannelId, by: ExpertId, oid: Oid, token: Option<&Verified>) -> Result<(), Reason> {
        let State::Offered { offer, .. } = &self.state else { return Err(Reason::NoSuchOffer) }; // HO-M-006
        if !C::accept_names_offer(offer.oid, oid) {
            return Err(Reason::NoSuchOffer); // HO-M-003
        }
        if !C::accept_is_addressees(offer.expert, by) {
            return Err(Reason::NotTheAddressee); // HO-M-004
        }
        C::token_covers(token, by, offer.set)?; // HO-M-005
        let offer = offer.clone();
        let talk = Talk::new(self.now, id, Binding::Offer(offer.oid), &self.cfg);
        let ready = Ready {
            until: self.now.plus(self.cfg.ready_time),
            offer,
            talk,
            links: Links::default(),
            amber_told: false,
            amber_confirmed: false,
        };
        self.become_state(State::Ready(ready), Why::Expert, None);
        Ok(())
    }

    /// From the addressee, with the oid that is open or granted (HO-M-020, HO-G-023).
    fn decline(&mut self, by: ExpertId, oid: Oid, reason: Short) -> Result<(), Reason> {
        let offer = self.state.offer().filter(|o| o.oid == oid).ok_or(Reason::NoSuchOffer)?;
        if offer.expert != by {
            return Err(Reason::NotTheAddressee);
        }
        self.give_up(Why::Expert, Some(reason));
        Ok(())
    }

    /// RETURN (HO-G-015).
    fn hand_back(&mut self, by: ExpertId, epoch: Epoch) -> Result<(), Reason> {
        let State::Remote(remote) = &self.state else { return Err(Reason::NotTheHolder) };
        if remote.offer.expert != by {
            return Err(Reason::NotTheHolder);
        }
        if !C::epoch_matches(self.epochs.current(), epoch) {
            return Err(Reason::WrongEpoch);
        }
        self.give_up(Why::Expert, None);
        Ok(())
    }

    /// ESTOP from the network ends what is open or held and otherwise is only shown: it never freezes the surgeon (HO-M-015,
    /// HO-M-016).
    fn network_estop(&mut self, (sender, person): (Sender, Short), reason: Short) -> Result<(), Reason> {
        if !self.estops.take(self.now, &sender, self.cfg.estop_every) {
            return Err(Reason::EstopLimited); // HO-M-017
        }
        self.alarm(Alarms::ESTOP);
        self.emit(Output::Show(Notice::Estop { person: person.clone(), reason }));
        self.give_up(Why::NetworkEstop, Some(person));
        self.tell_change();
        Ok(())
    }
}

/// Only a station can hold (HO-M-007).
const fn expert_of(peer: Peer) -> Result<ExpertId, Reason> {
    match peer {
        Peer::Station(expert) => Ok(expert),
        Peer::Signaling => Err(Reason::NotAStation),
    }
}
