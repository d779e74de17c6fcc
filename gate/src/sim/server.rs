//! The loop: socket, clock, inputs; everything that waits is elsewhere.

use super::draw::{Screen, Snapshot};
use super::inputs::Inputs;
use super::keep::{self, Keeper};
use super::peers::{Heard, Peers};
use super::record::{Recorder, What};
use super::{Controller, Fault, Status};
use crate::core::now;
use crate::device::{Key, draw_run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use trocar_proto::handover::device_wire::{
    self, MAX_DATAGRAM, Refusal, Refused, ToDevice, decode_to_device, encode_report,
};
use trocar_proto::handover::gate::DeviceAct;
use trocar_proto::handover::types::Epoch;
use trocar_proto::units::Micros;

/// Longest wait of the loop, in nanoseconds.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Time between two reports without news, in microseconds.
const REPORT: u64 = 20_000;
/// A turn of the loop that took longer was held up by the machine, and the record says so, in microseconds.
const STALL: u64 = 3_000;
/// Datagrams between two looks at clock and inputs.
const BATCH: usize = 64;

/// How the device is started.
#[derive(Debug)]
pub struct Options {
    /// Where it listens for gates.
    pub listen: SocketAddr,
    /// The key that it has in common with its gate.
    pub key: Key,
    /// Where it keeps its fence; without one it forgets it.
    pub state: Option<PathBuf>,
    /// Where it writes what it does.
    pub record: Option<PathBuf>,
    /// The record is begun anew when it is longer than so many bytes.
    pub record_limit: Option<u64>,
    /// Microseconds without keep-alive until it holds.
    pub watchdog: u32,
    /// Local moves the arm slowly whenever local is selected.
    pub local_motion: bool,
    /// Standard input has `override`, `camera` and `quit`.
    pub lines: bool,
    /// Draw on the terminal.
    pub draw: bool,
    /// For the conformance test's own tests only.
    pub fault: Option<Fault>,
}

/// Why the device does not run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Its own fence is unknown.
    #[error("--state {}: {source}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record cannot be opened.
    #[error("--record {}: {source}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody can reach it.
    #[error("--listen {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Threads, terminal, random numbers.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs the device until SIGTERM. `ready` is called once, with the address that it listens at.
///
/// # Errors
/// [`SimError`]: it could not start. Nothing that comes over the network ends it.
pub fn serve(options: Options, ready: impl FnOnce(SocketAddr)) -> Result<(), SimError> {
    let inputs = Inputs::default();
    inputs.listen_to_signals()?;
    if options.lines {
        inputs.listen_to_lines()?;
    }
    let draws = options.draw;
    let mut device = Device::start(options)?;
    let address = device.socket.local_addr()?;
    let screen = if draws { Some(Screen::start(address, inputs.clone())?) } else { None };
    ready(address);
    while !inputs.stops() {
        device.turn(&inputs);
        if let Some(screen) = &screen {
            screen.show(|| device.snapshot());
        }
    }
    device.recorder.put(now(), What::Ended);
    Ok(())
}

struct Device {
    socket: UdpSocket,
    key: Key,
    controller: Controller,
    peers: Peers,
    keeper: Keeper,
    recorder: Recorder,
    local_motion: bool,
    fault: Option<Fault>,
    /// What the record says last.
    told: Status,
    report_due: Micros,
    /// When the last turn began.
    turned: Micros,
}

impl Device {
    fn start(options: Options) -> Result<Self, SimError> {
        let Options { listen, key, state, record, record_limit, watchdog, local_motion, fault, .. } = options;
        let path = state.clone().unwrap_or_default();
        let fence = state.as_deref().map_or(Ok(Epoch(0)), keep::load);
        let fence = fence.map_err(|source| SimError::State { path, source })?;
        let path = record.clone().unwrap_or_default();
        let recorder =
            Recorder::start(record.as_deref(), record_limit).map_err(|source| SimError::Record { path, source })?;
        let failed = |source| SimError::Listen { address: listen, source };
        let socket = UdpSocket::bind(listen).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let keeper = Keeper::start(state.filter(|_| fault != Some(Fault::Persist)))?;
        let controller = Controller::new(now(), fence, watchdog, fault);
        let told = controller.status();
        let address = socket.local_addr()?.to_string();
        let fault_word = fault.map(|fault| format!("{fault:?}"));
        recorder.put(now(), What::Started { address, fence: fence.0, watchdog_us: watchdog, fault: fault_word });
        recorder.put(now(), What::Change { why: "start", status: told });
        let (peers, report_due, turned) = (Peers::default(), now(), now());
        Ok(Self { socket, key, controller, peers, keeper, recorder, local_motion, fault, told, report_due, turned })
    }

    /// One turn of the loop.
    fn turn(&mut self, inputs: &Inputs) {
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&WAIT));
        let (at, before) = (now(), self.turned);
        self.turned = at;
        if at.since(before) > STALL {
            self.recorder.put(at, What::Stall { us: at.since(before) });
        }
        self.tick();
        while let Some(fence) = self.keeper.durable() {
            self.controller.persisted(fence);
            self.recorder.put(now(), What::Durable { fence: fence.0 });
        }
        if inputs.takes_override() {
            self.controller.override_to_local();
            self.note("override");
        }
        if inputs.takes_camera() {
            self.controller.push_camera();
            self.recorder.put(now(), What::Camera { arm: *self.controller.arm() });
            self.report_to_all();
        }
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for _ in 0..BATCH {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => self.datagram(buffer.get(..len).unwrap_or_default(), from),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {} // What ICMP said about a report; reading it clears it.
            }
        }
        if self.local_motion && self.controller.local_motion(now()) {
            self.recorder.put(now(), What::Local { arm: *self.controller.arm() });
        }
        if now() >= self.report_due {
            self.report_to_all();
        }
    }

    /// The watchdog, before anything else.
    fn tick(&mut self) {
        if self.controller.tick(now()) {
            self.note("watchdog");
        } else {
            self.note("time"); // The owner's keep-alive is no longer current.
        }
    }

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        let body = match self.key.open(bytes) {
            Some(body) => body,
            None if self.fault == Some(Fault::Tag) => device_wire::split_tag(bytes).map_or(bytes, |(body, _)| body),
            None => return self.refuse("tag"),
        };
        let Ok((head, message)) = decode_to_device(body) else { return self.refuse("bytes") };
        let Ok(number) = draw_run() else { return self.refuse("random") };
        match self.peers.hear(now(), &head, from, number) {
            Heard::Old if self.fault == Some(Fault::Replay) => {}
            Heard::Old => return self.refuse("old"),
            Heard::Stranger if self.fault == Some(Fault::Stranger) => {}
            Heard::Stranger => {
                if message != ToDevice::Hello {
                    self.refuse("peer");
                    self.refused_for(head.sender, head.counter, Refused::Peer);
                }
                return self.report_to(head.sender);
            }
            Heard::Counts => {}
        }
        match message {
            ToDevice::Hello => self.report_to(head.sender),
            ToDevice::Act(act) => self.act(head.sender, head.counter, act),
        }
    }

    fn act(&mut self, from: u64, n: u64, act: DeviceAct) {
        self.tick();
        let at = now();
        let outcome = self.controller.act(at, &act);
        if let Some(fence) = outcome.persist {
            self.keeper.want(fence);
        }
        let refused = outcome.verdict.err();
        let why = word_of(&act);
        let moved = outcome.actuated.then(|| *self.controller.arm());
        self.recorder.put(at, What::Act { from, n, act, refused: refused.map(Refused::word), moved });
        if let Some(reason) = refused {
            self.refused_for(from, n, reason);
            self.report_to(from);
        }
        self.note(why);
    }

    /// Tells the record, and everybody, what changed.
    fn note(&mut self, why: &'static str) {
        let status = self.controller.status();
        if status != self.told {
            self.told = status;
            self.recorder.put(now(), What::Change { why, status });
            self.report_to_all();
        }
    }

    fn refuse(&mut self, why: &'static str) {
        self.controller.count_refusal();
        self.recorder.put(now(), What::Datagram { why });
    }

    fn refused_for(&mut self, run: u64, counter: u64, reason: Refused) {
        if let Some(peer) = self.peers.of(run) {
            peer.refused = Some(Refusal { counter, reason });
        }
    }

    fn report_to_all(&mut self) {
        let at = now();
        self.report_due = at.plus(REPORT);
        for peer in self.peers.listening(at) {
            let report = self.controller.report(at, peer.newest, peer.refused);
            let datagram = self.key.tagged(encode_report(&peer.next_head(), &report));
            let _ = self.socket.send_to(&datagram, peer.address); // What is lost is told again in 20 ms.
        }
    }

    fn report_to(&mut self, run: u64) {
        if let Some(peer) = self.peers.of(run) {
            let report = self.controller.report(now(), peer.newest, peer.refused);
            let datagram = self.key.tagged(encode_report(&peer.next_head(), &report));
            let _ = self.socket.send_to(&datagram, peer.address);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            status: self.controller.status(),
            arm: *self.controller.arm(),
            actuated: self.controller.actuated(),
            refusals: self.controller.refusals(),
            lost: self.recorder.lost(),
        }
    }
}

const fn word_of(act: &DeviceAct) -> &'static str {
    match act {
        DeviceAct::KeepAlive { .. } => "keep_alive",
        DeviceAct::Select { .. } => "select",
        DeviceAct::Hold { .. } => "hold",
        DeviceAct::EnergyOff { .. } => "energy_off",
        DeviceAct::Command { .. } => "command",
    }
}
