//! Two gates to play, and what they see of the device.

use super::super::udp::Ear;
use super::super::{any_of, draw_run};
use super::{ConformanceError, Target};
use crate::core::now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use trocar_proto::handover::device_wire::{
    Head, MAX_DATAGRAM, Refused, Report, ToDevice, decode_report, encode_to_device,
};
use trocar_proto::handover::gate::DeviceAct;
use trocar_proto::handover::message::Payload;
use trocar_proto::handover::types::{BootId, Counter, Epoch, GrantedSet, Selection};
use trocar_proto::units::Micros;

/// Longest wait for the answer to one act, in microseconds.
const ANSWER: u64 = 1_000_000;
/// Longest wait for anything that takes the device some time: its start, its disk, a gate that has to lapse.
pub(super) const PATIENCE: u64 = 5_000_000;

/// What was wrong, for the table.
pub(super) type Wrong = String;

/// A gate, as far as the device can see.
pub(super) struct Gate {
    socket: UdpSocket,
    target: Target,
    pub(super) boot: BootId,
    run: u64,
    counter: u64,
    peer: u64,
    ear: Ear,
    newest: Option<(Report, Micros)>,
}

impl Gate {
    fn open(target: &Target) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_of(target.address))?;
        socket.connect(target.address)?;
        socket.set_nonblocking(true)?;
        let run = draw_run()?;
        let boot = BootId(u128::from(draw_run()?) << 64 | u128::from(run));
        let (target, ear) = (target.clone(), Ear::new(run));
        Ok(Self { socket, target, boot, run, counter: 0, peer: 0, ear, newest: None })
    }

    /// The bytes of the next datagram, authentic.
    pub(super) fn next_datagram(&mut self, message: &ToDevice, peer: Option<u64>) -> Vec<u8> {
        self.counter += 1;
        let head = Head { sender: self.run, counter: self.counter, peer: peer.unwrap_or(self.peer) };
        self.target.key.tagged(encode_to_device(&head, message))
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        // What ICMP says of an earlier one is told once; the next goes out.
        if self.socket.send(bytes).is_err() {
            let _ = self.socket.send(bytes);
        }
    }

    fn send(&mut self, message: &ToDevice) {
        let bytes = self.next_datagram(message, None);
        self.send_bytes(&bytes);
    }

    pub(super) fn send_act(&mut self, act: DeviceAct) {
        self.send(&ToDevice::Act(act));
    }

    pub(super) fn keep_alive(&mut self, fence: Epoch) {
        let boot = self.boot;
        self.send_act(DeviceAct::KeepAlive { boot, fence });
    }

    /// Waits for something to read, then reads all that is there.
    pub(super) fn read(&mut self, wait: u64) -> bool {
        let ns = i64::try_from(wait.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let wait = Timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&wait));
        let (mut buffer, mut heard) = ([0; MAX_DATAGRAM + 1], false);
        for _ in 0..64 {
            let len = match self.socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            let body = buffer.get(..len).and_then(|bytes| self.target.key.open(bytes));
            if let Some(Ok((head, report))) = body.map(decode_report)
                && self.ear.accept(&head, report.echo, self.counter)
            {
                self.peer = head.sender;
                self.newest = Some((report, now()));
                heard = true;
            }
        }
        heard
    }

    /// Asks until a report answers what was sent last.
    pub(super) fn ask(&mut self, patience: u64) -> Result<Report, Wrong> {
        let until = now().plus(patience);
        let sent = self.counter;
        while now() < until {
            self.send(&ToDevice::Hello);
            let again = now().plus(20_000);
            while now() < again {
                self.read(again.since(now()));
                if let Some((report, _)) = self.newest.as_ref().filter(|(report, _)| report.echo > sent) {
                    return Ok(report.clone());
                }
            }
        }
        Err(format!("no report that answers within {} ms", patience / 1_000))
    }

    /// Hands over an act and asks what came of it.
    pub(super) fn act(&mut self, act: DeviceAct) -> Result<(Result<(), Refused>, Report), Wrong> {
        self.send_act(act);
        let n = self.counter;
        let report = self.ask(ANSWER)?;
        let refused = report.refused.filter(|refusal| refusal.counter == n).map(|refusal| refusal.reason);
        Ok((refused.map_or(Ok(()), Err), report))
    }

    /// What the device says by itself, without being asked, until it says this. Gives the report and when it came.
    pub(super) fn until(
        &mut self,
        patience: u64,
        what: impl Fn(&Report) -> bool,
        mut meanwhile: impl FnMut(&mut Self),
    ) -> Option<(Report, Micros)> {
        let until = now().plus(patience);
        while now() < until {
            meanwhile(self);
            if self.read(5_000)
                && let Some((report, at)) = self.newest.clone().filter(|(report, _)| what(report))
            {
                return Some((report, at));
            }
        }
        None
    }
}

/// Two gates and the rules of the house.
pub(super) struct Bench {
    pub(super) a: Gate,
    pub(super) b: Gate,
    pub(super) target: Target,
    /// The device's watchdog, as it says itself, in microseconds.
    pub(super) watchdog: u64,
    /// The fence that `a` uses.
    pub(super) fence: Epoch,
    sequence: u64,
}

impl Bench {
    pub(super) fn open(target: &Target) -> Result<Self, ConformanceError> {
        let (mut a, mut b) = (Gate::open(target)?, Gate::open(target)?);
        let silent = |_| ConformanceError::Silent { address: target.address, ms: PATIENCE / 1_000 };
        let report = a.ask(PATIENCE).map_err(silent)?;
        b.ask(PATIENCE).map_err(silent)?;
        let (watchdog, fence) = (report.watchdog.into(), report.device.highest);
        Ok(Self { a, b, target: target.clone(), watchdog, fence, sequence: 0 })
    }

    /// Nobody is selected any more.
    pub(super) fn leave(&mut self) {
        let _ = self.select_anew(Selection::Nobody);
    }

    /// The next sequence under the present fence.
    pub(super) const fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) fn select(&mut self, to: Selection) -> DeviceAct {
        let (boot, fence, sequence) = (self.a.boot, self.fence, self.next());
        DeviceAct::Select { boot, to, fence, sequence }
    }

    /// A command that moves nothing.
    pub(super) fn command(&mut self) -> DeviceAct {
        let payload = self.target.still();
        self.command_with(GrantedSet::INSTRUMENTS, false, payload)
    }

    pub(super) fn command_with(&mut self, set: GrantedSet, energy: bool, payload: Vec<u8>) -> DeviceAct {
        let (fence, sequence) = (self.fence, self.next());
        let payload = Payload::new(payload).unwrap_or_default();
        DeviceAct::Command { fence, sequence, counter: Counter(sequence), set, energy, payload }
    }

    /// Waits, with keep-alives of `a`.
    pub(super) fn wait(&mut self, time: u64) {
        let (until, fence) = (now().plus(time), self.fence);
        while now() < until {
            self.a.keep_alive(fence);
            self.a.read(until.since(now()).min(self.watchdog / 5));
        }
    }

    /// `a` selects with a fence above all; waits for another gate to lapse where it must.
    pub(super) fn select_anew(&mut self, to: Selection) -> Result<Report, Wrong> {
        let until = now().plus(PATIENCE + 2 * self.watchdog);
        loop {
            let report = self.a.ask(PATIENCE)?;
            self.fence = Epoch(report.device.highest.0.max(self.fence.0).saturating_add(1));
            self.sequence = 0;
            let select = self.select(to);
            let (verdict, report) = self.a.act(select)?;
            match verdict {
                Ok(()) if report.device.selected == to && report.device.highest == self.fence => return Ok(report),
                Ok(()) => return Err(format!("preparing: {} selected, not {to:?}", seen(&report))),
                // The override is ended by local alone.
                Err(Refused::Overridden) if to != Selection::Local && now() < until => {
                    self.select_anew(Selection::Local)?;
                }
                Err(Refused::NotOwner) if now() < until => {
                    self.a.read(20_000);
                }
                Err(reason) => return Err(format!("preparing: a selection with a higher fence was refused: {reason}")),
            }
        }
    }

    /// Remote is selected under a new fence that is durable, and a command was actuated.
    pub(super) fn remote(&mut self) -> Result<(), Wrong> {
        self.select_anew(Selection::Remote)?;
        let until = now().plus(PATIENCE);
        loop {
            let command = self.command();
            match self.a.act(command)? {
                (Ok(()), _) => return Ok(()),
                (Err(Refused::NotDurable), _) if now() < until => self.wait(2_000),
                (Err(reason), _) => return Err(format!("preparing: a command was refused: {reason}")),
            }
        }
    }

    /// Remote is selected, then `a` falls silent until the watchdog holds. Gives the report and the time between the last keep-alive
    /// and the report.
    pub(super) fn latched(&mut self) -> Result<(Report, u64), Wrong> {
        let fence = self.fence;
        self.a.keep_alive(fence);
        let from = now();
        let patience = 4 * self.watchdog + self.target.margin;
        let held = self.a.until(patience, |report| report.device.latched, |_| ());
        let (report, at) = held.ok_or_else(|| format!("no hold within {} ms of silence", patience / 1_000))?;
        Ok((report, at.since(from)))
    }

    /// How long the hold may take.
    pub(super) const fn latest(&self) -> u64 {
        self.watchdog + self.target.margin
    }
}

/// A report in a few words.
pub(super) fn seen(report: &Report) -> String {
    let device = &report.device;
    let flag = |set: bool, word: &'static str| if set { word } else { "" };
    format!(
        "{:?}, fence {}, sequence {}{}{}{}{}",
        device.selected,
        device.highest.0,
        device.sequence,
        flag(device.latched, ", latched"),
        flag(device.overridden, ", overridden"),
        flag(device.energy, ", energy on"),
        flag(device.held, ", held"),
    )
}

/// The act must have been refused; gives the reason.
pub(super) fn refused(what: &str, answer: (Result<(), Refused>, Report)) -> Result<(Refused, Report), Wrong> {
    match answer {
        (Err(reason), report) => Ok((reason, report)),
        (Ok(()), report) => Err(format!("{what} was taken: {}", seen(&report))),
    }
}

/// The act must have been taken.
pub(super) fn taken(what: &str, answer: (Result<(), Refused>, Report)) -> Result<Report, Wrong> {
    match answer {
        (Ok(()), report) => Ok(report),
        (Err(reason), _) => Err(format!("{what} was refused: {reason}")),
    }
}

/// It must be so.
pub(super) fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
