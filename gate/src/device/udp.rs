//! A controller behind UDP: one connected socket that never waits, one thread that reads.

use super::key::draw_run;
use super::seen::{Judge, Reports};
use super::{Counters, DeviceError, Key, PayloadFormat, count};
use crate::fail_stop::{self, Asked};
use crate::{core, realtime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trocar_proto::handover::device_wire::{Head, MAX_DATAGRAM, Report, ToDevice, decode_report, encode_to_device};
use trocar_proto::handover::gate::{DeviceAct, Judgement};
use trocar_proto::handover::message::Pose;

/// Without a report for so long the reader asks for one, in nanoseconds.
const ASK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Datagrams that are read in one go. Of these only the newest report is handed on: it says all that the others said, and a process
/// that was paused does not work through its backlog.
const BATCH: usize = 1_024;

/// The core's end.
#[derive(Debug)]
pub(super) struct Udp {
    link: Arc<Link>,
    judge: Judge,
    payload: PayloadFormat,
}

impl Udp {
    pub(super) fn open(
        address: SocketAddr,
        key: Key,
        payload: PayloadFormat,
        reports: Reports,
        counters: Arc<Counters>,
    ) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::Socket { address, source };
        let socket = UdpSocket::bind(super::any_of(address)).map_err(failed)?;
        socket.connect(address).and_then(|()| socket.set_nonblocking(true)).map_err(failed)?;
        let link = Arc::new(Link {
            socket,
            key,
            run: draw_run().map_err(failed)?,
            peer: AtomicU64::new(0),
            counter: Mutex::new(0),
            sent: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            counters,
        });
        let judge = reports.judge();
        let reader = Reader { ear: Ear::new(link.run), link: Arc::clone(&link), reports };
        fail_stop::spawn("trocar-device", move || Ok(reader.run())).map_err(DeviceError::Thread)?;
        Ok(Self { link, judge, payload })
    }
}

impl Drop for Udp {
    /// The reader ends within its next wait.
    fn drop(&mut self) {
        self.link.closed.store(true, Ordering::Relaxed);
    }
}

impl core::Device for Udp {
    fn act(&mut self, act: &DeviceAct) {
        if self.payload.allows(act) {
            let counter = self.link.counter.lock().unwrap_or_else(PoisonError::into_inner);
            self.link.send(counter, &ToDevice::Act(act.clone()));
        } else {
            count(&self.link.counters.outside);
        }
    }

    fn judge(&mut self, pose: &Pose) -> Judgement {
        self.judge.judge(pose)
    }
}

/// What both threads have.
#[derive(Debug)]
struct Link {
    socket: UdpSocket,
    key: Key,
    /// This run of the adapter.
    run: u64,
    /// How the device wants to be addressed, 0 before it said so.
    peer: AtomicU64,
    /// The last one sent. The reader takes it only while the device is silent, and never waits for it.
    counter: Mutex<u64>,
    /// The same, to look at.
    sent: AtomicU64,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

impl Link {
    /// Numbers and sends in one step, so that what is numbered first is on the wire first.
    fn send(&self, mut counter: std::sync::MutexGuard<'_, u64>, message: &ToDevice) {
        *counter += 1;
        self.sent.store(*counter, Ordering::Relaxed);
        let head = Head { sender: self.run, counter: *counter, peer: self.peer.load(Ordering::Relaxed) };
        let datagram = self.key.tagged(encode_to_device(&head, message));
        match send(&self.socket, &datagram) {
            Ok(_) => count(&self.counters.sent),
            Err(_) => count(&self.counters.lost),
        }
    }
}

/// Once more where the kernel reports what ICMP said about an earlier datagram: it gives that error to whoever calls next, and sends
/// nothing then, so a stop would be lost to a device that has just come back.
fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<usize> {
    match socket.send(datagram) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => socket.send(datagram),
        sent => sent,
    }
}

/// Reads reports until the adapter is dropped.
struct Reader {
    link: Arc<Link>,
    ear: Ear,
    reports: Reports,
}

impl Reader {
    fn run(mut self) -> Asked {
        realtime::claim();
        self.ask();
        while !self.link.closed.load(Ordering::Relaxed) {
            let waited = poll(&mut [PollFd::new(&self.link.socket, PollFlags::IN)], Some(&ASK));
            let heard = waited.is_ok_and(|ready| ready > 0) && self.read();
            if !heard {
                self.ask();
            }
        }
        Asked
    }

    /// True where a report counted.
    fn read(&mut self) -> bool {
        let mut newest = None;
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for _ in 0..BATCH {
            let len = match self.link.socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // What ICMP said about something sent before: nobody listens there. Reading it clears it.
                Err(_) => continue,
            };
            match buffer.get(..len).and_then(|datagram| self.accept(datagram)) {
                Some(report) => newest = Some(report),
                None => count(&self.link.counters.refused),
            }
        }
        newest.inspect(|report| self.reports.take(report)).is_some()
    }

    fn accept(&mut self, datagram: &[u8]) -> Option<Report> {
        let (head, report) = decode_report(self.link.key.open(datagram)?).ok()?;
        self.ear.accept(&head, report.echo, self.link.sent.load(Ordering::Relaxed)).then(|| {
            self.link.peer.store(head.sender, Ordering::Relaxed);
            report
        })
    }

    fn ask(&self) {
        if let Ok(counter) = self.link.counter.try_lock() {
            self.link.send(counter, &ToDevice::Hello);
        }
    }
}

/// Tells reports of now from recorded ones.
#[derive(Debug)]
pub(super) struct Ear {
    run: u64,
    peer: u64,
    newest: u64,
    echo: u64,
}

impl Ear {
    pub(super) const fn new(run: u64) -> Self {
        Self { run, peer: 0, newest: 0, echo: 0 }
    }

    /// From the device that is known: above its newest counter. From a run of it that is not: only if it answers something that no
    /// report answered before, which no recording can.
    pub(super) fn accept(&mut self, head: &Head, echo: u64, sent: u64) -> bool {
        let is_new = if head.sender == self.peer { head.counter > self.newest } else { echo > self.echo };
        if head.peer != self.run || echo > sent || !is_new {
            return false;
        }
        (self.peer, self.newest, self.echo) = (head.sender, head.counter, self.echo.max(echo));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn head(sender: u64, counter: u64) -> Head {
        Head { sender, counter, peer: 9 }
    }

    /// A connected socket with a pending refusal, and the device that comes back at the address that refused.
    fn refused_once() -> (UdpSocket, UdpSocket) {
        let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = device.local_addr().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        drop(device);
        socket.send(b"to nobody").unwrap();
        let pending = poll(&mut [PollFd::new(&socket, PollFlags::empty())], Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
        assert_eq!(pending, Ok(1), "ICMP said nothing");
        (socket, UdpSocket::bind(address).unwrap())
    }

    #[test]
    fn a_refusal_of_an_earlier_datagram_does_not_lose_a_later_one() {
        // HO-S-005
        let (socket, _device) = refused_once();
        let plain = socket.send(b"stop").map_err(|e| e.kind());
        assert_eq!(plain, Err(ErrorKind::ConnectionRefused), "the negative control");

        let (socket, device) = refused_once();
        assert_eq!(send(&socket, b"stop").unwrap(), 4);
        device.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        let len = device.recv(&mut buffer).unwrap();
        assert_eq!(buffer.get(..len), Some(&b"stop"[..]));
    }

    #[test]
    fn a_report_counts_once_and_only_for_the_run_that_it_is_for() {
        let mut ear = Ear::new(9);
        assert!(ear.accept(&head(5, 1), 1, 1));
        assert!(!ear.accept(&head(5, 1), 1, 1), "the same again");
        assert!(ear.accept(&head(5, 7), 1, 1), "some were lost");
        assert!(!ear.accept(&head(5, 6), 1, 1));
        assert!(!ear.accept(&Head { peer: 8, ..head(5, 8) }, 1, 1), "for another gate");
        assert!(!ear.accept(&head(5, 8), 2, 1), "answers what was never sent");
    }

    #[test]
    fn a_device_that_restarted_is_heard_and_a_recording_of_an_earlier_run_is_not() {
        let mut ear = Ear::new(9);
        assert!(ear.accept(&head(5, 100), 40, 41));
        assert!(ear.accept(&head(6, 1), 41, 41), "new run");
        assert!(!ear.accept(&head(5, 101), 41, 41), "the old one's last words");
        assert!(!ear.accept(&head(5, 50), 20, 60));
        assert!(ear.accept(&head(6, 2), 41, 60));
    }
}
