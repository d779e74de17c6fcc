//! A gate with its device, on a clock that the test moves: what unit tests and simulation stand on. Tests only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and the model checker alone: a fault stops them"
)]

use super::checks::{Checks, Strict};
use super::config::Config;
use super::fence::{Fence, FenceError};
use super::gate::{
    Act, DeviceAct, DiskAct, DiskDone, FrameReport, Gate, Input, Judgement, Output, Peer, Record, Start, Store,
    Verified,
};
use super::message::{Command, FromGate, Heartbeat, Mode, Payload, Pose, Reason, Short, Status, ToGate, Token};
use super::types::{
    Binding, BootId, ChannelId, Clutch, Colours, Counter, Epoch, ExpertId, FrameRef, GrantedSet, Nonce, Oid,
};
use crate::session::role::{Grade, Role};
use crate::units::Micros;

pub(super) const X: ExpertId = ExpertId([1; 32]);
pub(super) const Y: ExpertId = ExpertId([2; 32]);
pub(super) const CX: ChannelId = ChannelId(1);
pub(super) const CY: ChannelId = ChannelId(2);
pub(super) const CS: ChannelId = ChannelId(3);
pub(super) const BOOT: BootId = BootId(77);
pub(super) const GOOD: Judgement = Judgement { orientation: 5_000, grip_matched: true, motion_zero: true };

pub(super) const fn ms(n: u64) -> u64 {
    n * 1_000
}

pub(super) fn short(s: &str) -> Short {
    Short::new(s).unwrap()
}

pub(super) fn token(expert: ExpertId) -> Verified {
    let person = short(if expert == X { "x" } else { "y" });
    Verified { expert, person, role: Role::Expert, grade: Grade::Energy }
}

/// Which parts of the world are at work in [`Rig::run`].
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) heartbeats: bool,
    pub(super) commands: bool,
    pub(super) frames: bool,
    pub(super) echo: bool,
    pub(super) console: bool,
    pub(super) reports: bool,
    pub(super) disk: bool,
    pub(super) presence: bool,
    pub(super) pedal: bool,
    pub(super) clutch: Clutch,
    pub(super) judgement: Judgement,
    pub(super) frozen: bool,
    /// Time between BEACON and the datagram that echoes it.
    pub(super) delay: u64,
    /// So many of the next holds and energy-offs are lost on their way to the device.
    pub(super) lost_stops: u32,
}

pub(super) struct Rig<C: Checks = Strict> {
    pub(super) gate: Gate<C>,
    pub(super) fence: Fence<C>,
    pub(super) now: u64,
    pub(super) world: World,
    pub(super) oid: u128,
    pub(super) nonces: Vec<(Nonce, u64)>,
    pub(super) counter: u64,
    pub(super) frame: u32,
    /// Everything that came out since the last [`Rig::input`] or [`Rig::run`].
    pub(super) outs: Vec<Output>,
    /// Counters that moved the device.
    pub(super) moved: Vec<u64>,
    pub(super) energy: bool,
    pub(super) refused_by_device: Vec<FenceError>,
    nonce: u64,
}

impl Rig<Strict> {
    pub(super) fn new() -> Self {
        Self::with_checks(Config::default())
    }

    /// In that state, by the ordinary way.
    pub(super) fn at(mode: Mode) -> Self {
        let mut rig = Self::new();
        rig.reach(mode, GrantedSet::ENERGY);
        rig
    }
}

impl<C: Checks> Rig<C> {
    pub(super) fn with_checks(cfg: Config) -> Self {
        let now = 100_000_000;
        let store = Store::Block { first: Epoch(10), end: Epoch(26) };
        let watchdog = cfg.watchdog;
        let mut rig = Self {
            gate: Gate::with_checks(cfg, Micros(now), Start { boot: BOOT, store }),
            fence: Fence::with_checks(Micros(now), Epoch(9), watchdog),
            now,
            world: World {
                heartbeats: true,
                commands: false,
                frames: true,
                echo: true,
                console: true,
                reports: true,
                disk: true,
                presence: true,
                pedal: false,
                clutch: Clutch::Open,
                judgement: GOOD,
                frozen: false,
                delay: 0,
                lost_stops: 0,
            },
            oid: 0,
            nonces: Vec::new(),
            counter: 0,
            frame: 0,
            outs: Vec::new(),
            moved: Vec::new(),
            energy: false,
            refused_by_device: Vec::new(),
            nonce: 1_000,
        };
        rig.start();
        rig
    }

    fn start(&mut self) {
        for (channel, peer) in [(CX, Peer::Station(X)), (CY, Peer::Station(Y)), (CS, Peer::Signaling)] {
            self.input(Input::Opened { channel, peer }).unwrap();
            let token = match peer {
                Peer::Station(expert) => Some(token(expert)),
                Peer::Signaling => None,
            };
            self.say_with(channel, hello(), token).unwrap();
        }
        self.input(Input::Consent(true)).unwrap();
        self.run(ms(40));
    }

    pub(super) fn input(&mut self, input: Input) -> Result<(), Reason> {
        self.outs.clear();
        self.feed(input)
    }

    fn feed(&mut self, input: Input) -> Result<(), Reason> {
        let result = self.gate.handle(Micros(self.now), input);
        self.drain();
        result
    }

    /// Does what the gate wants done; the device is the fence.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.gate.poll(Micros(self.now)) {
            match &output {
                Output::Device(act) => self.tell_device(&act.clone()),
                Output::Seal(_, beacon) => self.nonces.push((beacon.nonce, self.now)),
                Output::Disk(act) if self.world.disk => {
                    let done = done(*act);
                    let _ = self.gate.handle(Micros(self.now), Input::Disk(done));
                }
                Output::Judge(binding, counter, _) => {
                    let judged = Input::Judged(*binding, *counter, self.world.judgement);
                    let _ = self.gate.handle(Micros(self.now), judged);
                }
                _ => {}
            }
            self.outs.push(output);
        }
    }

    pub(super) fn tell_device(&mut self, act: &DeviceAct) {
        let is_stop = matches!(act, DeviceAct::Hold { .. } | DeviceAct::EnergyOff { .. });
        if is_stop && self.world.lost_stops > 0 {
            self.world.lost_stops -= 1;
            return;
        }
        let (before, result) = self.fence.handle(Micros(self.now), act);
        for effects in [Some(before), result.ok()].into_iter().flatten() {
            if effects.energy_off {
                self.energy = false;
            }
            if let Some(fence) = effects.persist {
                self.fence.persisted(fence);
            }
            if let (Some(energy), DeviceAct::Command { counter, .. }) = (effects.actuate, act) {
                self.energy |= energy;
                self.moved.push(counter.0);
            }
        }
        self.refused_by_device.extend(result.err());
    }

    pub(super) fn act(&mut self, act: Act) -> Result<(), Reason> {
        self.input(Input::Local(act))
    }

    pub(super) fn say_with(
        &mut self,
        channel: ChannelId,
        message: ToGate,
        token: Option<Verified>,
    ) -> Result<(), Reason> {
        self.input(Input::Message { channel, message, token })
    }

    pub(super) fn say(&mut self, channel: ChannelId, message: ToGate) -> Result<(), Reason> {
        self.say_with(channel, message, None)
    }

    pub(super) fn offer(&mut self, expert: ExpertId, set: GrantedSet) -> Result<(), Reason> {
        self.oid += 1;
        self.act(Act::Offer { oid: Oid(self.oid), expert, set, step: short("step") })
    }

    pub(super) fn accept(&mut self) -> Result<(), Reason> {
        let accept = ToGate::Accept { oid: Oid(self.oid), token: Token::default() };
        self.counter = 0;
        self.say_with(CX, accept, Some(token(X)))
    }

    pub(super) fn links(&mut self, colours: Colours) -> Result<(), Reason> {
        self.input(Input::Links(Oid(self.oid), colours, super::message::Figures::default()))
    }

    /// The binding that the expert's next datagram has.
    pub(super) fn binding(&self) -> Binding {
        match self.gate.mode() {
            Mode::Remote => Binding::Epoch(self.gate.epoch()),
            _ => Binding::Offer(Oid(self.oid)),
        }
    }

    /// The newest nonce that is at least `delay` old.
    pub(super) fn nonce(&self) -> Nonce {
        let old = self.nonces.iter().rev().find(|(_, at)| at + self.world.delay <= self.now);
        old.map_or(Nonce(0), |(nonce, _)| *nonce)
    }

    fn echo(&self) -> Option<FrameRef> {
        (self.world.echo && self.frame > 0).then(|| frame(self.frame))
    }

    pub(super) fn hb(&mut self) -> Heartbeat {
        self.counter += 1;
        Heartbeat {
            binding: self.binding(),
            counter: Counter(self.counter),
            beat: 0,
            nonce: self.nonce(),
            echo: self.echo(),
            presence: self.world.presence,
            pedal: self.world.pedal,
            pose: Pose::default(),
        }
    }

    pub(super) fn cmd(&mut self, clutch: Clutch) -> Command {
        self.counter += 1;
        Command {
            epoch: self.gate.epoch(),
            counter: Counter(self.counter),
            nonce: self.nonce(),
            echo: self.echo(),
            clutch,
            payload: Payload::new([1]).unwrap(),
        }
    }

    pub(super) fn beat(&mut self) -> Result<(), Reason> {
        let hb = self.hb();
        self.input(Input::Heartbeat(CX, hb))
    }

    pub(super) fn command(&mut self, clutch: Clutch) -> Result<(), Reason> {
        let command = self.cmd(clutch);
        self.input(Input::Command(CX, command))
    }

    pub(super) fn tick(&mut self) {
        self.nonce += 1;
        let nonce = Nonce(self.nonce);
        self.feed(Input::Tick { nonce }).unwrap();
        let effects = self.fence.tick(Micros(self.now));
        self.energy &= !effects.energy_off;
    }

    pub(super) fn new_frame(&mut self) {
        self.frame += 1;
        let raw = if self.world.frozen { 0 } else { self.frame.into() };
        self.feed(Input::Frame(FrameReport { frame: frame(self.frame), raw })).unwrap();
    }

    /// Lets time pass in steps of 10 ms, with the world at work as it is set.
    pub(super) fn run(&mut self, us: u64) {
        self.outs.clear();
        let end = self.now + us;
        while self.now < end {
            self.now += ms(10).min(end - self.now);
            if self.world.console {
                self.feed(Input::Console).unwrap();
            }
            self.tick();
            if self.world.reports {
                let report = self.fence.report();
                self.feed(Input::Device(report)).unwrap();
            }
            let step = self.now / ms(10);
            if self.world.frames && step.is_multiple_of(3) {
                self.new_frame();
            }
            let talking = matches!(self.gate.mode(), Mode::Ready | Mode::Granting | Mode::Remote);
            if talking && self.world.heartbeats && step.is_multiple_of(2) && self.nonce() != Nonce(0) {
                let hb = self.hb();
                let _ = self.feed(Input::Heartbeat(CX, hb));
            }
            if self.gate.mode() == Mode::Remote && self.world.commands {
                let command = self.cmd(self.world.clutch);
                let _ = self.feed(Input::Command(CX, command));
            }
        }
    }

    /// To that state, by the ordinary way from HOLD.
    pub(super) fn reach(&mut self, mode: Mode, set: GrantedSet) {
        if mode == Mode::Hold {
            return;
        }
        if mode == Mode::Estop {
            return self.act(Act::Estop).unwrap();
        }
        if mode == Mode::Closed {
            return self.act(Act::Close).unwrap();
        }
        self.act(Act::Take).unwrap();
        if mode == Mode::Local {
            return;
        }
        self.offer(X, set).unwrap();
        if mode == Mode::Offered {
            return;
        }
        self.accept().unwrap();
        self.make_ready();
        if mode == Mode::Ready {
            return;
        }
        let disk = std::mem::replace(&mut self.world.disk, mode == Mode::Remote);
        self.act(Act::Confirm).unwrap();
        assert_eq!(self.gate.mode(), mode);
        self.world.disk = disk;
        if mode == Mode::Remote {
            self.counter = 0;
        }
    }

    /// Presence pressed anew, aligned, seeing, all green.
    pub(super) fn make_ready(&mut self) {
        self.world.presence = false;
        self.run(ms(60));
        self.world.presence = true;
        self.run(ms(60));
        self.links(Colours::GREEN).unwrap();
    }

    /// In REMOTE: HB, clutch opened and closed, so that motion runs.
    pub(super) fn engage(&mut self) {
        self.run(ms(40));
        self.command(Clutch::Open).unwrap();
        self.command(Clutch::Closed).unwrap();
        assert!(self.gate.motion_runs());
    }

    pub(super) fn device_acts(&self) -> Vec<&DeviceAct> {
        self.outs.iter().filter_map(|o| if let Output::Device(act) = o { Some(act) } else { None }).collect()
    }

    pub(super) fn sent(&self) -> Vec<(ChannelId, &FromGate)> {
        self.outs.iter().filter_map(|o| if let Output::Send(c, m) = o { Some((*c, m)) } else { None }).collect()
    }

    pub(super) fn records(&self) -> Vec<&Record> {
        self.outs.iter().filter_map(|o| if let Output::Audit(r) = o { Some(r) } else { None }).collect()
    }

    pub(super) fn statuses(&self) -> Vec<(ChannelId, &Status)> {
        self.sent()
            .into_iter()
            .filter_map(|(c, m)| if let FromGate::Status(s) = m { Some((c, s)) } else { None })
            .collect()
    }

    pub(super) fn nacks(&self) -> Vec<Reason> {
        self.sent()
            .into_iter()
            .filter_map(|(_, m)| if let FromGate::Nack { reason, .. } = m { Some(*reason) } else { None })
            .collect()
    }
}

pub(super) fn frame(n: u32) -> FrameRef {
    FrameRef { source: 1, view: 0, frame: n, digest: n.into() }
}

pub(super) fn hello() -> ToGate {
    ToGate::Hello { capabilities: 0, binds: None, token: Token::default() }
}

/// What a disk that works answers.
pub(super) const fn done(act: DiskAct) -> DiskDone {
    match act {
        DiskAct::Reserve(end) => DiskDone::Reserved(end),
        DiskAct::Intent { oid, epoch, .. } => DiskDone::Durable(oid, epoch),
    }
}
