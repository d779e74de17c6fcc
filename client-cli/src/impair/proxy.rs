//! The link model between real sockets: one thread reads, asks the model, and sends what has arrived.
//!
//! ```text
//! clients ──► listen ──► up link ───► a socket per client ──► target
//! clients ◄── listen ◄── down link ◄─ a socket per client ◄── target
//! ```
//!
//! All clients share the two links, as on one line. A client's socket is its address behind a NAT.

use super::Plan;
use super::alarm::{Alarm, Bell};
use super::report::Report;
use super::socket::Socket;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use trocar_proto::link::{Direction, Link};
use trocar_proto::units::Micros;

/// Packets that one socket gets read, or one link gives out, before the others have their turn.
const BATCH: usize = 64;
/// How often clients are looked after: idle ones, and those whose address changes.
const ROUND: Duration = Duration::from_millis(20);
/// Largest UDP payload, and one byte more.
const PACKET_MAX: usize = 65_536;

/// A packet on its way.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) client: u32,
    bytes: Bytes,
}

struct Client {
    address: SocketAddr,
    socket: Socket,
    /// When its address changes, if that is still to come.
    rebind_at: Option<Micros>,
    heard: Micros,
}

/// The emulator at work.
pub(super) struct Proxy {
    plan: Plan,
    listen: Socket,
    clients: BTreeMap<u32, Client>,
    numbers: HashMap<SocketAddr, u32>,
    next_client: u32,
    up: Link<Parcel>,
    down: Link<Parcel>,
    alarm: Alarm,
    origin: Instant,
    report: Report,
    buffer: Vec<u8>,
}

impl Proxy {
    pub(super) fn new(plan: Plan) -> anyhow::Result<Self> {
        let link = |direction: Direction, config| Link::new(config, direction.seed(plan.seed));
        Ok(Self {
            listen: Socket::bind(plan.listen)?,
            clients: BTreeMap::new(),
            numbers: HashMap::new(),
            next_client: 0,
            up: link(Direction::Up, &plan.profile.up)?,
            down: link(Direction::Down, &plan.profile.down)?,
            alarm: Alarm::start()?,
            origin: Instant::now(),
            report: Report::create(plan.ledger.as_deref(), plan.json)?,
            buffer: vec![0; PACKET_MAX],
            plan,
        })
    }

    /// Where clients send to.
    pub(super) const fn address(&self) -> SocketAddr {
        self.listen.local
    }

    /// For whoever wants it to look up: whether it has been stopped, for one.
    pub(super) fn bell(&self) -> Bell {
        self.alarm.bell()
    }

    /// Works until `stopped`, or for as long as was asked for.
    pub(super) async fn run(mut self, stopped: &AtomicBool) -> anyhow::Result<Report> {
        let round = u64::try_from(ROUND.as_micros()).unwrap_or(u64::MAX);
        let mut next_round = micros_since(self.origin);
        while !stopped.load(Ordering::Relaxed) {
            self.read();
            self.send_due(Direction::Up);
            self.send_due(Direction::Down);
            let now = micros_since(self.origin);
            if self.plan.duration_us.is_some_and(|end| now.0 >= end) {
                break;
            }
            if now >= next_round {
                self.look_after_clients(now);
                next_round = now.plus(round);
            }
            let links = [self.up.next_wakeup(), self.down.next_wakeup()].into_iter().flatten();
            let next = links.fold(next_round, Ord::min);
            if next <= micros_since(self.origin) {
                tokio::task::yield_now().await;
            } else {
                self.alarm.set(self.origin + Duration::from_micros(next.0));
                tokio::select! {
                    () = self.alarm.rung() => {}
                    () = self.readable() => {}
                }
            }
        }
        self.end()
    }

    async fn readable(&self) {
        std::future::poll_fn(|cx| {
            // Each is asked, so that each wakes us.
            let mut ready = self.listen.poll_ready(cx).is_ready();
            for client in self.clients.values() {
                ready |= client.socket.poll_ready(cx).is_ready();
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes in what waits at the sockets, a batch from each.
    fn read(&mut self) {
        for _ in 0..BATCH {
            let Some((len, from)) = self.listen.receive(&mut self.buffer) else { break };
            let now = micros_since(self.origin);
            let Some(client) = self.client_at(from, now) else {
                self.report.refused += 1;
                continue;
            };
            let bytes = Bytes::copy_from_slice(self.buffer.get(..len).unwrap_or_default());
            self.up.handle_packet(now, len as u32, Parcel { client, bytes });
        }
        for (&client, c) in &mut self.clients {
            for _ in 0..BATCH {
                let Some((len, _)) = c.socket.receive(&mut self.buffer) else { break };
                let now = micros_since(self.origin);
                c.heard = now;
                let bytes = Bytes::copy_from_slice(self.buffer.get(..len).unwrap_or_default());
                self.down.handle_packet(now, len as u32, Parcel { client, bytes });
            }
        }
    }

    /// Number of the client at an address; a new one gets a socket, unless there are as many as there may be.
    fn client_at(&mut self, address: SocketAddr, now: Micros) -> Option<u32> {
        if let Some(number) = self.numbers.get(&address) {
            if let Some(client) = self.clients.get_mut(number) {
                client.heard = now;
            }
            return Some(*number);
        }
        if self.clients.len() >= self.plan.clients_max {
            return None;
        }
        let socket = match Socket::connect(self.plan.to) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!("{error:#}");
                return None;
            }
        };
        let number = self.next_client;
        self.next_client += 1;
        self.report.clients += 1;
        let rebind_at = self.plan.profile.rebind_after_s.map(|s| now.plus((s * 1e6) as u64));
        self.clients.insert(number, Client { address, socket, rebind_at, heard: now });
        self.numbers.insert(address, number);
        Some(number)
    }

    /// Sends a batch of what has arrived, and enters it and what was dropped into the ledger.
    fn send_due(&mut self, direction: Direction) {
        let link = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        let now = micros_since(self.origin);
        for _ in 0..BATCH {
            let Some(departure) = link.poll_departure(now) else { break };
            let Parcel { client, bytes } = &departure.payload;
            let turned;
            let bytes: &[u8] = match departure.corrupt_bit {
                Some(bit) => {
                    turned = with_bit_turned(bytes, bit);
                    &turned
                }
                None => bytes,
            };
            let sent = match (self.clients.get(client), direction) {
                (Some(c), Direction::Up) => c.socket.send(bytes, None).is_ok(),
                (Some(c), Direction::Down) => self.listen.send(bytes, Some(c.address)).is_ok(),
                (None, _) => false,
            };
            let sent_at = sent.then(|| micros_since(self.origin));
            self.report.way(direction).enter(&departure.entry, sent_at);
            self.report.write(direction, &departure.entry, *client, sent_at);
        }
        while let Some((entry, parcel)) = link.poll_drop() {
            self.report.write(direction, &entry, parcel.client, None);
        }
    }

    /// Lets go of clients that were silent for long, and gives those a new address whose time has come.
    fn look_after_clients(&mut self, now: Micros) {
        let idle = |c: &Client| now.since(c.heard) > self.plan.idle_us;
        let gone: Vec<u32> = self.clients.iter().filter(|(_, c)| idle(c)).map(|(n, _)| *n).collect();
        for number in gone {
            if let Some(client) = self.clients.remove(&number) {
                self.numbers.remove(&client.address);
                self.report.down.kernel_drops += client.socket.kernel_drops();
            }
        }
        for (number, client) in &mut self.clients {
            if client.rebind_at.is_none_or(|at| at > now) {
                continue;
            }
            client.rebind_at = None;
            match Socket::connect(self.plan.to) {
                Ok(socket) => {
                    // The old socket closes: what the target still sends there is lost, as behind a NAT.
                    let old = std::mem::replace(&mut client.socket, socket);
                    self.report.down.kernel_drops += old.kernel_drops();
                    self.report.rebound(*number, now, old.local, client.socket.local);
                }
                Err(error) => tracing::warn!("client {number} keeps its address: {error:#}"),
            }
        }
    }

    fn end(self) -> anyhow::Result<Report> {
        let seconds = self.origin.elapsed().as_secs_f64();
        let mut report = self.report;
        report.seconds = seconds;
        report.up.kernel_drops += self.listen.kernel_drops();
        report.down.kernel_drops += self.clients.values().map(|c| c.socket.kernel_drops()).sum::<u64>();
        for (direction, link) in [(Direction::Up, self.up), (Direction::Down, self.down)] {
            let (tally, rest) = link.end();
            report.way(direction).tally = tally;
            for (entry, parcel) in rest {
                report.write(direction, &entry, parcel.client, None);
            }
        }
        report.flush()?;
        Ok(report)
    }
}

/// The emulator's clock: it stands at 0 when the emulator starts.
fn micros_since(origin: Instant) -> Micros {
    Micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// A copy in which one bit is the other way round; bit 0 is the highest of the first byte.
fn with_bit_turned(bytes: &[u8], bit: u32) -> Vec<u8> {
    let mut turned = bytes.to_vec();
    if let Some(byte) = turned.get_mut(bit as usize / 8) {
        *byte ^= 0x80 >> (bit % 8);
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_0_is_the_highest_of_the_first_byte() {
        assert_eq!(with_bit_turned(&[0, 0], 0), [0x80, 0]);
        assert_eq!(with_bit_turned(&[0, 0], 15), [0, 1]);
        assert_eq!(with_bit_turned(&[0, 0], 16), [0, 0]);
    }
}
