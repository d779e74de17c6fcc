//! The expert's station: what it may believe, and when it stops sending (HANDOVER.md section 13).
//!
//! Driving contract: as the gate's. [`Station::handle`] takes in, [`Station::poll`] gives out; tick at least every 5 ms.

use super::checks::{Checks, Strict};
use super::config::Config;
use super::message::{
    Beacon, Command, Datagram, FromGate, Heartbeat, Mode, Payload, Pose, Reason, Short, ToGate, Token,
};
use super::types::{Binding, ChannelId, Clutch, Counter, Epoch, ExpertId, FrameRef, GrantedSet, Nonce, Oid};
use crate::units::Micros;
use std::collections::VecDeque;
use std::marker::PhantomData;

/// What hands and feet do now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Senses {
    /// The dead-man input.
    pub presence: bool,
    /// Whether an energy pedal is held.
    pub pedal: bool,
    /// The clutch.
    pub clutch: Clutch,
    /// Where the controls are.
    pub pose: Pose,
}

/// One thing that happens to the station.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passes.
    Tick,
    /// A channel to the gate stands. The first after a start, or after all were gone, makes an observer (HO-T-010).
    Opened(ChannelId),
    /// A channel is gone.
    Gone(ChannelId),
    /// A reliable message of the gate.
    Message(FromGate),
    /// A BEACON that this channel's key for its binding opened.
    Beacon(ChannelId, Beacon),
    /// Hands and feet.
    Senses(Senses),
    /// This frame is on the expert's screen now.
    Shown(FrameRef),
    /// The expert takes the offer; the token is fresh.
    Accept(Token),
    /// The expert does not.
    Decline(Short),
    /// The expert gives back.
    Return,
    /// One motion.
    Motion(Payload),
    /// The station did not run for a while, or what hands did comes late: the expert acted at a picture that stood still. Comes after
    /// everything that waited (HO-T-011).
    Woke,
}

/// What the station wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Reliably, by all channels.
    Send(ToGate),
    /// Sealed with this channel's key, on every path.
    Seal(ChannelId, Datagram),
}

/// What the station is, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Sees.
    Observer,
    /// Was offered something.
    Offered,
    /// Accepted, and waits for local's CONFIRM.
    Accepted,
    /// Was granted it. A screen asks the mirror as well (HO-T-003).
    Control,
}

/// The conversation under one binding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    key: ChannelId,
    binding: Binding,
    set: GrantedSet,
    counter: Counter,
    beat: u32,
    /// The newest BEACON's number, nonce and arrival.
    beacon: Option<(Counter, Nonce, Micros)>,
    due: Micros,
    /// The station opened its clutch itself; the expert has to open it too before it closes (HO-T-004, HO-T-011).
    forced_open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Observer,
    Offered { oid: Oid, set: GrantedSet, until: Micros },
    Accepted { link: Link, until: Micros },
    Control { link: Link, epoch: Epoch },
}

/// One station.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Station<C: Checks = Strict> {
    cfg: Config,
    me: ExpertId,
    now: Micros,
    state: State,
    /// In the order in which they were opened; the first carries ACCEPT.
    channels: Vec<ChannelId>,
    senses: Senses,
    shown: Option<FrameRef>,
    out: VecDeque<Output>,
    checks: PhantomData<C>,
}

/// Tunnels at most: two paths and their successors.
const CHANNELS: usize = 4;
/// Outputs that wait at most; the oldest is dropped.
const WAITING: usize = 256;

impl Station<Strict> {
    /// An observer.
    #[must_use]
    pub fn new(cfg: Config, me: ExpertId, now: Micros) -> Self {
        Self::with_checks(cfg, me, now)
    }
}

impl<C: Checks> Station<C> {
    /// As [`Station::new`], for the checks that the type names.
    #[must_use]
    pub fn with_checks(cfg: Config, me: ExpertId, now: Micros) -> Self {
        Self {
            cfg,
            me,
            now,
            state: State::Observer,
            channels: Vec::new(),
            senses: Senses::default(),
            shown: None,
            out: VecDeque::new(),
            checks: PhantomData,
        }
    }

    /// One thing happened.
    ///
    /// # Errors
    /// Why an act of the expert, or a BEACON, does not count.
    pub fn handle(&mut self, now: Micros, input: Input) -> Result<(), Reason> {
        self.now = self.now.max(now);
        self.expire();
        match input {
            Input::Tick => self.tick(),
            Input::Opened(channel) => self.opened(channel)?,
            Input::Gone(channel) => self.channels.retain(|c| *c != channel),
            Input::Message(message) => self.message(&message),
            Input::Beacon(channel, beacon) => self.beacon(channel, &beacon)?,
            Input::Senses(senses) => self.sense(senses),
            Input::Shown(frame) => self.shown = Some(frame),
            Input::Accept(token) => self.accept(token)?,
            Input::Decline(reason) => self.decline(reason)?,
            Input::Return => self.hand_back()?,
            Input::Motion(payload) => self.motion(payload)?,
            Input::Woke => self.woke(),
        }
        Ok(())
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What it goes by: the gate's timers, once a STATUS told them (HO-T-014).
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.cfg
    }

    /// What it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Observer => Phase::Observer,
            State::Offered { .. } => Phase::Offered,
            State::Accepted { .. } => Phase::Accepted,
            State::Control { .. } => Phase::Control,
        }
    }

    /// What is offered, accepted or held.
    #[must_use]
    pub fn set(&self) -> GrantedSet {
        match &self.state {
            State::Observer => GrantedSet::default(),
            State::Offered { set, .. } => *set,
            State::Accepted { link, .. } | State::Control { link, .. } => link.set,
        }
    }

    /// Whether it sends: a BEACON came within `station_silence` (HO-T-001).
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.link().is_some_and(|link| hears(link, self.now, &self.cfg))
    }

    const fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Accepted { link, .. } | State::Control { link, .. } => Some(link),
            _ => None,
        }
    }

    const fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Accepted { link, .. } | State::Control { link, .. } => Some(link),
            _ => None,
        }
    }

    /// HO-T-008, and the clutch that opens by itself in silence (HO-T-004).
    fn expire(&mut self) {
        let (now, silence) = (self.now, self.cfg.station_silence);
        match &mut self.state {
            State::Offered { until, .. } | State::Accepted { until, .. } if now >= *until => {
                self.state = State::Observer
            }
            State::Control { link, .. } if link.beacon.is_none_or(|(.., at)| now.since(at) >= silence) => {
                link.forced_open = true;
            }
            _ => {}
        }
    }

    fn opened(&mut self, channel: ChannelId) -> Result<(), Reason> {
        if self.channels.len() >= CHANNELS || self.channels.contains(&channel) {
            return Err(Reason::Full);
        }
        if self.channels.is_empty() {
            self.state = State::Observer; // HO-T-010
        }
        self.channels.push(channel);
        Ok(())
    }

    fn message(&mut self, message: &FromGate) {
        match *message {
            FromGate::Offer { oid, set, expires_ms, .. } => {
                let until = self.now.plus(u64::from(expires_ms).saturating_mul(1_000));
                if !matches!(self.state, State::Control { .. }) {
                    self.state = State::Offered { oid, set, until };
                }
            }
            FromGate::Withdraw { oid } => {
                let open = match &self.state {
                    State::Offered { oid, .. } => Some(*oid),
                    State::Accepted { link, .. } => offer_of(link),
                    _ => None,
                };
                if open == Some(oid) {
                    self.state = State::Observer;
                }
            }
            FromGate::Grant { holder, epoch, set, .. } => self.granted(holder, epoch, set),
            FromGate::Status(ref status) => {
                // HO-T-014: what no station can go by changes nothing here; whoever drives it says so.
                if let Ok(cfg) = status.timers.apply(&self.cfg) {
                    self.cfg = cfg;
                }
                let mine = status.mode == Mode::Remote && status.expert == Some(self.me);
                self.lose_before(status.epoch, mine);
            }
            FromGate::Nack { epoch, .. } => self.lose_before(epoch, true),
        }
    }

    /// HO-T-003, HO-T-005.
    fn granted(&mut self, holder: ExpertId, epoch: Epoch, set: GrantedSet) {
        if holder != self.me {
            self.lose_before(epoch, false);
            return;
        }
        match &self.state {
            State::Control { epoch: held, .. } if *held == epoch => {}
            State::Accepted { link, .. } if link.set == set => {
                let link = Link {
                    binding: Binding::Epoch(epoch),
                    counter: Counter(0), // HO-T-006
                    beat: 0,
                    due: self.now,
                    forced_open: true,
                    // Its nonce stays good: the gate issued it to this station. Its number was the old binding's.
                    beacon: link.beacon.map(|(_, nonce, at)| (Counter(0), nonce, at)),
                    ..link.clone()
                };
                self.state = State::Control { link, epoch };
                self.idle_clutch();
            }
            _ => {
                self.state = State::Observer;
                self.emit(Output::Send(ToGate::Return { epoch }));
            }
        }
    }

    /// HO-T-007: a higher epoch, or the same one in another state or hand.
    fn lose_before(&mut self, epoch: Epoch, still_mine: bool) {
        if let State::Control { epoch: mine, .. } = self.state
            && (epoch > mine || (epoch == mine && !still_mine))
        {
            self.state = State::Observer;
        }
    }

    /// HO-T-002.
    fn beacon(&mut self, channel: ChannelId, beacon: &Beacon) -> Result<(), Reason> {
        let now = self.now;
        let link = self.link_mut().ok_or(Reason::WrongState)?;
        if !C::channel_matches(link.key, channel) {
            return Err(Reason::WrongChannel);
        }
        if link.binding != beacon.binding {
            return Err(Reason::WrongEpoch);
        }
        let newest = link.beacon.map_or(Counter(0), |(counter, ..)| counter);
        if !C::counter_is_new(newest, beacon.counter) {
            return Err(Reason::OldCounter);
        }
        link.beacon = Some((beacon.counter, beacon.nonce, now));
        Ok(())
    }

    fn sense(&mut self, senses: Senses) {
        let changed = senses.clutch != self.senses.clutch;
        let opened = senses.clutch == Clutch::Open;
        self.senses = senses;
        if let Some(link) = self.link_mut()
            && opened
        {
            link.forced_open = false;
        }
        if changed && opened {
            self.idle_clutch();
        }
    }

    /// HO-T-011: whatever the clutch did until now, the expert has to open and close it anew.
    fn woke(&mut self) {
        let Some(link) = self.link_mut() else { return };
        if !std::mem::replace(&mut link.forced_open, true) {
            self.idle_clutch(); // the gate hears it before anything else
        }
    }

    fn accept(&mut self, token: Token) -> Result<(), Reason> {
        let State::Offered { oid, set, .. } = self.state else { return Err(Reason::NoSuchOffer) };
        let key = *self.channels.first().ok_or(Reason::NotConnected)?;
        let wait = self.cfg.ready_time.saturating_add(self.cfg.grant_time);
        let link = Link {
            key,
            binding: Binding::Offer(oid),
            set,
            counter: Counter(0),
            beat: 0,
            beacon: None,
            due: self.now,
            forced_open: true,
        };
        self.state = State::Accepted { link, until: self.now.plus(wait) };
        self.emit(Output::Send(ToGate::Accept { oid, token }));
        Ok(())
    }

    fn decline(&mut self, reason: Short) -> Result<(), Reason> {
        let oid = match &self.state {
            State::Offered { oid, .. } => Some(*oid),
            State::Accepted { link, .. } => offer_of(link),
            _ => None,
        };
        let oid = oid.ok_or(Reason::NoSuchOffer)?;
        self.state = State::Observer;
        self.emit(Output::Send(ToGate::Decline { oid, reason }));
        Ok(())
    }

    fn hand_back(&mut self) -> Result<(), Reason> {
        let State::Control { epoch, .. } = self.state else { return Err(Reason::NotTheHolder) };
        self.state = State::Observer;
        self.emit(Output::Send(ToGate::Return { epoch }));
        Ok(())
    }

    /// HBs, and what the clutch does while nothing moves.
    fn tick(&mut self) {
        let (now, every) = (self.now, self.cfg.heartbeat);
        let Some(link) = self.link_mut() else { return };
        if now < link.due {
            return;
        }
        link.due = now.plus(every);
        self.heartbeat();
        self.idle_clutch();
    }

    fn heartbeat(&mut self) {
        let (echo, senses) = (self.shown, self.senses.clone());
        let Some((key, binding, counter, nonce)) = self.number() else { return };
        let Some(link) = self.link_mut() else { return };
        let beat = link.beat;
        link.beat = link.beat.saturating_add(1);
        let Senses { presence, pedal, pose, .. } = senses;
        let hb = Heartbeat { binding, counter, beat, nonce, echo, presence, pedal, pose };
        self.emit(Output::Seal(key, Datagram::Heartbeat(hb)));
    }

    /// An open clutch is told again and again, so that the gate knows why nothing moves.
    fn idle_clutch(&mut self) {
        if self.clutch() == Clutch::Open {
            let _ = self.command(Payload::default());
        }
    }

    fn motion(&mut self, payload: Payload) -> Result<(), Reason> {
        self.command(payload)
    }

    fn command(&mut self, payload: Payload) -> Result<(), Reason> {
        let State::Control { epoch, .. } = self.state else { return Err(Reason::NotTheHolder) };
        let (echo, clutch) = (self.shown, self.clutch());
        let (key, _, counter, nonce) = self.number().ok_or(Reason::NotHeard)?;
        let command = Command { epoch, counter, nonce, echo, clutch, payload };
        self.emit(Output::Seal(key, Datagram::Command(command)));
        Ok(())
    }

    /// The clutch as the gate is told it.
    fn clutch(&self) -> Clutch {
        match self.link() {
            Some(link) if !link.forced_open => self.senses.clutch,
            _ => Clutch::Open,
        }
    }

    /// The next number under the binding, and the nonce to echo; nothing in silence (HO-T-001).
    fn number(&mut self) -> Option<(ChannelId, Binding, Counter, Nonce)> {
        let (now, cfg) = (self.now, self.cfg.clone());
        let link = self.link_mut().filter(|link| hears(link, now, &cfg))?;
        let (_, nonce, _) = link.beacon?;
        link.counter = Counter(link.counter.0.checked_add(1)?);
        Some((link.key, link.binding, link.counter, nonce))
    }

    fn emit(&mut self, output: Output) {
        if self.out.len() >= WAITING {
            self.out.pop_front();
        }
        self.out.push_back(output);
    }
}

fn hears(link: &Link, now: Micros, cfg: &Config) -> bool {
    link.beacon.is_some_and(|(.., at)| now.since(at) < cfg.station_silence)
}

const fn offer_of(link: &Link) -> Option<Oid> {
    match link.binding {
        Binding::Offer(oid) => Some(oid),
        Binding::Epoch(_) => None,
    }
}

#[cfg(trocar_model)]
impl<C: Checks> super::canon::Canon for Station<C> {
    fn canon(&mut self, by: &super::canon::Ruler) {
        let silence = self.cfg.station_silence;
        by.past(&mut self.now, silence);
        if let Some(frame) = &mut self.shown {
            by.frame(frame);
        }
        if let State::Offered { until, .. } | State::Accepted { until, .. } = &mut self.state {
            by.due(until);
        }
        if let State::Accepted { link, .. } | State::Control { link, .. } = &mut self.state {
            by.counter(link.binding, &mut link.counter);
            by.due(&mut link.due);
            link.beat = 0;
            if let Some((counter, nonce, at)) = &mut link.beacon {
                by.beacon(link.binding, counter);
                by.nonce(nonce);
                by.past(at, silence);
            }
        }
    }
}

#[cfg(trocar_model)]
impl<C: Checks> Station<C> {
    /// What it believes to hold.
    #[must_use]
    pub const fn held(&self) -> Option<Epoch> {
        match self.state {
            State::Control { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Under which binding it hears BEACONs, and the newest one's number.
    #[must_use]
    pub fn heard(&self) -> Option<(Binding, Counter)> {
        self.link().map(|link| (link.binding, link.beacon.map_or(Counter(0), |(counter, ..)| counter)))
    }

    /// The binding, the next number and the nonce that it would send under.
    #[must_use]
    pub fn next(&self) -> Option<(Binding, Counter, Nonce)> {
        let link = self.link()?;
        let (_, nonce, _) = link.beacon?;
        Some((link.binding, Counter(link.counter.0.saturating_add(1)), nonce))
    }
}

#[cfg(test)]
mod tests;
