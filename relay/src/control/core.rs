//! Who is there and who may speak with whom. Each method is quick; nothing here waits.

use super::rates::{Bucket, Rate};
use super::{Limits, TokenCheck};
use crate::doors::Doors;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc};
use trocar_control::trust::CertName;
use trocar_proto::control::{FromRelay, Index, MAX_PARTIES, MAX_TUNNELS, PartyKind, split_datagram};
use trocar_proto::handover::message::{FromGate, decode_from_gate};
use trocar_proto::handover::mirror::Mirror;
use trocar_proto::handover::types::Nonce;
use trocar_proto::session::ids::{CertHash, RealmId, SessionId};
use trocar_proto::units::Micros;

/// Stations of one session at most: gates and signaling always find a place.
const MAX_STATIONS: usize = MAX_PARTIES - 8;
/// Connections of one certificate in one session: two paths, and as many again while old ones die.
const MAX_PER_CERTIFICATE: usize = 4;
/// Copies of STATUS of one gate that are looked at: ten a second, and each change of state. Loss policy: more are left out.
const STATUSES: Rate = Rate { burst: 100, per_second: 50 };

/// Who connects.
pub(super) struct Newcomer {
    pub(super) kind: PartyKind,
    pub(super) session: SessionId,
    pub(super) certificate: CertHash,
    pub(super) name: CertName,
    pub(super) connection: quinn::Connection,
}

/// Somebody who is connected.
pub(super) struct Party {
    pub(super) who: Newcomer,
    /// Rises with each that joins.
    serial: u64,
    /// Loss policy: a party whose queue is full does not read, and is closed.
    tell: mpsc::Sender<FromRelay>,
    datagrams: Bucket,
    statuses: Bucket,
    /// Of gates.
    pub(super) mirror: Mirror,
}

/// A tunnel that stands.
pub(super) struct Tunnel {
    pub(super) from: Index,
    pub(super) to: Index,
    /// Ends it.
    pub(super) end: Rc<Notify>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Datagrams forwarded, by session: towards gates, and from them.
    pub(super) forwarded: BTreeMap<SessionId, [u64; 2]>,
    /// Datagrams dropped, by [`DROPS`].
    pub(super) dropped: [u64; DROPS.len()],
    /// Connections that were refused or never said who they are.
    pub(super) refused: u64,
}

/// Why datagrams are dropped, as labels.
pub(super) const DROPS: [&str; 4] = ["receiver_full", "too_fast", "no_receiver", "too_large"];

#[derive(Debug, Clone, Copy)]
enum Dropped {
    ReceiverFull,
    TooFast,
    NoReceiver,
    TooLarge,
}

/// Everything that the control thread knows.
pub(super) struct Core {
    pub(super) realm: RealmId,
    pub(super) limits: Limits,
    pub(super) tokens: TokenCheck,
    /// Who keeps certificates up to date, where somebody does.
    pub(super) doors: Option<Arc<Doors>>,
    pub(super) parties: BTreeMap<Index, Party>,
    pub(super) tunnels: BTreeMap<u64, Tunnel>,
    pub(super) counters: Counters,
    /// Connections whose handshake is done.
    pub(super) established: usize,
    next_index: u16,
    next_serial: u64,
    next_tunnel: u64,
    started: Instant,
}

impl Core {
    pub(super) fn new(realm: RealmId, tokens: TokenCheck, limits: Limits, doors: Option<Arc<Doors>>) -> Self {
        Self {
            realm,
            limits,
            tokens,
            doors,
            parties: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            counters: Counters::default(),
            established: 0,
            next_index: 0,
            next_serial: 0,
            next_tunnel: 0,
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Whether these two may speak with each other: a gate with the others of its session, nobody else.
    fn may_speak(a: &Party, b: &Party) -> bool {
        let is_gate = |p: &Party| p.who.kind == PartyKind::Gate;
        a.who.session == b.who.session && is_gate(a) != is_gate(b)
    }

    /// Takes a party in, and tells it and the others who is there.
    ///
    /// # Errors
    /// What the party is told.
    pub(super) fn join(&mut self, who: Newcomer, tell: mpsc::Sender<FromRelay>) -> Result<Index, String> {
        // Those that are closed already leave in a moment.
        let lives = |p: &&Party| p.who.session == who.session && p.who.connection.close_reason().is_none();
        let there: Vec<&Party> = self.parties.values().filter(lives).collect();
        let (all, stations) = (there.len(), there.iter().filter(|p| p.who.kind == PartyKind::Station).count());
        let same: Vec<&&Party> = there.iter().filter(|p| p.who.certificate == who.certificate).collect();
        if same.len() >= MAX_PER_CERTIFICATE {
            // A crash leaves connections behind for as long as nobody notices; the newest is the one that lives.
            if let Some(oldest) = same.iter().min_by_key(|p| p.serial) {
                let reason = b"a newer connection of this certificate took its place";
                oldest.who.connection.close(super::code::REPLACED, reason);
            }
        } else if all >= MAX_PARTIES || (who.kind == PartyKind::Station && stations >= MAX_STATIONS) {
            return Err(format!("the session is full: {all} parties are there"));
        }
        let index = self.free_index().ok_or("the relay has no number left")?;
        let now = self.now();
        let _ = tell.try_send(FromRelay::Connected { index });
        let joined = joined(index, &who);
        for (other, p) in self.parties.iter().filter(|(_, p)| p.who.session == who.session) {
            if who.kind == PartyKind::Gate || p.who.kind == PartyKind::Gate {
                let _ = tell.try_send(joined_of(*other, p));
            }
        }
        self.next_serial += 1;
        let party = Party {
            who,
            serial: self.next_serial,
            tell,
            datagrams: Bucket::full(now, self.datagram_rate()),
            statuses: Bucket::full(now, STATUSES),
            mirror: Mirror::default(),
        };
        let told = self.audience(&party);
        self.parties.insert(index, party);
        told.into_iter().for_each(|other| self.tell(other, joined.clone()));
        Ok(index)
    }

    /// A party is gone, and its tunnels with it.
    pub(super) fn leave(&mut self, index: Index) {
        let Some(party) = self.parties.remove(&index) else { return };
        for other in self.audience(&party) {
            self.tell(other, FromRelay::Left { index });
        }
        self.tunnels.values().filter(|t| t.from == index || t.to == index).for_each(|t| t.end.notify_one());
        let session = &party.who.session;
        if !self.parties.values().any(|p| &p.who.session == session) {
            self.counters.forwarded.remove(session);
        }
    }

    /// Who is told of that one: of a gate all others of its session, of others the gates.
    fn audience(&self, party: &Party) -> Vec<Index> {
        let of_session = self.parties.iter().filter(|(_, p)| p.who.session == party.who.session);
        let told = of_session.filter(|(_, p)| party.who.kind == PartyKind::Gate || p.who.kind == PartyKind::Gate);
        told.map(|(index, _)| *index).collect()
    }

    /// Queues a frame for that party.
    pub(super) fn tell(&mut self, index: Index, message: FromRelay) {
        let Some(party) = self.parties.get(&index) else { return };
        if matches!(party.tell.try_send(message), Err(mpsc::error::TrySendError::Full(_))) {
            self.close(index, super::code::SLOW, "the rendezvous stream is not read");
        }
    }

    /// Closes that party's connection; it leaves when its task sees that.
    pub(super) fn close(&self, index: Index, code: quinn::VarInt, reason: &str) {
        if let Some(party) = self.parties.get(&index) {
            party.who.connection.close(code, reason.as_bytes());
        }
    }

    fn free_index(&mut self) -> Option<Index> {
        for _ in 0..=u16::MAX {
            self.next_index = self.next_index.checked_add(1).unwrap_or(1);
            let index = Index(self.next_index);
            if !self.parties.contains_key(&index) {
                return Some(index);
            }
        }
        None
    }

    const fn datagram_rate(&self) -> Rate {
        let per_second = self.limits.datagrams_per_second;
        Rate { burst: per_second / 10 + 1, per_second }
    }

    /// Passes a datagram on, or drops and counts it.
    pub(super) fn forward(&mut self, from: Index, datagram: Bytes) {
        if let Err(why) = self.try_forward(from, datagram)
            && let Some(n) = self.counters.dropped.get_mut(why as usize)
        {
            *n += 1;
        }
    }

    fn try_forward(&mut self, from: Index, datagram: Bytes) -> Result<(), Dropped> {
        let (now, rate) = (self.now(), self.datagram_rate());
        let sender = self.parties.get_mut(&from).ok_or(Dropped::NoReceiver)?;
        if !sender.datagrams.take(now, rate, 0) {
            return Err(Dropped::TooFast);
        }
        let (to, _) = split_datagram(&datagram).ok_or(Dropped::NoReceiver)?;
        let sender = self.parties.get(&from).ok_or(Dropped::NoReceiver)?;
        let receiver = self.parties.get(&to).filter(|r| Self::may_speak(sender, r)).ok_or(Dropped::NoReceiver)?;
        let connection = &receiver.who.connection;
        // What does not fit drives out the oldest that waits (`DATAGRAM_SEND_BUFFER`), which is counted here.
        let is_full = connection.datagram_send_buffer_space() < datagram.len();
        match connection.send_datagram(readdressed(from, datagram)) {
            Err(quinn::SendDatagramError::ConnectionLost(_)) => return Err(Dropped::NoReceiver),
            Err(_) => return Err(Dropped::TooLarge),
            Ok(()) => {}
        }
        let direction = usize::from(receiver.who.kind != PartyKind::Gate);
        let session = &receiver.who.session;
        if let Some(count) = self.counters.forwarded.get_mut(session).and_then(|c| c.get_mut(direction)) {
            *count += 1;
        } else if let Some(count) = self.counters.forwarded.entry(session.clone()).or_default().get_mut(direction) {
            *count += 1;
        }
        if is_full { Err(Dropped::ReceiverFull) } else { Ok(()) }
    }

    /// A tunnel begins. Its number, what ends it, and the connection of the one that it is for.
    ///
    /// # Errors
    /// The code that the stream is refused with.
    pub(super) fn open_tunnel(
        &mut self,
        from: Index,
        to: Index,
    ) -> Result<(u64, Rc<Notify>, quinn::Connection), quinn::VarInt> {
        use super::tunnel_code::{FULL, NO_SUCH_PARTY};
        let sender = self.parties.get(&from).ok_or(NO_SUCH_PARTY)?;
        let receiver = self.parties.get(&to).filter(|r| Self::may_speak(sender, r)).ok_or(NO_SUCH_PARTY)?;
        let connection = receiver.who.connection.clone();
        let mut by_sender: BTreeMap<Index, usize> = BTreeMap::new();
        self.tunnels.values().filter(|t| t.to == to).for_each(|t| *by_sender.entry(t.from).or_default() += 1);
        if by_sender.values().sum::<usize>() >= MAX_TUNNELS {
            // A fair share: whoever has none gets one of whoever has most.
            let most = by_sender.iter().max_by_key(|(_, n)| **n).map(|(i, n)| (*i, *n));
            let Some((greedy, 2..)) = most.filter(|_| !by_sender.contains_key(&from)) else { return Err(FULL) };
            let newest = self.tunnels.values().rev().find(|t| t.to == to && t.from == greedy);
            newest.iter().for_each(|t| t.end.notify_one());
        }
        self.next_tunnel += 1;
        let end = Rc::new(Notify::new());
        self.tunnels.insert(self.next_tunnel, Tunnel { from, to, end: Rc::clone(&end) });
        Ok((self.next_tunnel, end, connection))
    }

    /// A gate's copy of its STATUS. One that cannot be used is left out, and the mirror says "unknown" in time: what the relay shows
    /// is no reason to cut a gate off.
    ///
    /// # Errors
    /// Why the party is closed.
    pub(super) fn take_status(&mut self, from: Index, bytes: &str) -> Result<(), &'static str> {
        let now = self.now();
        let party = self.parties.get_mut(&from).ok_or("gone")?;
        if party.who.kind != PartyKind::Gate {
            return Err("only a gate has a STATUS");
        }
        if !party.statuses.take(now, STATUSES, 0) {
            return Ok(());
        }
        match hex::decode(bytes).map(|bytes| decode_from_gate(&bytes)) {
            Ok(Ok((_, FromGate::Status(status)))) => party.mirror.handle(status),
            _ => tracing::debug!(gate = %party.who.name.name, "a copy of STATUS cannot be decoded"),
        }
        Ok(())
    }

    /// Says who holds authority, by the newest STATUS of each gate that is here, however old: whoever is cut off by mistake cannot come
    /// back, and one that is kept a moment too long is kept by its gate as well.
    pub(super) fn tell_holders(&self) {
        let Some(doors) = &self.doors else { return };
        let holders = self.parties.values().filter_map(|p| p.mirror.holder());
        doors.note_holders(holders.map(|expert| CertHash(expert.0)).collect::<BTreeSet<_>>());
    }

    /// Asks each gate how the register is. Each question is a random number, so that no answer can be made beforehand.
    pub(super) fn probe(&mut self) {
        let now = self.now();
        let mut probes = Vec::new();
        for (index, party) in self.parties.iter_mut().filter(|(_, p)| p.who.kind == PartyKind::Gate) {
            let mut nonce = [0; 8];
            // Without random numbers there is no probe, and the mirror says "unknown".
            if aws_lc_rs::rand::fill(&mut nonce).is_ok() {
                let nonce = u64::from_be_bytes(nonce);
                party.mirror.probed(now, Nonce(nonce));
                probes.push((*index, nonce));
            }
        }
        probes.into_iter().for_each(|(index, nonce)| self.tell(index, FromRelay::Probe { nonce }));
    }
}

const fn joined(index: Index, who: &Newcomer) -> FromRelay {
    FromRelay::Joined { index, kind: who.kind, certificate: who.certificate }
}

const fn joined_of(index: Index, party: &Party) -> FromRelay {
    joined(index, &party.who)
}

/// The same datagram with the sender's index in place of the receiver's; copied only where somebody else still has it.
fn readdressed(from: Index, datagram: Bytes) -> Bytes {
    let mut datagram = datagram.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if let Some(head) = datagram.first_chunk_mut() {
        *head = from.0.to_be_bytes();
    }
    datagram.freeze()
}
