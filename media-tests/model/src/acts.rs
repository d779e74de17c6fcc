//! What may happen next, and how it does.

use crate::handover::checks::Checks;
use crate::handover::gate::{Act as Local, DiskAct, DiskDone, Input, Store};
use crate::handover::message::{FromGate, Mode, Short, ToGate, Token};
use crate::handover::station::{self, Phase};
use crate::handover::types::{Clutch, Colour, Colours, Epoch, GrantedSet, Oid, Selection};
use crate::parts::{EXPERTS, TICK, Video, config, token};
use crate::scopes::Scope;
use crate::units::Micros;
use crate::world::World;

/// One thing that happens. The number is the expert's desk, or a place in the relay's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the sentence of each in `story` is its documentation")]
pub enum Act {
    Tick,
    ToGate(usize),
    ToDesk(usize),
    Deliver(usize),
    DeliverAndSleep(usize),
    Copy(usize),
    Offer(usize, GrantedSet),
    Withdraw,
    Confirm,
    ConfirmAmber,
    Take,
    Estop,
    Reset,
    Close,
    Override,
    Console(bool),
    Accept(usize),
    Decline(usize),
    Return(usize),
    NetworkEstop(usize),
    Reclutch(usize),
    LetGo(usize, bool),
    Pedal(usize, bool),
    Motion(usize),
    DiskDone,
    DiskFails,
    Colour(Colour),
    Consent(bool),
    Video(Video),
    CameraMoves,
    Revoke(usize),
    Cut(usize, bool),
    Kill,
    Start(bool),
    Pause(bool),
    SecondGate,
    SecondTakes,
    KillStation(usize),
    Connect(usize),
    PauseStation(usize, bool),
    CutDevice(bool),
    MuteDevice(bool),
    RestartDevice,
    ForgeAccept(usize),
    ForgeCommand(usize),
    ForgeHeartbeat(usize),
    ForgeBeacon(usize),
    WrongEpoch(usize),
    Jump(usize),
}

impl<C: Checks> World<C> {
    /// Everything that may happen now.
    pub fn options(&self, scope: &Scope, acts: &mut Vec<Act>) {
        acts.push(Act::Tick);
        self.local_options(scope, acts);
        self.line_options(acts);
        (0..self.desks.len()).for_each(|n| self.desk_options(n, acts));
        self.accidents(scope, acts);
        if self.left.forges > 0 {
            self.forgeries(acts);
        }
        acts.retain(scope.allows);
    }

    fn local_options(&self, scope: &Scope, acts: &mut Vec<Act>) {
        let left = &self.left;
        let Some(mode) = self.mode() else { return };
        match mode {
            Mode::Local if left.offers > 0 => {
                for n in 0..self.desks.len() {
                    acts.extend(scope.sets.iter().map(|set| Act::Offer(n, *set)));
                }
            }
            Mode::Ready => acts.extend([Act::Confirm, Act::ConfirmAmber]),
            Mode::Estop => acts.push(Act::Reset),
            _ => {}
        }
        if !matches!(mode, Mode::Local | Mode::Estop | Mode::Closed) {
            acts.push(Act::Take);
        }
        if left.locals > 0 {
            acts.push(Act::Estop);
            if matches!(mode, Mode::Offered | Mode::Ready | Mode::Granting) {
                acts.push(Act::Withdraw);
            }
            if scope.closes && matches!(mode, Mode::Hold | Mode::Local | Mode::Estop) {
                acts.push(Act::Close);
            }
            acts.push(Act::Console(!self.console));
        } else if !self.console {
            acts.push(Act::Console(true));
        }
    }

    fn line_options(&self, acts: &mut Vec<Act>) {
        let awake = self.mode().is_some();
        for (n, desk) in self.desks.iter().enumerate() {
            if awake && !desk.cut && !desk.to_gate.is_empty() {
                acts.push(Act::ToGate(n));
            }
            if desk.runs() && !desk.cut && !desk.from_gate.is_empty() {
                acts.push(Act::ToDesk(n));
            }
        }
        for (i, sealed) in self.pool.iter().enumerate() {
            let open = awake || sealed.down.is_some();
            if open && !sealed.again && !self.desks[sealed.by].cut {
                acts.push(Act::Deliver(i));
                if self.left.sleeps > 0 && sealed.down.is_none() {
                    acts.push(Act::DeliverAndSleep(i));
                }
            }
            if open && self.left.replays > 0 && !self.desks[sealed.by].cut {
                acts.push(Act::Copy(i));
            }
        }
    }

    fn desk_options(&self, n: usize, acts: &mut Vec<Act>) {
        let (desk, left) = (&self.desks[n], &self.left);
        let Some(station) = desk.station.as_ref().filter(|_| !desk.paused) else { return };
        let phase = station.phase();
        if phase == Phase::Offered && desk.connected {
            acts.push(Act::Accept(n));
        }
        if phase == Phase::Control && desk.clutched {
            if left.motions > 0 {
                acts.push(Act::Motion(n));
            }
            if left.experts > 0 {
                acts.push(Act::Reclutch(n));
            }
        }
        if left.experts > 0 {
            match phase {
                Phase::Offered | Phase::Accepted => acts.push(Act::Decline(n)),
                Phase::Control => acts.push(Act::Return(n)),
                Phase::Observer => {}
            }
            if desk.connected {
                acts.push(Act::NetworkEstop(n));
            }
        }
        if left.hands > 0 && matches!(phase, Phase::Control | Phase::Accepted) {
            acts.extend([Act::LetGo(n, !desk.let_go), Act::Pedal(n, !desk.pedal)]);
        }
    }

    fn accidents(&self, scope: &Scope, acts: &mut Vec<Act>) {
        let left = &self.left;
        let awake = self.mode().is_some();
        if awake && !self.disk.is_empty() {
            acts.push(Act::DiskDone);
            if left.failures > 0 {
                acts.push(Act::DiskFails);
            }
        }
        if left.colours > 0 {
            let all = [Colour::Green, Colour::Amber, Colour::Red];
            acts.extend(all.into_iter().filter(|c| *c != self.colours.loop_age).map(Act::Colour));
        }
        if left.consents > 0 && awake {
            acts.push(Act::Consent(!self.consent));
        }
        if left.videos > 0 {
            let all = [Video::Live, Video::Frozen, Video::Lost];
            acts.extend(all.into_iter().filter(|v| *v != self.video).map(Act::Video));
            if self.mode() == Some(Mode::Remote) {
                acts.push(Act::CameraMoves);
            }
        }
        self.crashes(scope, acts);
        for (n, desk) in self.desks.iter().enumerate() {
            if desk.cut {
                acts.push(Act::Cut(n, false));
            } else if left.cuts > 0 {
                acts.push(Act::Cut(n, true));
            }
            if desk.paused {
                acts.push(Act::PauseStation(n, false));
            } else if left.pauses > 0 && desk.station.is_some() {
                acts.push(Act::PauseStation(n, true));
            }
            if desk.station.is_some() && left.crashes > 0 {
                acts.push(Act::KillStation(n));
            }
            if !desk.connected && !desk.cut && awake {
                acts.push(Act::Connect(n));
            }
        }
    }

    fn crashes(&self, scope: &Scope, acts: &mut Vec<Act>) {
        let left = &self.left;
        let host = &self.hosts[0];
        match (&host.gate, host.paused) {
            (None, _) => {
                acts.push(Act::Start(true));
                if left.failures > 0 {
                    acts.push(Act::Start(false));
                }
            }
            (Some(_), true) => acts.push(Act::Pause(false)),
            (Some(_), false) => {
                if left.pauses > 0 {
                    acts.push(Act::Pause(true));
                }
                if left.crashes > 0 {
                    acts.push(Act::Kill);
                }
            }
        }
        if scope.second {
            if self.hosts.len() < 2 {
                acts.push(Act::SecondGate);
            } else if self.left.locals > 0 {
                acts.push(Act::SecondTakes);
            }
        }
        if scope.device {
            if !self.device_link {
                acts.push(Act::CutDevice(false));
            } else if left.cuts > 0 {
                acts.push(Act::CutDevice(true));
            }
            if !self.reports {
                acts.push(Act::MuteDevice(false));
            } else if left.cuts > 0 {
                acts.push(Act::MuteDevice(true));
            }
            if left.crashes > 0 {
                acts.push(Act::RestartDevice);
            }
            if left.locals > 0 {
                acts.push(Act::Override);
            }
        }
    }

    /// It happens. `None` where it changes nothing.
    #[must_use]
    pub fn after(&self, scope: &Scope, act: Act) -> Option<Self> {
        let mut world = self.clone();
        world.happen(scope, act);
        if !scope.mirror {
            world.tell_status();
        }
        world.judge();
        world.canon(scope);
        (world != *self).then_some(world)
    }

    /// It happens, for scripts: nothing is judged or named anew.
    pub(crate) fn step(&mut self, act: Act) {
        self.people(act);
    }

    fn happen(&mut self, scope: &Scope, act: Act) {
        match act {
            Act::Tick => self.tick(scope),
            Act::Deliver(i) => {
                let sealed = self.pool.remove(i);
                self.deliver(sealed);
            }
            Act::DeliverAndSleep(i) => {
                self.left.sleeps -= 1;
                let sealed = self.pool.remove(i);
                self.take_datagram(sealed);
                self.now += TICK;
                let held = self.fence.tick(self.now());
                self.effects(held);
                self.hand_out(0);
                self.carried = None;
            }
            Act::Copy(i) => {
                self.left.replays -= 1;
                let sealed = self.pool[i].clone();
                self.pool[i].again |= self.deliver(sealed);
            }
            _ => self.people(act),
        }
    }

    fn people(&mut self, act: Act) {
        match act {
            Act::ToGate(n) => self.reach_gate(n),
            Act::ToDesk(n) => self.reach_desk(n),
            Act::Offer(n, set) => {
                self.left.offers -= 1;
                self.oids += 1;
                let oid = Oid(self.oids);
                let offer = Local::Offer { oid, expert: EXPERTS[n], set, step: Short::default() };
                if self.local(offer) {
                    self.truth.offered = Some((oid, n, set));
                    (self.truth.accepted, self.truth.confirmed) = (false, 0);
                    self.truth.open_since = Some(self.now());
                }
            }
            Act::Confirm | Act::ConfirmAmber => {
                let (act, is) = if act == Act::Confirm { (Local::Confirm, 1) } else { (Local::ConfirmAmber, 2) };
                // Noted before: where the disk is quick the grant completes within.
                let before = std::mem::replace(&mut self.truth.confirmed, is);
                if !self.local(act) {
                    self.truth.confirmed = before;
                }
            }
            Act::Take => self.take(),
            Act::Reset => self.note(Local::Reset),
            Act::Withdraw | Act::Estop | Act::Close => {
                self.left.locals -= 1;
                self.note(match act {
                    Act::Withdraw => Local::Withdraw,
                    Act::Estop => Local::Estop,
                    _ => Local::Close,
                });
            }
            Act::Console(alive) => {
                self.left.locals = self.left.locals.saturating_sub(1);
                self.console = alive;
            }
            Act::Accept(n) => {
                (self.desks[n].beats, self.desks[n].clutched) = (0, false);
                self.at_desk(n, station::Input::Accept(Token::default()));
            }
            Act::Decline(n) | Act::Return(n) | Act::NetworkEstop(n) | Act::Reclutch(n) => {
                self.left.experts -= 1;
                match act {
                    Act::Decline(_) => drop(self.at_desk(n, station::Input::Decline(Short::default()))),
                    Act::Return(_) => drop(self.at_desk(n, station::Input::Return)),
                    Act::Reclutch(_) => self.desks[n].clutched = false,
                    _ => self.desks[n].to_gate.push(ToGate::Estop { person: None, reason: Short::default() }),
                }
            }
            Act::LetGo(n, _) | Act::Pedal(n, _) => self.feet(n, act),
            Act::Motion(n) => {
                self.left.motions -= 1;
                self.motion(n);
            }
            _ => self.things(act),
        }
    }

    fn feet(&mut self, n: usize, act: Act) {
        self.left.hands -= 1;
        match act {
            Act::LetGo(_, yes) => self.desks[n].let_go = yes,
            Act::Pedal(_, yes) => self.desks[n].pedal = yes,
            _ => {}
        }
        if self.desks[n].clutched {
            let presence = !self.desks[n].let_go;
            self.hands(n, presence, Clutch::Closed);
        }
    }

    fn things(&mut self, act: Act) {
        match act {
            Act::DiskDone => {
                let act = self.disk.remove(0);
                let done = match act {
                    DiskAct::Reserve(end) => {
                        self.on_disk = self.on_disk.max(end.0);
                        DiskDone::Reserved(end)
                    }
                    DiskAct::Intent { oid, epoch, .. } => DiskDone::Durable(oid, epoch),
                };
                self.input(0, Input::Disk(done));
            }
            Act::DiskFails => {
                self.left.failures -= 1;
                // A reservation that fails is only not answered.
                if let DiskAct::Intent { oid, epoch, .. } = self.disk.remove(0) {
                    self.input(0, Input::Disk(DiskDone::Failed(oid, epoch)));
                }
            }
            Act::Colour(colour) => {
                self.left.colours -= 1;
                self.colours = Colours { loop_age: colour, ..Colours::GREEN };
                self.measure();
            }
            Act::Consent(active) => {
                self.left.consents = self.left.consents.saturating_sub(1);
                self.consent = active;
                self.input(0, Input::Consent(active));
            }
            Act::Video(video) => {
                self.left.videos -= 1;
                self.video = video;
            }
            Act::CameraMoves => {
                self.left.videos -= 1;
                self.input(0, Input::CameraMoved);
            }
            Act::Revoke(n) => {
                self.input(0, Input::Revoked(EXPERTS[n]));
            }
            Act::Cut(n, cut) => {
                self.left.cuts -= u8::from(cut);
                self.desks[n].cut = cut;
            }
            _ => self.programs(act),
        }
    }

    fn programs(&mut self, act: Act) {
        match act {
            Act::Kill => self.kill(),
            Act::Start(readable) => self.start(readable),
            Act::Pause(yes) => {
                self.left.pauses -= u8::from(yes);
                self.hosts[0].paused = yes;
                self.hosts[0].stale = true;
            }
            Act::SecondGate => {
                self.boots += 1;
                let first = self.on_disk;
                self.on_disk += config().epoch_block;
                let store = Store::Block { first: Epoch(first), end: Epoch(self.on_disk) };
                let host = self.host(self.boots, store);
                self.hosts.push(host);
            }
            Act::SecondTakes => {
                self.left.locals -= 1;
                self.input(1, Input::Local(Local::Take));
            }
            Act::KillStation(n) => {
                self.left.crashes -= 1;
                let desk = &mut self.desks[n];
                (desk.station, desk.connected, desk.clutched, desk.beats) = (None, false, false, 0);
                (desk.to_gate, desk.from_gate, desk.paused) = (Vec::new(), Vec::new(), false);
                desk.mirror = crate::handover::mirror::Mirror::default();
            }
            Act::Connect(n) => self.connect(n),
            Act::PauseStation(n, yes) => {
                self.left.pauses -= u8::from(yes);
                self.desks[n].paused = yes;
            }
            Act::CutDevice(yes) => {
                self.left.cuts -= u8::from(yes);
                self.device_link = !yes;
                self.device_synced = false;
            }
            Act::MuteDevice(yes) => {
                self.left.cuts -= u8::from(yes);
                self.reports = !yes;
            }
            Act::RestartDevice => {
                self.left.crashes -= 1;
                self.energy = false;
                let fence =
                    crate::handover::fence::Fence::with_checks(self.now(), self.fence_on_disk, config().watchdog);
                self.fence = fence;
                self.device_synced = false;
            }
            Act::Override => {
                self.left.locals -= 1;
                let effects = self.fence.override_to_local();
                self.effects(effects);
            }
            _ => self.forge(act),
        }
    }

    /// True where the gate did it.
    fn local(&mut self, act: Local) -> bool {
        match self.take_in(0, Input::Local(act), None) {
            Some(Ok(())) => {
                self.hand_out(0);
                true
            }
            Some(Err(reason)) => {
                self.log.note(|| format!("   gate refuses: {reason}"));
                self.hand_out(0);
                false
            }
            None => false,
        }
    }

    fn note(&mut self, act: Local) {
        self.local(act);
    }

    /// HO-I-007: one step, and the device obeys where it can hear.
    fn take(&mut self) {
        let done = self.local(Local::Take);
        let serves = self.fence.report().owner.is_none_or(|boot| boot.0 == u128::from(self.hosts[0].boot));
        // A gate that cannot read its store and has not heard its device yet has no fence to show.
        let fenced = self.gate().is_some_and(|g| g.epoch() != Epoch(0));
        let obeys = !self.device_link
            || !fenced
            || !serves
            || self.hosts.len() > 1
            || self.fence.selected() == Selection::Local;
        self.demand(done && self.mode() == Some(Mode::Local) && obeys, "HO-I-007");
    }

    fn reach_gate(&mut self, n: usize) {
        let message = self.desks[n].to_gate.remove(0);
        let channel = self.desks[n].channel;
        self.input(0, Input::Message { channel, message, token: Some(token(n)) });
    }

    /// STATUS in front of the line arrives at once; behind an OFFER it waits.
    pub(crate) fn tell_status(&mut self) {
        for n in 0..self.desks.len() {
            let desk = &self.desks[n];
            let first = desk.from_gate.first();
            if desk.runs() && !desk.cut && first.is_some_and(|m| matches!(m, FromGate::Status(_))) {
                self.reach_desk(n);
            }
        }
    }

    fn reach_desk(&mut self, n: usize) {
        let message = self.desks[n].from_gate.remove(0);
        if let FromGate::Status(status) = &message {
            self.desks[n].mirror.handle(status.clone());
        }
        self.at_desk(n, station::Input::Message(message));
    }

    /// kill -9: what the disk did not finish is gone, and so is every channel.
    pub(crate) fn kill(&mut self) {
        self.left.crashes = self.left.crashes.saturating_sub(1);
        self.hosts[0].gate = None;
        self.hosts[0].paused = false;
        self.disk.clear();
        for desk in &mut self.desks {
            let old = desk.channel;
            desk.connected = false;
            (desk.to_gate, desk.from_gate) = (Vec::new(), Vec::new());
            if let Some(station) = desk.station.as_mut() {
                let _ = station.handle(Micros(self.now), station::Input::Gone(old));
            }
        }
        self.truth.offered = None;
        self.truth.open_since = None;
    }

    /// The gate starts anew, with a block above everything, or with a store that cannot be read.
    pub(crate) fn start(&mut self, readable: bool) {
        self.boots += 1;
        let store = if readable {
            let first = self.on_disk;
            self.demand(first > self.truth.highest.0, "HO-I-002");
            self.on_disk += config().epoch_block;
            Store::Block { first: Epoch(first), end: Epoch(self.on_disk) }
        } else {
            self.left.failures = self.left.failures.saturating_sub(1);
            Store::Unreadable
        };
        self.hosts[0] = self.host(self.boots, store);
        self.device_synced = false;
        let consent = self.consent;
        self.input(0, Input::Consent(consent));
    }
}
