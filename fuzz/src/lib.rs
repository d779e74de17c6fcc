//! What is fuzzed, as plain functions of bytes. libFuzzer drives them here; the kept corpora are replayed by an ordinary test of the
//! model checker's package, which includes this file.

use trocar_proto::handover::config::Config;
use trocar_proto::handover::device_wire;
use trocar_proto::handover::fence::Fence;
use trocar_proto::handover::frameproof;
use trocar_proto::handover::gate::{
    Act, DeviceAct, DiskAct, DiskDone, FrameReport, Gate, Input, Judgement, Output, Peer, Start, Store, Verified,
};
use trocar_proto::handover::message::{
    self, Command, Datagram, Figures, Heartbeat, Mode, Payload, Pose, Short, ToGate, Token,
};
use trocar_proto::handover::types::{
    Binding, BootId, ChannelId, Clutch, Colour, Colours, Counter, Epoch, ExpertId, FrameRef, GrantedSet, Nonce, Oid,
    Selection,
};
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::Micros;

/// All decoders of the handover: what decodes encodes to the very same bytes (HO-C-001, HO-C-002, HO-C-003, HO-C-004).
///
/// # Panics
/// Where it does not.
pub fn codec(data: &[u8]) {
    if let Ok((id, value)) = message::decode_to_gate(data) {
        assert_eq!(message::encode_to_gate(id, &value), data);
    }
    if let Ok((id, value)) = message::decode_from_gate(data) {
        assert_eq!(message::encode_from_gate(id, &value), data);
    }
    if let Ok(value) = message::decode_datagram(data) {
        assert_eq!(message::encode_datagram(&value), data);
    }
    if let Ok((head, value)) = device_wire::decode_to_device(data) {
        assert_eq!(device_wire::encode_to_device(&head, &value), data);
    }
    if let Ok((head, value)) = device_wire::decode_report(data) {
        assert_eq!(device_wire::encode_report(&head, &value), data);
    }
    if let Ok(value) = frameproof::decode_echo(data) {
        assert_eq!(frameproof::encode_echo(&value)[..], *data);
    }
    if let Ok(value) = frameproof::Mark::decode(data) {
        assert_eq!(value.encode()[..], *data);
    }
    if let Ok(value) = frameproof::Report::decode(data) {
        assert_eq!(value.encode()[..], *data);
    }
    if let Some((index, rest)) = trocar_proto::control::split_datagram(data) {
        assert_eq!(trocar_proto::control::join_datagram(index, rest), data);
    }
}

const EXPERTS: [ExpertId; 2] = [ExpertId([1; 32]), ExpertId([2; 32])];

/// What the bytes drive: a gate with its device, disk and two experts' channels.
struct Desk {
    gate: Gate,
    fence: Fence,
    now: u64,
    nonces: Vec<Nonce>,
    disk: Vec<DiskAct>,
    oids: u128,
    counter: u64,
    on_disk: u64,
    durable: Vec<(Oid, Epoch)>,
    confirmed: bool,
    newest: (Epoch, Counter),
}

/// Bytes as inputs of a gate, two or three each; the invariants are asserted after every one (HO-I-002, HO-I-003, HO-I-004,
/// HO-I-007, HO-I-009, HO-I-013, HO-I-016).
///
/// # Panics
/// Where one is broken.
pub fn gate(data: &[u8]) {
    let now = 10_000_000;
    let store = Store::Block { first: Epoch(1), end: Epoch(17) };
    let cfg = Config::default();
    let watchdog = cfg.watchdog;
    let mut desk = Desk {
        gate: Gate::new(cfg, Micros(now), Start { boot: BootId(1), store }),
        fence: Fence::new(Micros(now), Epoch(0), watchdog),
        now,
        nonces: Vec::new(),
        disk: Vec::new(),
        oids: 0,
        counter: 0,
        on_disk: 17,
        durable: Vec::new(),
        confirmed: false,
        newest: (Epoch(0), Counter(0)),
    };
    for (n, expert) in EXPERTS.iter().copied().enumerate().take(2) {
        let peer = Peer::Station(expert);
        desk.input(Input::Opened { channel: ChannelId(n as u32), peer });
        let hello = ToGate::Hello { capabilities: 0, binds: None, token: Token::default() };
        desk.say(n, hello);
    }
    desk.input(Input::Consent(true));
    for pair in data.chunks_exact(2).take(4_000) {
        desk.step(pair[0], pair[1]);
    }
}

impl Desk {
    fn step(&mut self, what: u8, which: u8) {
        let n = usize::from(which & 1);
        match what % 24 {
            0..6 => self.tick(which),
            6 => self.input(Input::Local(Act::Take)),
            7 => self.offer(n, which),
            8 => self.input(Input::Local(Act::Confirm)),
            9 => self.say(
                n,
                ToGate::Accept { oid: Oid(self.oids.saturating_sub(u128::from(which >> 6))), token: Token::default() },
            ),
            10 | 11 => self.beat(n, which),
            12..15 => self.command(n, which),
            15 => self.disk(which),
            16 => self.colours(which),
            17 => self.input(Input::Console),
            18 => self.acts(which),
            19 => self.say(n, ToGate::Return { epoch: Epoch(u64::from(which >> 1)) }),
            20 => self.say(n, ToGate::Decline { oid: Oid(self.oids), reason: Short::default() }),
            21 => self.say(n, ToGate::Estop { person: None, reason: Short::default() }),
            22 => self.input(Input::Consent(which & 2 != 0)),
            _ => self.pause(which),
        }
    }

    /// Time, with everything that comes with it where a bit says so.
    fn tick(&mut self, which: u8) {
        self.now += 5_000 * u64::from(1 + (which >> 6));
        self.fence.tick(Micros(self.now));
        let nonce = Nonce(self.now ^ 0x5555);
        self.input(Input::Tick { nonce });
        if which & 1 != 0 {
            self.input(Input::Console);
        }
        if which & 2 != 0 {
            let report = self.fence.report();
            self.input(Input::Device(report));
        }
        if which & 4 != 0 {
            self.input(Input::Frame(FrameReport { frame: self.frame(), raw: self.now.into() }));
        }
    }

    fn frame(&self) -> FrameRef {
        let number = u32::try_from(self.now / 100_000).unwrap_or(0);
        FrameRef { source: 1, view: 0, frame: number, digest: number.into() }
    }

    fn offer(&mut self, n: usize, which: u8) {
        self.oids += 1;
        let set = GrantedSet { camera: which & 2 != 0, instruments: which & 4 != 0, energy: which & 8 != 0 };
        let before = self.gate.mode();
        self.input(Input::Local(Act::Offer { oid: Oid(self.oids), expert: EXPERTS[n], set, step: Short::default() }));
        // Refused: the open one stays what it was.
        if before == Mode::Local && self.gate.mode() == Mode::Offered {
            self.confirmed = false;
        } else {
            self.oids -= 1;
        }
    }

    fn acts(&mut self, which: u8) {
        let act = match which % 5 {
            0 => Act::Withdraw,
            1 => Act::Estop,
            2 | 3 => Act::Reset,
            _ => Act::ConfirmAmber,
        };
        self.input(Input::Local(act));
    }

    fn binding(&self, which: u8) -> Binding {
        match (self.gate.mode(), which & 16 != 0) {
            (Mode::Remote, false) => Binding::Epoch(self.gate.epoch()),
            (_, true) => Binding::Epoch(Epoch(u64::from(which >> 5))),
            _ => Binding::Offer(Oid(self.oids)),
        }
    }

    /// Counters mostly rise by one; a bit makes them old, another a jump.
    fn number(&mut self, which: u8) -> (Counter, Nonce) {
        let back = usize::from(which >> 6);
        let nonce = self.nonces.len().checked_sub(1 + back).map_or(Nonce(0), |i| self.nonces[i]);
        let step = match which & 0x30 {
            0x30 => 5_000,
            0x20 => 0,
            _ => 1,
        };
        if step < 2 {
            self.counter += step;
        }
        (Counter(self.counter + if step > 1 { step } else { 0 }), nonce)
    }

    fn beat(&mut self, n: usize, which: u8) {
        let (counter, nonce) = self.number(which);
        let (presence, pedal) = (which & 2 != 0, which & 4 != 0);
        let (binding, echo, pose) = (self.binding(which & 0xef), Some(self.frame()), Pose::default());
        let hb = Heartbeat { binding, counter, beat: 0, nonce, echo, presence, pedal, pose };
        self.input(Input::Heartbeat(ChannelId(n as u32), hb));
    }

    fn command(&mut self, n: usize, which: u8) {
        let (counter, nonce) = self.number(which);
        let epoch = Epoch(self.gate.epoch().0.saturating_sub(u64::from(which >> 7)));
        let clutch = if which & 2 != 0 { Clutch::Open } else { Clutch::Closed };
        let payload = Payload::new([n as u8, epoch.0 as u8]).unwrap_or_default();
        let command = Command { epoch, counter, nonce, echo: Some(self.frame()), clutch, payload };
        self.input(Input::Command(ChannelId(n as u32), command));
    }

    fn disk(&mut self, which: u8) {
        if self.disk.is_empty() {
            return;
        }
        let done = match (self.disk.remove(usize::from(which) % self.disk.len()), which & 0xf0 == 0xf0) {
            (DiskAct::Reserve(_), true) => return,
            (DiskAct::Reserve(end), false) => {
                self.on_disk = self.on_disk.max(end.0);
                DiskDone::Reserved(end)
            }
            (DiskAct::Intent { oid, epoch, .. }, true) => DiskDone::Failed(oid, epoch),
            (DiskAct::Intent { oid, epoch, .. }, false) => {
                self.durable.push((oid, epoch));
                DiskDone::Durable(oid, epoch)
            }
        };
        self.input(Input::Disk(done));
    }

    fn colours(&mut self, which: u8) {
        let colour = [Colour::Green, Colour::Green, Colour::Amber, Colour::Red][usize::from(which >> 6)];
        let colours = Colours { loop_age: colour, ..Colours::GREEN };
        self.input(Input::Links(Oid(self.oids), colours, Figures::default()));
    }

    fn pause(&mut self, which: u8) {
        self.now += 20_000 * u64::from(which);
        self.fence.tick(Micros(self.now));
    }

    fn say(&mut self, n: usize, message: ToGate) {
        let token = Verified { expert: EXPERTS[n], person: Short::default(), role: Role::Expert, grade: Grade::Energy };
        self.input(Input::Message { channel: ChannelId(n as u32), message, token: Some(token) });
    }

    fn input(&mut self, input: Input) {
        let (mode, epoch) = (self.gate.mode(), self.gate.epoch());
        let (confirm, take) = match &input {
            Input::Local(Act::Confirm | Act::ConfirmAmber) => (true, false),
            Input::Local(Act::Take) => (false, true),
            _ => (false, false),
        };
        let confirmed = self.confirmed || confirm;
        let result = self.gate.handle(Micros(self.now), input);
        self.confirmed |= confirm && result.is_ok();
        if take {
            assert_eq!(result.is_ok(), !matches!(mode, Mode::Estop | Mode::Closed), "HO-I-007");
        }
        let is = (self.gate.mode(), self.gate.epoch());
        assert!(is.1 >= epoch && is.1.0 < self.on_disk, "HO-I-002");
        if is.0 == Mode::Remote && mode != Mode::Remote {
            let oid = self.gate.offer().map(|o| o.oid);
            assert!(confirmed, "HO-I-009");
            assert!(oid.is_some_and(|oid| self.durable.contains(&(oid, is.1))), "HO-I-013");
            self.counter = 0;
        }
        self.drain();
        if take && result.is_ok() {
            let ours = self.fence.report().owner == Some(BootId(1));
            assert!(!ours || self.fence.selected() == Selection::Local, "HO-I-007");
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.gate.poll(Micros(self.now)) {
            match output {
                Output::Device(act) => self.device(&act),
                Output::Disk(act) if self.disk.len() < 8 => self.disk.push(act),
                Output::Seal(_, beacon) => {
                    self.nonces.push(beacon.nonce);
                    // As on the wire.
                    let bytes = message::encode_datagram(&Datagram::Beacon(beacon));
                    assert_eq!(message::decode_datagram(&bytes), Ok(Datagram::Beacon(beacon)));
                }
                Output::Judge(binding, counter, _) => {
                    let good = Judgement { orientation: 0, grip_matched: true, motion_zero: true };
                    let _ = self.gate.handle(Micros(self.now), Input::Judged(binding, counter, good));
                }
                _ => {}
            }
        }
    }

    fn device(&mut self, act: &DeviceAct) {
        let (_, result) = self.fence.handle(Micros(self.now), act);
        let Ok(effects) = result else { return };
        if let Some(fence) = effects.persist {
            self.fence.persisted(fence);
        }
        if let (Some(energy), DeviceAct::Command { fence, counter, set, payload, .. }) = (effects.actuate, act) {
            let by = payload.as_bytes().first().map(|n| EXPERTS[usize::from(*n)]);
            assert_eq!(self.gate.holder(), by.map(|by| (by, *set)), "HO-I-003");
            assert_eq!(*fence, self.gate.epoch(), "HO-I-003");
            let (epoch, newest) = self.newest;
            assert!(epoch < *fence || newest < *counter, "HO-I-004");
            self.newest = (*fence, *counter);
            assert!(!energy || (set.energy && set.instruments), "HO-I-016");
        }
    }
}
