//! The whole world as one value: what is in it, how things reach the machines and what comes of what they say.

use crate::handover::canon::{Canon, Ruler};
use crate::handover::checks::Checks;
use crate::handover::fence::{Effects, Fence};
use crate::handover::gate::{
    DeviceAct, DiskAct, DiskDone, FrameReport, Gate, Input, Judgement, Output, Peer, Start, Store,
};
use crate::handover::message::{Datagram, Figures, FromGate, Mode, Payload, Reason, ToGate, Token};
use crate::handover::station::{self, Phase, Senses, Station};
use crate::handover::types::{Binding, BootId, ChannelId, Clutch, Colours, Epoch, FrameRef, Nonce, Oid};
use crate::parts::{Budget, Desk, EXPERTS, Host, Log, Relay, Sealed, THEN, TICK, Video, config, token};
use crate::scopes::Scope;
use crate::truth::{Truth, Was, payload};
use crate::units::Micros;

/// How the adapter judges every pose.
const ALIGNED: Judgement = Judgement { orientation: 0, grip_matched: true, motion_zero: true };

/// A situation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World<C: Checks> {
    pub(crate) now: u64,
    /// The gate, and where the scope has one a second.
    pub(crate) hosts: Vec<Host<C>>,
    pub(crate) fence: Fence<C>,
    /// The fence on the device's own disk.
    pub(crate) fence_on_disk: Epoch,
    /// Acts reach the device.
    pub(crate) device_link: bool,
    /// The gate spoke to the device since the link stands.
    pub(crate) device_synced: bool,
    /// Its reports reach the gate.
    pub(crate) reports: bool,
    /// The remote side's energy is on.
    pub(crate) energy: bool,
    pub(crate) desks: Vec<Desk<C>>,
    /// What the relay holds, oldest first.
    pub(crate) pool: Vec<Sealed>,
    /// What the gate's disk was asked for and did not do yet.
    pub(crate) disk: Vec<DiskAct>,
    /// The first epoch that no disk covers.
    pub(crate) on_disk: u64,
    /// Intents on disk.
    pub(crate) durable: Vec<(Oid, Epoch)>,
    pub(crate) colours: Colours,
    pub(crate) consent: bool,
    pub(crate) console: bool,
    pub(crate) video: Video,
    pub(crate) channels: u32,
    pub(crate) oids: u128,
    pub(crate) boots: u64,
    pub(crate) left: Budget,
    pub(crate) relay: Relay,
    pub(crate) truth: Truth,
    /// Properties that were broken, as bits of [`crate::truth::NAMES`].
    pub(crate) broken: u32,
    /// Of the datagram in the gate's hands: when it was made, and when the picture that its maker saw was taken.
    pub(crate) carried: Option<(Micros, Micros)>,
    pub(crate) log: Log,
}

impl<C: Checks> World<C> {
    /// A gate that has started, its device, and stations that are connected; local has taken the device.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let now = Micros(THEN);
        let mut world = Self {
            now: THEN,
            hosts: Vec::new(),
            fence: Fence::with_checks(now, Epoch(0), config().watchdog),
            fence_on_disk: Epoch(0),
            device_link: true,
            device_synced: true,
            reports: true,
            energy: false,
            desks: (0..scope.experts).map(|_| Desk::new(now)).collect(),
            pool: Vec::new(),
            disk: Vec::new(),
            on_disk: scope.covered,
            durable: Vec::new(),
            colours: Colours::GREEN,
            consent: true,
            console: true,
            video: Video::Live,
            channels: 0,
            oids: 0,
            boots: 1,
            left: scope.budget,
            relay: scope.relay,
            truth: Truth::new(now),
            broken: 0,
            carried: None,
            log: Log::default(),
        };
        let store = Store::Block { first: Epoch(1), end: Epoch(scope.covered) };
        world.hosts.push(world.host(1, store));
        world.input(0, Input::Consent(true));
        (0..scope.experts).for_each(|n| world.connect(n));
        world.tick(scope);
        world.input(0, Input::Local(crate::handover::gate::Act::Take));
        world.tick(scope);
        world.left = scope.budget;
        world.canon(scope);
        world
    }

    pub(crate) fn host(&self, boot: u64, store: Store) -> Host<C> {
        let start = Start { boot: BootId(boot.into()), store };
        Host { gate: Some(Gate::with_checks(config(), self.now(), start)), paused: false, stale: false, boot }
    }

    /// The world's time.
    #[must_use]
    pub const fn now(&self) -> Micros {
        Micros(self.now)
    }

    /// The gate, while it lives.
    #[must_use]
    pub fn gate(&self) -> Option<&Gate<C>> {
        self.hosts.first().and_then(|h| h.gate.as_ref())
    }

    /// The gate's state, while it lives and is not stopped.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.hosts.first().filter(|h| !h.paused).and_then(|h| h.gate.as_ref()).map(Gate::mode)
    }

    /// One thing happens to a gate, and all that comes of it. `None` where no gate took it.
    pub(crate) fn input(&mut self, h: usize, input: Input) -> Option<Result<(), Reason>> {
        self.input_by(h, input, None)
    }

    fn input_by(&mut self, h: usize, input: Input, cause: Option<(usize, bool)>) -> Option<Result<(), Reason>> {
        let result = self.take_in(h, input, cause)?;
        self.hand_out(h);
        Some(result)
    }

    /// Into the gate; nothing is handed out yet.
    pub(crate) fn take_in(
        &mut self,
        h: usize,
        input: Input,
        cause: Option<(usize, bool)>,
    ) -> Option<Result<(), Reason>> {
        let now = self.now();
        let host = self.hosts.get_mut(h).filter(|host| !host.paused)?;
        host.stale = false;
        let gate = host.gate.as_mut()?;
        let was = Was::of(gate);
        let done = match &input {
            Input::Disk(DiskDone::Durable(oid, epoch)) => Some((*oid, *epoch)),
            _ => None,
        };
        let accept = match &input {
            Input::Message { channel, message: ToGate::Accept { oid, .. }, .. } => Some((*channel, *oid)),
            _ => None,
        };
        if let Some(done) = done {
            self.durable.push(done);
        }
        let result = gate.handle(now, input);
        if let (Some((channel, oid)), Ok(())) = (accept, result)
            && let Some(n) = self.whose(channel)
        {
            self.accepted(n, oid);
        }
        self.watch(h, was, cause);
        Some(result)
    }

    /// Does what the gate wants done, until it wants nothing more.
    pub(crate) fn hand_out(&mut self, h: usize) {
        for _ in 0..64 {
            let now = self.now();
            let Some(gate) = self.hosts[h].gate.as_mut() else { break };
            let was = Was::of(gate);
            let output = gate.poll(now);
            self.watch(h, was, None);
            let Some(output) = output else { break };
            match output {
                Output::Device(act) => self.device(h, &act),
                Output::Disk(act) if h == 0 && !self.disk.contains(&act) => self.disk.push(act),
                Output::Send(channel, message) if h == 0 => self.send(channel, message),
                Output::Seal(channel, beacon) if h == 0 => {
                    let Some(n) = self.whose(channel) else { continue };
                    let datagram = Datagram::Beacon(beacon);
                    let (at, sees) = (now, now);
                    self.seal(Sealed { down: Some(n), channel, datagram, by: n, at, sees, again: false });
                }
                Output::Judge(binding, counter, _) => {
                    self.take_in(h, Input::Judged(binding, counter, ALIGNED), None);
                }
                Output::Refused(_, reason) => self.log.note(|| format!("   gate refuses a datagram: {reason}")),
                _ => {}
            }
        }
    }

    fn send(&mut self, channel: ChannelId, message: FromGate) {
        let Some(n) = self.whose(channel) else { return };
        let desk = &mut self.desks[n];
        let FromGate::Status(mut status) = message else { return desk.from_gate.push(message) };
        // The newest STATUS stands for those before it, and carries no more than a screen looks at.
        status.since_ms = 0;
        status.figures = Figures::default();
        if let Some(FromGate::Status(before)) = desk.from_gate.last_mut() {
            status.answers.append(&mut before.answers);
            *before = status;
        } else {
            desk.from_gate.push(FromGate::Status(status));
        }
    }

    /// Whose channel it is, while both ends know it.
    pub(crate) fn whose(&self, channel: ChannelId) -> Option<usize> {
        self.desks.iter().position(|d| d.channel == channel && d.connected)
    }

    /// The device does what it is told, where it does.
    fn device(&mut self, h: usize, act: &DeviceAct) {
        if !self.device_link {
            return;
        }
        let (before, result) = self.fence.handle(self.now(), act);
        self.effects(before);
        let Ok(effects) = result else { return };
        self.effects(effects);
        if let DeviceAct::Command { fence, counter, set, payload, .. } = act
            && let Some(energy) = effects.actuate
        {
            self.energy |= energy;
            if h == 0 {
                self.moved(*fence, *counter, *set, energy, payload.as_bytes());
            } else {
                self.break_it("HO-I-001");
            }
        }
    }

    pub(crate) fn effects(&mut self, effects: Effects) {
        self.energy &= !effects.energy_off;
        if let Some(fence) = effects.persist {
            self.fence_on_disk = fence;
            self.fence.persisted(fence);
        }
        if let Some(to) = effects.obey {
            self.log.note(|| format!("   device obeys {to:?}"));
        }
        if effects.hold {
            self.log.note(|| "   device holds".into());
        }
    }

    /// Into the hands of the relay, which delivers at once where the scope does not make it hostile.
    fn seal(&mut self, sealed: Sealed) {
        let n = sealed.by;
        if self.desks[n].cut {
            return;
        }
        let asleep = sealed.down.is_none() && self.hosts[0].paused;
        let kept = match &sealed.datagram {
            Datagram::Beacon(_) => self.relay.beacons,
            Datagram::Heartbeat(_) => self.relay.heartbeats,
            Datagram::Command(_) => self.relay.commands,
        };
        if asleep || kept {
            if self.pool.len() >= self.relay.most {
                self.pool.remove(0);
            }
            self.pool.push(sealed);
            return;
        }
        let copied = self.relay.copies && self.left.replays > 0 && !matches!(sealed.datagram, Datagram::Beacon(_));
        let copy = copied.then(|| sealed.clone());
        let again = self.deliver(sealed);
        if let Some(copy) = copy {
            if self.pool.len() >= self.relay.most {
                self.pool.remove(0);
            }
            self.pool.push(Sealed { again, ..copy });
        }
    }

    /// A datagram reaches whom it is for.
    /// True where its number counted, so that it is a copy from now on.
    pub(crate) fn deliver(&mut self, sealed: Sealed) -> bool {
        let counted = self.take_datagram(sealed);
        self.hand_out(0);
        self.carried = None;
        counted
    }

    /// As [`Self::deliver`], but nothing is handed out yet.
    pub(crate) fn take_datagram(&mut self, sealed: Sealed) -> bool {
        let Sealed { down, channel, datagram, by, at, sees, again } = sealed;
        let now = self.now();
        if let (Some(n), Datagram::Beacon(beacon)) = (down, &datagram) {
            let desk = &mut self.desks[n];
            let Some(station) = desk.station.as_mut().filter(|_| !desk.paused) else { return false };
            let counted = station.handle(now, station::Input::Beacon(channel, *beacon)).is_ok();
            if counted && !again && by == n {
                desk.beaconed = now;
            }
            return counted;
        }
        self.carried = Some((at, sees));
        let cause = Some((by, again));
        let (input, hb, open) = match datagram {
            Datagram::Heartbeat(hb) => (Input::Heartbeat(channel, hb.clone()), Some(hb), false),
            Datagram::Command(c) => {
                let open = c.clutch == Clutch::Open;
                (Input::Command(channel, c), None, open)
            }
            Datagram::Beacon(_) => return false,
        };
        let new = !again;
        if new && open {
            // Before the gate judges: an open clutch counts even where the command is too old to move anything.
            self.clutch_was(by, true);
        }
        let newest = self.gate().and_then(Gate::newest);
        let shown = match &input {
            Input::Heartbeat(_, hb) => (hb.binding, hb.counter.0),
            Input::Command(_, c) => (Binding::Epoch(c.epoch), c.counter.0),
            _ => (Binding::Epoch(Epoch(0)), 0),
        };
        let result = self.take_in(0, input, cause);
        if result == Some(Ok(())) {
            let jumped = newest.is_some_and(|(b, n, _)| b == shown.0 && shown.1 > n + config().window);
            self.demand(!jumped, "HO-P-002");
            match hb {
                Some(hb) if new => self.heard(by, &hb),
                None if new && !open => self.clutch_was(by, false),
                _ => {}
            }
        } else if !open && matches!(result, Some(Err(Reason::MotionStopped | Reason::NotAligned))) {
            self.truth.opened = false;
        }
        let spent = [Reason::TooOld, Reason::TooFast, Reason::UnknownNonce, Reason::MotionStopped, Reason::NotAligned];
        result.is_some_and(|r| r.err().is_none_or(|reason| spent.contains(&reason)))
    }

    /// A desk's program says what it wants to.
    pub(crate) fn speak(&mut self, n: usize) {
        while let Some(output) = self.desks[n].station.as_mut().and_then(Station::poll) {
            match output {
                station::Output::Send(message) if self.desks[n].connected => self.desks[n].to_gate.push(message),
                station::Output::Send(_) => {}
                station::Output::Seal(channel, datagram) => {
                    if matches!(datagram, Datagram::Heartbeat(_)) {
                        self.desks[n].beats = self.desks[n].beats.saturating_add(1).min(2);
                    }
                    let (at, sees) = (self.now(), self.desks[n].sees);
                    let silent = at.since(self.desks[n].beaconed) >= config().station_silence;
                    self.demand(!silent, "HO-T-001");
                    self.seal(Sealed { down: None, channel, datagram, by: n, at, sees, again: false });
                }
            }
        }
    }

    /// Something happens at a desk.
    pub(crate) fn at_desk(&mut self, n: usize, input: station::Input) -> Option<Result<(), Reason>> {
        let now = self.now();
        let desk = &mut self.desks[n];
        let result = desk.station.as_mut().filter(|_| !desk.paused)?.handle(now, input);
        self.speak(n);
        Some(result)
    }

    /// A tunnel stands, HELLO is said. The program is new where it was dead.
    pub(crate) fn connect(&mut self, n: usize) {
        let (now, old) = (self.now(), self.desks[n].channel);
        self.input(0, Input::Gone(old));
        self.channels += 1;
        let channel = ChannelId(self.channels);
        let desk = &mut self.desks[n];
        let former = desk.connected.then_some(old);
        (desk.channel, desk.connected) = (channel, true);
        (desk.to_gate, desk.from_gate) = (Vec::new(), Vec::new());
        let station = desk.station.get_or_insert_with(|| Station::with_checks(config(), EXPERTS[n], now));
        if former.is_some() {
            let _ = station.handle(now, station::Input::Gone(old));
        }
        let _ = station.handle(now, station::Input::Opened(channel));
        self.input(0, Input::Opened { channel, peer: Peer::Station(EXPERTS[n]) });
        let message = ToGate::Hello { capabilities: 0, binds: None, token: Token::default() };
        self.input(0, Input::Message { channel, message, token: Some(token(n)) });
    }

    fn stamp(&self) -> u64 {
        self.now / TICK
    }

    /// A tick for everybody who is not stopped: device, picture, gates, desks.
    pub(crate) fn tick(&mut self, scope: &Scope) {
        self.now += TICK;
        let held = self.fence.tick(self.now());
        self.effects(held);
        self.picture();
        for h in 0..self.hosts.len() {
            if self.hosts[h].paused || self.hosts[h].gate.is_none() {
                continue;
            }
            let nonce = Nonce(self.hosts[h].boot << 32 | self.stamp());
            if self.console {
                self.input(h, Input::Console);
            }
            self.input(h, Input::Tick { nonce });
            if self.reports && self.device_link {
                let report = self.fence.report();
                self.input(h, Input::Device(report));
            }
        }
        self.device_synced |= self.device_link && !self.hosts[0].paused;
        self.measure();
        for n in 0..self.desks.len() {
            self.operate(n, scope);
        }
        self.measure();
    }

    /// The link gates as they are now, where an offer is being measured.
    pub(crate) fn measure(&mut self) {
        let measured = matches!(self.mode(), Some(Mode::Ready | Mode::Granting | Mode::Remote));
        let oid = self.gate().and_then(Gate::offer).map(|o| o.oid);
        if let (true, Some(oid)) = (measured, oid) {
            let colours = self.colours;
            self.input(0, Input::Links(oid, colours, Figures::default()));
        }
    }

    fn picture(&mut self) {
        if self.video != Video::Frozen {
            self.truth.taken = self.now();
        }
        let number = u32::try_from(self.stamp()).unwrap_or(u32::MAX);
        let frame = FrameRef { source: 1, view: 0, frame: number, digest: number.into() };
        let raw = u128::from(self.truth.taken.0 / TICK);
        self.input(0, Input::Frame(FrameReport { frame, raw }));
        if self.video == Video::Lost {
            return;
        }
        let (now, taken) = (self.now(), self.truth.taken);
        for desk in &mut self.desks {
            if let Some(station) = desk.station.as_mut().filter(|_| !desk.paused && !desk.cut) {
                let _ = station.handle(now, station::Input::Shown(frame));
                desk.sees = taken;
            }
        }
    }

    /// What the expert does with each tick: presses presence after the first HB, works the clutch, moves.
    fn operate(&mut self, n: usize, scope: &Scope) {
        if !self.desks[n].runs() {
            return;
        }
        if scope.mirror {
            self.probe(n);
        }
        let phase = self.desks[n].station.as_ref().map(Station::phase);
        match phase {
            Some(Phase::Accepted) => {
                let presence = self.desks[n].beats > 0 && !self.desks[n].let_go;
                self.hands(n, presence, Clutch::Open);
            }
            Some(Phase::Control) if !self.desks[n].clutched => {
                let presence = !self.desks[n].let_go;
                self.hands(n, presence, Clutch::Open);
                self.hands(n, presence, Clutch::Closed);
                self.desks[n].clutched = true;
                self.at_desk(n, station::Input::Tick);
                if scope.moves {
                    self.motion(n);
                }
                return;
            }
            Some(Phase::Control) => {
                self.at_desk(n, station::Input::Tick);
                if scope.moves {
                    self.motion(n);
                }
                return;
            }
            _ => {
                self.desks[n].beats = 0;
                self.desks[n].clutched = false;
            }
        }
        self.at_desk(n, station::Input::Tick);
    }

    /// The expert's screen asks how things are.
    fn probe(&mut self, n: usize) {
        // One waits at a time: a line that does not move takes no more.
        let waits = self.desks[n].to_gate.iter().any(|m| matches!(m, ToGate::Probe { .. }));
        if waits || !self.desks[n].connected {
            return;
        }
        let nonce = Nonce((100 + n as u64) << 32 | self.stamp());
        let now = self.now();
        self.desks[n].mirror.probed(now, nonce);
        self.desks[n].to_gate.push(ToGate::Probe { nonce });
    }

    /// What hands and feet do now, told to the program.
    pub(crate) fn hands(&mut self, n: usize, presence: bool, clutch: Clutch) {
        let senses = Senses { presence, pedal: self.desks[n].pedal, clutch, ..Senses::default() };
        self.at_desk(n, station::Input::Senses(senses));
    }

    /// One motion of the expert's hand.
    pub(crate) fn motion(&mut self, n: usize) -> bool {
        let held = self.desks[n].station.as_ref().and_then(Station::held);
        let Some(epoch) = held else { return false };
        let payload = Payload::new(payload(n, epoch)).unwrap_or_default();
        self.at_desk(n, station::Input::Motion(payload)) == Some(Ok(()))
    }

    /// Moves the world to the time at which every situation is looked at, and names everything anew.
    pub(crate) fn canon(&mut self, scope: &Scope) {
        let now = self.now();
        self.pool.retain(|s| now.since(s.at) <= scope.memory * TICK);
        let newest = self.gate().and_then(Gate::newest);
        let mut sequences = vec![0];
        if self.hosts.len() == 1 {
            self.fence.sequences(&mut sequences);
            self.hosts.iter().filter_map(|h| h.gate.as_ref()).for_each(|g| g.sequences(&mut sequences));
            sequences.sort_unstable();
            sequences.dedup();
        }
        let by = Ruler {
            now,
            then: Micros(THEN),
            tick: TICK,
            counters: newest.map(|(b, n, _)| (b, n.saturating_sub(1))).into_iter().collect(),
            beacons: newest.map(|(b, _, n)| (b, n.saturating_sub(4))).into_iter().collect(),
            sequences: if self.hosts.len() == 1 { sequences } else { Vec::new() },
        };
        let cfg = config();
        self.hosts.iter_mut().filter_map(|h| h.gate.as_mut()).for_each(|g| g.canon(&by));
        self.fence.canon(&by);
        self.desks.iter_mut().for_each(|d| d.canon(&cfg, &by));
        self.pool.iter_mut().for_each(|s| s.canon(&by));
        self.truth.canon(&by);
        let oid = self.oids;
        // Only the newest offers' intents can still be asked for.
        self.durable.retain(|(each, _)| each.0 + 2 > oid);
        self.durable.sort_unstable();
        self.durable.dedup();
        self.now = THEN;
    }
}
