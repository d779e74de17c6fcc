//! The end that is measured against, as a machine without sockets: packets in, packets out.
//!
//! It is open to whoever can reach it, unless it was given a key or lets in only what was asked for elsewhere, so it is built not to be
//! a weapon:
//! - until an address has shown the cookie that was sent to it, it gets at most as many bytes as came from it, and nothing is kept of it;
//! - afterwards, a flow goes to the address that showed the cookie and nowhere else, at the rate and for the time that whoever runs
//!   the responder allows; it ends where nothing is heard of the client for [`SILENCE_FLOW_US`];
//! - a peer has one session at a time (and one beside it, for a second path), and opens at most [`OPENS_MAX`] a minute.

#[cfg(test)]
mod tests;

use super::Stamp;
use super::cookie::{address_bytes, bake, is_good};
use super::flow::{Received, Way, evaluate};
use super::keys::Keys;
use super::log::{Arrival, Log};
use super::message::{Accepted, Answer, Ask, Opening, PART_CHARS, QuicDoor, Refusal};
use super::packet::{Header, Key, Kind, OPENING_BYTES, PING_BYTES_MIN, PacketError, read_probe, same};
use super::pair::compare;
use super::schedule::FlowSpec;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A flow ends where nothing was heard of its client for so long, in microseconds.
pub const SILENCE_FLOW_US: Stamp = 5_000_000;
/// A session ends likewise.
pub const SILENCE_SESSION_US: Stamp = 60_000_000;
/// A session that was silent for so long gives way to a new one of the same peer.
const SILENCE_YIELDS_US: Stamp = 3_000_000;
/// Sessions that one peer may open in a minute.
pub const OPENS_MAX: u32 = 30;
const MINUTE_US: Stamp = 60_000_000;
/// What whoever has no grant is told.
const NOT_ASKED: &str = "this measurement was not asked for, or its time is over: ask the relay again";
/// Peers whose openings are counted. Loss policy: beyond that, those of the last minute are forgotten.
const PEERS_MAX: usize = 4_096;
/// Flows of a session that are kept. Loss policy: one more is refused.
const FLOWS_MAX: usize = 8;
/// Longest pause before a pong, seconds.
const PAUSE_MAX_S: u32 = 3_600;

/// What whoever runs it allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Highest rate of a flow that it sends or takes, Mbit/s of UDP payload.
    pub mbit_s_max: f64,
    /// Longest session, seconds.
    pub seconds_max: f64,
    /// Sessions at a time.
    pub sessions_max: usize,
}

/// What else is open beside the port that packets come by.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// A second port of the same protocol.
    pub second_port: Option<u16>,
    /// QUIC.
    pub quic: Option<QuicDoor>,
}

/// What is to be done.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and a box would be one more thing to read past")]
pub enum Output {
    /// Send this.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send this later.
    Later {
        /// After so many seconds.
        seconds: u32,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a flow, and say with [`Responder::handle_flow_ended`] when it has ended.
    Start {
        /// Its session and number.
        id: (u64, u16),
        /// To whom.
        to: SocketAddr,
        /// The session's key.
        key: Key,
        /// What.
        flow: FlowSpec,
    },
    /// The flows of a session go to another address from now on: its client has shown a cookie there.
    Redirect {
        /// The session.
        session: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// End it now.
    Stop {
        /// Its session and number.
        id: (u64, u16),
    },
    /// For the log: who began, who ended.
    Note(String),
}

/// A packet that came.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// When it came.
    pub at: Stamp,
    /// DSCP × 4 + ECN.
    pub tos: u8,
    /// What it is.
    pub bytes: &'a [u8],
}

/// The machine.
#[derive(Debug)]
pub struct Responder {
    secret: Key,
    keys: Keys,
    limits: Limits,
    program: String,
    doors: Doors,
    sessions: BTreeMap<u64, Session>,
    opens: BTreeMap<IpAddr, (Stamp, u32)>,
    drawn: u64,
}

#[derive(Debug)]
struct Session {
    key: Key,
    nonce: u64,
    /// What let it in, where something had to.
    grant: Option<u32>,
    salt: String,
    address: SocketAddr,
    beside: Option<u64>,
    opened: Stamp,
    heard: Stamp,
    /// Flows that come.
    coming: BTreeMap<u16, Log>,
    /// Flows that go: how many packets went, once they have ended.
    going: BTreeMap<u16, Option<u32>>,
    report: Option<(u16, Vec<String>)>,
}

impl Responder {
    /// `secret` has to be random and of this process; `shared` is the key that both ends were given, or empty.
    #[must_use]
    pub fn new(secret: &[u8], shared: &[u8], limits: Limits, program: &str, doors: Doors) -> Self {
        Self::with(secret, Keys::Shared(Box::new(Key::new(shared))), limits, program, doors)
    }

    /// One that lets in nobody but who has a grant ([`Self::handle_grant`]), and one measurement at a time.
    #[must_use]
    pub fn for_grants(secret: &[u8], limits: Limits, program: &str, doors: Doors) -> Self {
        Self::with(secret, Keys::Granted(BTreeMap::new()), limits, program, doors)
    }

    fn with(secret: &[u8], keys: Keys, limits: Limits, program: &str, doors: Doors) -> Self {
        Self {
            secret: Key::new(secret),
            keys,
            limits,
            program: program.to_owned(),
            doors,
            sessions: BTreeMap::new(),
            opens: BTreeMap::new(),
            drawn: 0,
        }
    }

    /// Takes a packet. `now` is asked when an answer is stamped.
    pub fn handle_packet(&mut self, d: Datagram<'_>, now: impl Fn() -> Stamp, out: &mut Vec<Output>) {
        // First: a probe whose first header is damaged may look like anything else, and has a second one.
        if self.handle_probe(&d) {
            return;
        }
        let header = match Header::read(d.bytes) {
            Ok(header) if !header.from_responder => header,
            Ok(_) => return,
            Err(PacketError::Version(v)) if d.bytes.len() >= OPENING_BYTES => {
                return self.refuse(0, &d, &format!("{}: version {v} was asked for", PacketError::Version(v)), out);
            }
            Err(_) => return,
        };
        match header.kind {
            Kind::Hello if d.bytes.len() >= OPENING_BYTES => {
                let Some(key) = self.keys.of(header.session, now()) else {
                    return self.refuse(header.session, &d, NOT_ASKED, out);
                };
                let cookie = bake(&self.secret, now(), d.from, header.session);
                let head = Header { kind: Kind::Retry, from_responder: true, ..header };
                out.push(Output::Send { to: d.from, bytes: head.seal(key, &cookie) });
            }
            Kind::Open if d.bytes.len() >= OPENING_BYTES => self.handle_open(&header, &d, now(), out),
            Kind::Ask => self.handle_ask(&header, &d, now, out),
            Kind::Ping => self.handle_ping(&header, &d, now, out),
            _ => {}
        }
    }

    /// Lets one measurement in until then, by whoever has this key; whether there was room ([`super::keys::GRANTS_MAX`]).
    pub fn handle_grant(&mut self, id: u32, key: &[u8], now: Stamp, until: Stamp) -> bool {
        self.keys.grant(id, key, now, until)
    }

    /// Ends everything now, tells each client why, and forgets what was let in.
    pub fn end_all(&mut self, why: &str, out: &mut Vec<Output>) {
        self.keys.forget();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(s) = self.sessions.get(&id) else { continue };
            let bytes = refusal(id, &s.key, why);
            // The line may be full of what ends here.
            out.extend((0..3).map(|_| Output::Send { to: s.address, bytes: bytes.clone() }));
            self.end(id, &format!("is ended: {why}"), out);
        }
    }

    /// A flow that was to be sent has ended.
    pub fn handle_flow_ended(&mut self, id: (u64, u16), sent: u32) {
        if let Some(flow) = self.sessions.get_mut(&id.0).and_then(|s| s.going.get_mut(&id.1)) {
            *flow = Some(sent);
        }
    }

    /// To be called about once a second: ends what was silent for too long.
    pub fn handle_timeout(&mut self, now: Stamp, out: &mut Vec<Output>) {
        let longest = (self.limits.seconds_max * 1e6) as Stamp;
        let over = |s: &Session| now - s.heard > SILENCE_SESSION_US || now - s.opened > longest;
        let ended: Vec<u64> = self.sessions.iter().filter(|(_, s)| over(s)).map(|(id, _)| *id).collect();
        for id in ended {
            self.end(id, "is over", out);
        }
        for (id, s) in self.sessions.iter().filter(|(_, s)| now - s.heard > SILENCE_FLOW_US) {
            let going = s.going.iter().filter(|(_, sent)| sent.is_none());
            out.extend(going.map(|(phase, _)| Output::Stop { id: (*id, *phase) }));
        }
    }

    /// Sessions that there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn end(&mut self, id: u64, why: &str, out: &mut Vec<Output>) {
        let Some(s) = self.sessions.remove(&id) else { return };
        out.extend(s.going.iter().filter(|(_, sent)| sent.is_none()).map(|(p, _)| Output::Stop { id: (id, *p) }));
        out.push(Output::Note(format!("{} {why}", s.address)));
    }

    fn refuse(&self, nonce: u64, d: &Datagram<'_>, why: &str, out: &mut Vec<Output>) {
        let bytes = refusal(nonce, &self.keys.for_refusal(), why);
        if bytes.len() <= d.bytes.len() {
            out.push(Output::Send { to: d.from, bytes });
        }
    }

    fn handle_open(&mut self, header: &Header, d: &Datagram<'_>, now: Stamp, out: &mut Vec<Output>) {
        let nonce = header.session;
        let Some(shared) = self.keys.of(nonce, now).cloned() else { return self.refuse(nonce, d, NOT_ASKED, out) };
        let Some(body) = Header::open(&shared, d.bytes) else {
            return self.refuse(nonce, d, "the keys of the two ends differ: give both the same --key", out);
        };
        let Some(opening) = read::<Opening>(body) else {
            return self.refuse(nonce, d, "the opening cannot be read", out);
        };
        let Some(cookie) = hex::decode(&opening.cookie).ok().filter(|c| is_good(&self.secret, now, d.from, nonce, c))
        else {
            // Silence: who has no cookie of ours may be nobody.
            return;
        };
        let known = self.sessions.iter().find(|(_, s)| s.nonce == nonce && s.address == d.from);
        let (id, session) = match known {
            Some((id, s)) => (*id, s),
            None => {
                let beside = opening.beside.and_then(|b| {
                    let first = self.sessions.get(&b.session)?;
                    same(&hex::decode(&b.proof).ok()?, &first.key.mac(&[&cookie])).then_some(b.session)
                });
                if let Some(why) = self.objection((d.from, nonce), beside, now, out) {
                    return self.refuse(nonce, d, &why, out);
                }
                out.push(Output::Note(format!("{} measures, by {}", d.from, opening.program)));
                let id = self.add((nonce, &shared), d.from, beside, now);
                let Some(session) = self.sessions.get(&id) else { return };
                (id, session)
            }
        };
        let accepted = Accepted {
            nonce,
            salt: session.salt.clone(),
            program: self.program.clone(),
            mbit_s_max: self.limits.mbit_s_max,
            seconds_max: self.limits.seconds_max,
            second_port: self.doors.second_port,
            quic: self.doors.quic.clone(),
        };
        let head = Header { kind: Kind::Accept, from_responder: true, session: id, ..*header };
        out.push(Output::Send { to: d.from, bytes: head.seal(&shared, &json(&accepted)) });
    }

    /// Why a peer may not begin, if so. Makes room where its old session is silent.
    fn objection(
        &mut self,
        (from, nonce): (SocketAddr, u64),
        beside: Option<u64>,
        now: Stamp,
        out: &mut Vec<Output>,
    ) -> Option<String> {
        let ip = from.ip().to_canonical();
        if self.opens.len() >= PEERS_MAX {
            self.opens.retain(|_, (at, _)| now - *at < MINUTE_US);
            if self.opens.len() >= PEERS_MAX {
                self.opens.clear();
            }
        }
        let (since, opens) = self.opens.entry(ip).or_insert((now, 0));
        if now - *since >= MINUTE_US {
            (*since, *opens) = (now, 0);
        }
        *opens += 1;
        if *opens > OPENS_MAX {
            return Some(format!("{ip} has begun {OPENS_MAX} measurements within a minute: wait a minute"));
        }
        let of_peer = |s: &Session| s.address.ip().to_canonical() == ip && s.beside.is_none();
        let old = self.sessions.iter().find(|(id, s)| of_peer(s) && Some(**id) != beside).map(|(id, s)| (*id, s.heard));
        match old {
            Some((_, heard)) if beside.is_none() && now - heard < SILENCE_YIELDS_US => {
                return Some(format!("{ip} is being measured already: one measurement at a time"));
            }
            Some((id, _)) if beside.is_none() => self.end(id, "gave way", out),
            _ => {}
        }
        let grant = self.keys.grant_of(nonce);
        if grant.is_some() && self.sessions.values().any(|s| s.grant != grant) {
            return Some("another measurement runs: this end takes one at a time".to_owned());
        }
        if self.sessions.values().any(|s| beside.is_some() && s.beside == beside) {
            return Some("that measurement has a second path already".to_owned());
        }
        (self.sessions.len() >= self.limits.sessions_max)
            .then(|| format!("busy with {} measurements: try again later", self.sessions.len()))
    }

    fn add(&mut self, (nonce, shared): (u64, &Key), from: SocketAddr, beside: Option<u64>, now: Stamp) -> u64 {
        self.drawn += 1;
        let drawn = self.secret.mac(&[b"session", &self.drawn.to_be_bytes(), &now.to_be_bytes(), &address_bytes(from)]);
        let (id, salt) = drawn.split_first_chunk::<8>().map_or((0, &[][..]), |(id, s)| (u64::from_be_bytes(*id), s));
        let session = Session {
            key: shared.derive(nonce, id, salt),
            nonce,
            grant: self.keys.grant_of(nonce),
            salt: hex::encode(salt),
            address: from,
            beside,
            opened: now,
            heard: now,
            coming: BTreeMap::new(),
            going: BTreeMap::new(),
            report: None,
        };
        self.sessions.insert(id, session);
        id
    }

    /// Whether it is a probe of a session.
    fn handle_probe(&mut self, d: &Datagram<'_>) -> bool {
        let Some(probe) = read_probe(d.bytes, |id| self.sessions.get(&id).map(|s| &s.key)) else { return false };
        let h = probe.header;
        let Some(session) = self.sessions.get_mut(&h.session).filter(|_| !h.from_responder) else { return true };
        session.heard = session.heard.max(d.at);
        if let Some(log) = session.coming.get_mut(&h.phase) {
            let damaged = probe.damaged;
            log.handle_arrival(Arrival { seq: h.seq, damaged, tos: d.tos, sent: h.sent, arrived: d.at });
        }
        true
    }

    fn handle_ping(&mut self, header: &Header, d: &Datagram<'_>, now: impl Fn() -> Stamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&header.session) else { return };
        let Some(body) = Header::open(&session.key, d.bytes) else { return };
        if d.bytes.len() < PING_BYTES_MIN {
            return;
        }
        session.heard = session.heard.max(d.at);
        let mut answer = Vec::with_capacity(body.len());
        answer.extend(header.sent.to_be_bytes());
        answer.extend(d.at.to_be_bytes());
        answer.extend(address_bytes(d.from));
        // As long as the question, so that a large one tells of the way back too.
        answer.resize(body.len(), 0);
        let head = Header { kind: Kind::Pong, from_responder: true, sent: now(), ..*header };
        let (to, bytes) = (d.from, head.seal(&session.key, &answer));
        out.push(match header.frame {
            0 => Output::Send { to, bytes },
            seconds => Output::Later { seconds: seconds.min(PAUSE_MAX_S), to, bytes },
        });
    }

    fn handle_ask(&mut self, header: &Header, d: &Datagram<'_>, now: impl Fn() -> Stamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&header.session) else { return };
        let Some(body) = Header::open(&session.key, d.bytes) else { return };
        session.heard = session.heard.max(d.at);
        let key = session.key.clone();
        let answer = match read::<Ask>(body) {
            Some(Ask::Compare { phase, other, sent }) => self.compare(header.session, other, phase, sent),
            Some(Ask::Bye) => {
                self.end(header.session, "is done", out);
                Answer::Done
            }
            Some(Ask::Move { nonce, cookie }) => {
                let good = hex::decode(&cookie).is_ok_and(|c| is_good(&self.secret, now(), d.from, nonce, &c));
                if good {
                    out.push(Output::Note(format!("{} is at {} now", session.address, d.from)));
                    session.address = d.from;
                    out.push(Output::Redirect { session: header.session, to: d.from });
                    Answer::Done
                } else {
                    no("that cookie is not one for this address")
                }
            }
            Some(ask) => session.answer(header.session, ask, now(), &self.limits, out),
            None => no("the question cannot be read"),
        };
        let head = Header { kind: Kind::Answer, from_responder: true, sent: now(), ..*header };
        let bytes = head.seal(&key, &json(&answer));
        out.push(Output::Send { to: d.from, bytes });
    }

    fn compare(&self, id: u64, other: u64, phase: u16, sent: u32) -> Answer {
        let log = |id: u64| self.sessions.get(&id).and_then(|s| s.coming.get(&phase));
        let related = self.sessions.get(&id).is_some_and(|s| s.beside == Some(other))
            || self.sessions.get(&other).is_some_and(|s| s.beside == Some(id));
        match (log(id), log(other)) {
            (Some(a), Some(b)) if related && sent <= a.spec.packets() => Answer::Compared { pair: compare(a, b, sent) },
            _ => no("no such flow in the two sessions"),
        }
    }
}

impl Session {
    fn answer(&mut self, id: u64, ask: Ask, now: Stamp, limits: &Limits, out: &mut Vec<Output>) -> Answer {
        match ask {
            Ask::Start { phase, way, flow } => self.start(id, phase, way, flow, limits, out),
            Ask::End { phase } => {
                let sent = self.going.get(&phase).copied();
                if sent == Some(None) {
                    out.push(Output::Stop { id: (id, phase) });
                    return no("not ended yet");
                }
                let log = self.coming.get(&phase);
                let quiet_us = log.and_then(Log::last_arrival).map_or(Stamp::MAX, |last| now - last);
                let came = log.map_or(0, |l| l.arrivals().len() as u32);
                Answer::Ended { sent: sent.flatten().unwrap_or_default(), came, quiet_us }
            }
            Ask::Report { phase, known, part } => {
                let Some(log) = self.coming.get(&phase).filter(|l| known.sent <= l.spec.packets()) else {
                    return no("no such flow");
                };
                if part == 0 || self.report.as_ref().is_none_or(|(p, _)| *p != phase) {
                    self.report = Some((phase, parts(&evaluate(log, &known))));
                }
                let parts = self.report.as_ref().map(|(_, p)| p.as_slice()).unwrap_or_default();
                match parts.get(usize::from(part)) {
                    Some(text) => Answer::Part { part, parts: parts.len() as u16, text: text.clone() },
                    None => no("no such part"),
                }
            }
            Ask::Forget { phase } => {
                self.coming.remove(&phase);
                self.going.remove(&phase);
                Answer::Done
            }
            Ask::Compare { .. } | Ask::Move { .. } | Ask::Bye => no("not here"),
        }
    }

    fn start(
        &mut self,
        id: u64,
        phase: u16,
        way: Way,
        flow: FlowSpec,
        limits: &Limits,
        out: &mut Vec<Output>,
    ) -> Answer {
        if let Err(e) = flow.check(limits.mbit_s_max) {
            return no(&e.to_string());
        }
        if self.coming.contains_key(&phase) || self.going.contains_key(&phase) {
            return Answer::Done;
        }
        if self.coming.len() + self.going.len() >= FLOWS_MAX {
            return no("too many flows are kept: forget some");
        }
        match way {
            Way::Up => {
                self.coming.insert(phase, Log::new(flow));
            }
            Way::Down => {
                self.going.insert(phase, None);
                out.push(Output::Start { id: (id, phase), to: self.address, key: self.key.clone(), flow });
            }
        }
        Answer::Done
    }
}

fn refusal(nonce: u64, key: &Key, why: &str) -> Vec<u8> {
    let head = Header { kind: Kind::Refuse, from_responder: true, phase: 0, session: nonce, seq: 0, frame: 0, sent: 0 };
    head.seal(key, &json(&Refusal { why: why.to_owned() }))
}

fn no(why: &str) -> Answer {
    Answer::No { why: why.to_owned() }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain values with string keys: there is nothing that could fail.
    serde_json::to_vec(value).unwrap_or_default()
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let end = body.iter().rposition(|b| *b != 0)?;
    serde_json::from_slice(body.get(..=end)?).ok()
}

fn parts(received: &Received) -> Vec<String> {
    let text: Vec<char> = String::from_utf8(json(received)).unwrap_or_default().chars().collect();
    text.chunks(PART_CHARS).map(|c| c.iter().collect()).collect()
}

/// A packet before the cookie, padded so that no answer is longer.
#[must_use]
pub fn opening(kind: Kind, nonce: u64, shared: &Key, body: &[u8]) -> Vec<u8> {
    let head = Header { kind, from_responder: false, phase: 0, session: nonce, seq: 0, frame: 0, sent: 0 };
    let mut padded = body.to_vec();
    padded.resize(padded.len().max(OPENING_BYTES - super::packet::HEADER_BYTES), 0);
    head.seal(shared, &padded)
}
