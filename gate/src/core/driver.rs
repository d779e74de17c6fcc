//! The core's loop: events in, the machine, what it wants done out.
//!
//! Between two events there is nothing but memory: acts for the device are handed over first and at once; whatever is slow has a
//! thread of its own behind [`Network`] and [`Disk`].

use super::{Connected, Device, Disk, Entry, Event, Inbox, Network, View, What, now};
use crate::troubles::Troubles;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use trocar_proto::handover::bursts::Bursts;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::gate::{
    Act, Alarms, Causes, DeviceReport, DiskAct, Gate, Input, Notice, Output, Start, Store, Verified,
};
use trocar_proto::handover::links::Meter;
use trocar_proto::handover::message::{FromGate, Mode, Reason, Status, ToGate};
use trocar_proto::handover::types::{BootId, ChannelId, ExpertId, Nonce, Oid, Selection};
use trocar_proto::units::Micros;

/// Time between two ticks: timers are exact to this, and so is what HANDOVER.md calls "one tick".
const TICK: u64 = 5_000;
/// Link gates are looked at this often.
const LINKS: u64 = 20_000;
/// A console gets a new view at least this often.
const VIEW: u64 = 100_000;
/// Copies of STATUS for the relays' mirrors.
const MIRROR: u64 = 200_000;
/// News that a console shows at most; the oldest goes.
const NOTICES: usize = 32;
/// Probes of relays that one copy answers.
const PROBES: usize = 8;

/// The system gave no random bytes: without them there are no unguessable offers, so the gate does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandom;

/// Counters of the core, for the foot of the console.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    refused: u64,
    commands: u64,
    longest_gap: u64,
}

/// What a core is connected with.
pub struct Parts<D, N, K> {
    /// What moves.
    pub device: D,
    /// The channels.
    pub network: N,
    /// The disk.
    pub disk: K,
    /// Where everything comes in.
    pub inbox: Inbox,
    /// Where consoles look.
    pub view: watch::Sender<Arc<View>>,
    /// Counters of the others, for the foot of the screen.
    pub counters: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>,
    /// What keeps remote operation from being possible.
    pub troubles: Troubles,
}

/// The core.
pub struct Core<D, N, K> {
    gate: Gate,
    cfg: Arc<Config>,
    parts: Parts<D, N, K>,
    random: SystemRandom,
    meter: Option<Meter>,
    bursts: Bursts,
    connected: BTreeMap<ChannelId, Connected>,
    /// Who the newest offer went to: known by name when the channels are gone.
    addressee: Option<super::Who>,
    /// Who says ACCEPT in the input at hand.
    accepting: Option<super::Who>,
    notices: VecDeque<(Micros, Notice)>,
    device_report: Option<(DeviceReport, Micros)>,
    answered: Option<(Act, Result<(), Reason>)>,
    relay_probes: VecDeque<Nonce>,
    mirrored: Option<Status>,
    alarms: Alarms,
    counters: Counters,
    due: Due,
    ending: Ending,
    pulse: Arc<AtomicU64>,
}

/// Whether somebody asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// When the device obeys local.
    InLocal,
    Now,
}

/// When what is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    tick: Micros,
    links: Micros,
    view: Micros,
    mirror: Micros,
}

/// The first view, before anything is known: for making the channel that consoles watch.
#[must_use]
pub fn first_view(cfg: &Arc<Config>) -> View {
    View {
        at: now(),
        mode: Mode::Hold,
        since: now(),
        epoch: trocar_proto::handover::types::Epoch(0),
        expert: None,
        set: trocar_proto::handover::types::GrantedSet::default(),
        step: trocar_proto::handover::message::Short::default(),
        until: None,
        stopped: None,
        colours: trocar_proto::handover::types::Colours::default(),
        figures: trocar_proto::handover::message::Figures::default(),
        alarms: Alarms::default(),
        paths: trocar_proto::handover::paths::Protection::default(),
        device: None,
        connected: Vec::new(),
        notices: Vec::new(),
        answered: None,
        counters: Vec::new(),
        troubles: Vec::new(),
        config: Arc::clone(cfg),
    }
}

impl<D: Device, N: Network, K: Disk> Core<D, N, K> {
    /// A gate that starts with what its store holds. `detail` tells people what was found.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn new(cfg: &Arc<Config>, store: Store, detail: String, parts: Parts<D, N, K>) -> Result<Self, NoRandom> {
        let random = SystemRandom::new();
        let at = now();
        let gate = Gate::new(Config::clone(cfg), at, Start { boot: BootId(draw(&random)?), store });
        let mut core = Self {
            gate,
            cfg: Arc::clone(cfg),
            parts,
            random,
            meter: None,
            bursts: Bursts::new(cfg.burst),
            connected: BTreeMap::new(),
            addressee: None,
            accepting: None,
            notices: VecDeque::new(),
            device_report: None,
            answered: None,
            relay_probes: VecDeque::new(),
            mirrored: None,
            alarms: Alarms::default(),
            counters: Counters::default(),
            due: Due { tick: at, links: at, view: at, mirror: at },
            ending: Ending::No,
            pulse: Arc::new(AtomicU64::new(at.0)),
        };
        core.record(What::Started { detail }, None);
        Ok(core)
    }

    /// When the core last did its round, boot clock: for whoever ends a process whose core stands still.
    #[must_use]
    pub fn pulse(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.pulse)
    }

    /// Runs until it is told to stop. Whoever asks while nobody but local may move is obeyed at once, in LOCAL as soon as the device says
    /// that it obeys local. While an offer is open or an expert holds, the wish waits for LOCAL, and is forgotten where it becomes HOLD or
    /// ESTOP instead: TAKE and RESET are needed then. In ESTOP it is refused, for a gate that starts again would have forgotten the stop.
    /// (A kill does what HO-X-009 says.)
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn run(mut self) -> Result<(), NoRandom> {
        loop {
            let wait = Duration::from_micros(self.due.tick.since(now()));
            let event = self.parts.inbox.pop(wait);
            self.step(event)?;
            if self.may_end() {
                return Ok(());
            }
        }
    }

    fn asked_to_end(&mut self) {
        self.ending = match self.gate.mode() {
            Mode::Hold | Mode::Closed => Ending::Now,
            Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting | Mode::Remote => Ending::InLocal,
            Mode::Estop => {
                tracing::warn!(
                    "asked to stop in ESTOP: not done; RESET first, for the next start would forget the stop"
                );
                Ending::No
            }
        };
    }

    fn may_end(&mut self) -> bool {
        if self.ending == Ending::InLocal && matches!(self.gate.mode(), Mode::Hold | Mode::Estop) {
            tracing::warn!("the wish to stop is forgotten: TAKE or RESET is needed now");
            self.ending = Ending::No;
        }
        let epoch = self.gate.epoch();
        let obeys_local = |(r, _): &(DeviceReport, Micros)| r.selected == Selection::Local && r.highest >= epoch;
        match self.ending {
            Ending::No => false,
            Ending::Now => true,
            Ending::InLocal => self.gate.mode() == Mode::Local && self.device_report.as_ref().is_some_and(obeys_local),
        }
    }

    /// One event, if any, and whatever is due.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn step(&mut self, event: Option<Event>) -> Result<(), NoRandom> {
        if let Some(event) = event {
            self.take(event)?;
        }
        let at = now();
        if at >= self.due.tick {
            self.counters.longest_gap = self.counters.longest_gap.max(at.since(self.due.tick));
            self.due.tick = at.plus(TICK);
            self.pulse.store(at.0, Ordering::Relaxed);
            let nonce = Nonce(draw(&self.random)? as u64);
            self.input(Input::Tick { nonce });
            self.look_at_links(at);
            while let Some(burst) = self.bursts.poll(at) {
                self.record(What::Burst(burst), self.who_is(burst.channel));
            }
            self.mirror(at);
        }
        if at >= self.due.view {
            self.show();
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), NoRandom> {
        match event {
            Event::Input(input) => {
                self.note(&input);
                self.input(input);
                self.accepting = None;
            }
            Event::Act(act, reply) => {
                let act = self.with_oid(act)?;
                let result = self.gate.handle(now(), Input::Local(act.clone()));
                self.drain();
                if let Err(reason) = result {
                    self.record(What::ActRefused(format!("{}: {reason}", name_of(&act))), None);
                }
                self.answered = Some((act, result));
                if let Some(reply) = reply {
                    let _ = reply.send(result);
                }
                self.show();
            }
            Event::Who(channel, who, is_signaling) => {
                self.connected.insert(channel, Connected { channel, who, is_signaling });
            }
            Event::MirrorProbe(nonce) => {
                if self.relay_probes.len() >= PROBES {
                    self.relay_probes.pop_front();
                }
                self.relay_probes.push_back(Nonce(nonce));
            }
            Event::Shutdown => self.asked_to_end(),
        }
        Ok(())
    }

    /// Offers get their unguessable name here: no console has to be trusted with it.
    fn with_oid(&self, act: Act) -> Result<Act, NoRandom> {
        Ok(match act {
            Act::Offer { expert, set, step, .. } => Act::Offer { oid: Oid(draw(&self.random)?), expert, set, step },
            other => other,
        })
    }

    /// What the core itself remembers of an input.
    fn note(&mut self, input: &Input) {
        match input {
            Input::Device(report) => self.device_report = Some((*report, now())),
            Input::Opened { channel, .. } => self.tell_channel(*channel, "opened"),
            Input::Gone(channel) => {
                self.tell_channel(*channel, "closed");
                self.connected.remove(channel);
                self.due.view = now();
            }
            Input::Message { channel, message: ToGate::Hello { .. }, token: Some(token) } => {
                if let Some(connected) = self.connected.get_mut(channel) {
                    connected.who = named(&connected.who, token);
                }
            }
            Input::Message { channel, message: ToGate::Accept { .. }, token: Some(token) } => {
                self.accepting = self.who_is(*channel).map(|who| named(&who, token));
            }
            _ => {}
        }
    }

    fn tell_channel(&mut self, channel: ChannelId, event: &'static str) {
        let who = self.who_is(channel);
        self.record(What::Channel { channel, event }, who);
    }

    fn input(&mut self, input: Input) {
        // Refusals are told by outputs; there is nobody here to hear them.
        let _ = self.gate.handle(now(), input);
        self.drain();
    }

    /// Everything that the gate wants done, the device's part first. Each `poll` reads the clock again.
    fn drain(&mut self) {
        while let Some(output) = self.gate.poll(now()) {
            match output {
                Output::Device(act) => {
                    self.counters.commands +=
                        u64::from(matches!(act, trocar_proto::handover::gate::DeviceAct::Command { .. }));
                    self.parts.device.act(&act);
                }
                Output::Disk(act) => self.write(act),
                Output::Send(channel, message) => self.parts.network.send(channel, &message),
                Output::Seal(channel, beacon) => self.parts.network.seal(channel, &beacon),
                Output::Close(channel) => self.parts.network.close(channel),
                Output::Judge(binding, counter, pose) => {
                    let judgement = self.parts.device.judge(&pose);
                    let _ = self.gate.handle(now(), Input::Judged(binding, counter, judgement));
                }
                Output::Sample(sample) => {
                    if self.meter.as_ref().is_none_or(|m| m.oid() != sample.oid) {
                        self.meter = Some(Meter::new(sample.oid));
                    }
                    if let Some(meter) = &mut self.meter {
                        meter.note(now(), &sample, &self.cfg);
                    }
                }
                Output::Show(notice) => self.notice(notice),
                Output::Audit(record) => {
                    // Who accepted is who holds, whatever another HELLO or a refused ACCEPT of the same certificate says.
                    match record.to {
                        Mode::Offered => self.addressee = record.expert.and_then(|e| self.who_is_connected(e)),
                        Mode::Ready => self.addressee = self.accepting.take().or(self.addressee.take()),
                        _ => {}
                    }
                    let who = record.expert.and_then(|e| self.who_has(e));
                    self.record(What::Change(record), who);
                    self.due.view = now();
                }
                Output::Refused(channel, reason) => self.refused(channel, reason),
            }
        }
        if self.gate.alarms() != self.alarms {
            self.alarms = self.gate.alarms();
            self.record(What::Alarms(self.alarms), None);
            self.due.view = now();
        }
    }

    fn write(&mut self, act: DiskAct) {
        let who = match act {
            DiskAct::Intent { expert, .. } => self.who_has(expert),
            DiskAct::Reserve(_) => None,
        };
        let entry = self.entry(What::Intent(act), who);
        self.parts.disk.act(act, &entry);
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() >= NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back((now(), notice.clone()));
        let who = match &notice {
            Notice::Request { channel, .. } => self.who_is(*channel),
            Notice::Estop { .. } | Notice::ConsentEnded => None,
        };
        self.record(What::Notice(notice), who);
        self.due.view = now();
    }

    /// HO-M-014: the first of a burst is answered, the whole burst is recorded once.
    fn refused(&mut self, channel: ChannelId, reason: Reason) {
        self.counters.refused += 1;
        if self.bursts.note(now(), channel, reason) {
            let nack = FromGate::Nack { reason, epoch: self.gate.epoch() };
            self.parts.network.send(channel, &nack);
        }
    }

    /// HO-K-001: measured here, handed to the gate as colours.
    fn look_at_links(&mut self, at: Micros) {
        if at < self.due.links {
            return;
        }
        self.due.links = at.plus(LINKS);
        let Some(oid) = self.gate.offer().map(|o| o.oid) else {
            self.meter = None;
            return;
        };
        if let Some(meter) = self.meter.as_mut().filter(|m| m.oid() == oid) {
            let (colours, figures) = meter.colours(at, &self.cfg);
            self.input(Input::Links(oid, colours, figures));
        }
    }

    /// A copy for the relays' mirrors, on change and five times a second (HO-V-006).
    fn mirror(&mut self, at: Micros) {
        let status = self.gate.status();
        let same = |m: &Status| (m.epoch, m.mode, m.expert) == (status.epoch, status.mode, status.expert);
        if at < self.due.mirror && self.mirrored.as_ref().is_some_and(same) && self.relay_probes.is_empty() {
            return;
        }
        self.due.mirror = at.plus(MIRROR);
        self.mirrored = Some(status.clone());
        let answers = self.relay_probes.drain(..).collect();
        self.parts.network.mirror(&FromGate::Status(Status { answers, ..status }));
    }

    fn show(&mut self) {
        let at = now();
        self.due.view = at.plus(VIEW);
        let status = self.gate.status();
        let [local, device, network] = self.parts.inbox.dropped();
        let view = View {
            at,
            mode: status.mode,
            since: self.gate.since(),
            epoch: status.epoch,
            expert: status.expert.and_then(|e| self.who_has(e)),
            set: status.set,
            step: self.gate.offer().map(|o| o.step.clone()).unwrap_or_default(),
            until: self.gate.until(),
            stopped: (status.mode == Mode::Remote).then_some(Causes(status.stopped)),
            colours: status.colours,
            figures: status.figures,
            alarms: self.gate.alarms(),
            paths: status.paths,
            device: self.device_report,
            connected: self.connected.values().cloned().collect(),
            notices: self.notices.iter().cloned().collect(),
            answered: self.answered.clone(),
            counters: [
                ("commands handed to the device", self.counters.commands),
                ("datagrams refused", self.counters.refused),
                ("inputs dropped, local", local),
                ("inputs dropped, device and disk", device),
                ("inputs dropped, network", network),
                ("longest delay of a tick, µs", self.counters.longest_gap),
                ("asked to stop, waits for LOCAL", u64::from(self.ending == Ending::InLocal)),
            ]
            .into_iter()
            .chain((self.parts.counters)())
            .collect(),
            troubles: self.parts.troubles.list(),
            config: Arc::clone(&self.cfg),
        };
        self.parts.view.send_replace(Arc::new(view));
    }

    fn record(&mut self, what: What, actor: Option<super::Who>) {
        let entry = self.entry(what, actor);
        self.parts.disk.audit(entry);
    }

    fn entry(&self, what: What, actor: Option<super::Who>) -> Entry {
        let status = self.gate.status();
        Entry { tick: now(), what, actor, figures: status.figures, colours: status.colours }
    }

    fn who_is(&self, channel: ChannelId) -> Option<super::Who> {
        self.connected.get(&channel).map(|c| c.who.clone())
    }

    /// Whom it is offered to or who holds, as of the offer and its ACCEPT; else who is connected by that certificate.
    fn who_has(&self, expert: ExpertId) -> Option<super::Who> {
        let addressee = self.addressee.clone().filter(|who| who.expert == expert);
        addressee.or_else(|| self.who_is_connected(expert))
    }

    fn who_is_connected(&self, expert: ExpertId) -> Option<super::Who> {
        let connected = self.connected.values().find(|c| c.who.expert == expert && !c.is_signaling);
        connected.map(|c| c.who.clone())
    }
}

/// The same certificate with what a token says.
fn named(who: &super::Who, token: &Verified) -> super::Who {
    let (person, role, grade) = (Some(token.person.clone()), Some(token.role), Some(token.grade));
    super::Who { person, role, grade, ..who.clone() }
}

/// The act's name, for records.
const fn name_of(act: &Act) -> &'static str {
    match act {
        Act::Offer { .. } => "OFFER",
        Act::Withdraw => "WITHDRAW",
        Act::Confirm => "CONFIRM",
        Act::ConfirmAmber => "CONFIRM (amber)",
        Act::Take => "TAKE",
        Act::Estop => "ESTOP",
        Act::Reset => "RESET",
        Act::Close => "CLOSE",
        Act::Mute(_) => "MUTE",
    }
}

fn draw(random: &SystemRandom) -> Result<u128, NoRandom> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(u128::from_be_bytes(bytes))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
