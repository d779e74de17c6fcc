//! Plain UDP through as many processes as a command crosses: what this machine and its scheduler take for the same way, without
//! anything of ours on it.

use super::Figures;
use crate::process::{Process, binary};
use crate::sentinel::{Sentinel, boot_us};
use crate::stack::PATIENCE;
use anyhow::Context;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What QUIC puts around a sealed command at most: header 1, connection id 8, packet number 4, frame type and length 3, receiver's number 2,
/// tag 16.
pub const OVERHEAD: usize = 34;
/// Bytes of a datagram: about a sealed command of the trajectory and [`OVERHEAD`].
pub const BYTES: usize = 136;
/// Processes between the two ends, as relay and gate.
const FORWARDERS: usize = 2;
/// Datagrams at most: ten minutes. Beyond it none is sent.
const MOST: usize = 600_000;
/// The last ones are waited for so long.
const TAIL: Duration = Duration::from_millis(500);

/// When it left, and when it came, boot clock.
pub type Datagram = (u64, Option<u64>);

/// Two forwarders, each a process.
pub struct Chain {
    first: SocketAddr,
    end: UdpSocket,
    _forwarders: Vec<Process>,
}

impl Chain {
    /// Starts them.
    ///
    /// # Errors
    /// Where one cannot be started.
    pub fn open() -> anyhow::Result<Self> {
        let end = UdpSocket::bind("127.0.0.1:0")?;
        end.set_read_timeout(Some(TAIL))?;
        let (mut first, mut forwarders) = (end.local_addr()?, Vec::new());
        for n in 0..FORWARDERS {
            let mut command = Command::new(binary("trocar-bench-control")?);
            let mut forwarder =
                Process::start(&format!("forwarder {n}"), command.args(["forward", &first.to_string()]))?;
            first = forwarder.line(PATIENCE, |l| l.parse::<SocketAddr>().is_ok())?.parse()?;
            forwarders.push(forwarder);
        }
        Ok(Self { first, end, _forwarders: forwarders })
    }

    /// Sends 1,000 datagrams a second while `work` is done; when each left and came.
    ///
    /// # Errors
    /// The work's own, or where a thread cannot be started.
    pub fn pump(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Vec<Datagram>> {
        let over = Arc::new(AtomicBool::new(false));
        let (socket, first, stop) = (UdpSocket::bind("127.0.0.1:0")?, self.first, Arc::clone(&over));
        let sender = std::thread::Builder::new().name("plain-send".to_owned());
        let sender = sender.spawn(move || send(&socket, first, &stop)).context("no thread")?;
        let (end, stop) = (self.end.try_clone()?, Arc::clone(&over));
        let receiver = std::thread::Builder::new().name("plain-receive".to_owned());
        let receiver = receiver.spawn(move || receive(&end, &stop)).context("no thread")?;
        let done = work();
        over.store(true, Ordering::SeqCst);
        let left = sender.join().ok().context("the sender of plain datagrams ended")?;
        let came = receiver.join().ok().context("the receiver of plain datagrams ended")?;
        done?;
        let mut all: Vec<Datagram> = left.into_iter().map(|at| (at, None)).collect();
        for (n, at) in came {
            if let Some(datagram) = all.get_mut(n) {
                datagram.1 = Some(at);
            }
        }
        Ok(all)
    }
}

/// As a station's trajectory does it: one a millisecond; where the thread slept, the schedule moves.
fn send(socket: &UdpSocket, to: SocketAddr, over: &AtomicBool) -> Vec<u64> {
    let interval = 1_000_000 / u64::from(super::HZ);
    let (mut left, mut due) = (Vec::new(), boot_us());
    let mut bytes = [0; BYTES];
    while !over.load(Ordering::SeqCst) && left.len() < MOST {
        std::thread::sleep(Duration::from_micros(due.saturating_sub(boot_us())));
        let now = boot_us();
        due = if now > due + 5 * interval { now + interval } else { due + interval };
        if let Some(head) = bytes.first_chunk_mut() {
            *head = (left.len() as u64).to_be_bytes();
        }
        left.push(boot_us());
        let _ = socket.send_to(&bytes, to); // not taken: it does not come
    }
    left
}

fn receive(end: &UdpSocket, over: &AtomicBool) -> Vec<(usize, u64)> {
    let (mut came, mut buffer) = (Vec::new(), [0; 2 * BYTES]);
    loop {
        match end.recv(&mut buffer) {
            Ok(_) => {
                let at = boot_us();
                let number = buffer.first_chunk().map_or(u64::MAX, |head| u64::from_be_bytes(*head));
                came.push((usize::try_from(number).unwrap_or(usize::MAX), at));
            }
            // Nothing for a while.
            Err(_) if over.load(Ordering::SeqCst) => return came,
            Err(_) => {}
        }
    }
}

/// What a forwarder does: says where it is, and passes on whatever comes, for ever.
///
/// # Errors
/// Where it has no socket.
pub fn forward(next: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    println!("{}", socket.local_addr()?);
    let mut buffer = [0; 2 * BYTES];
    loop {
        let len = socket.recv(&mut buffer)?;
        let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), next);
    }
}

/// The times of those that came.
#[must_use]
pub fn figures(datagrams: &[Datagram], sentinel: &Sentinel) -> Figures {
    let mut figures = Figures::default();
    for (from, to) in datagrams {
        if let Some(to) = to {
            figures.note(sentinel.stalled(*from, *to), *from, *to);
        }
    }
    figures
}
