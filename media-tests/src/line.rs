//! A line between two processes that a test can cut, one way or both, and slow down: a UDP proxy with switches.
//!
//! `trocar impair` is the instrument for lines as they are; this one does one thing at the moment at which the test says so.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients at most: each has a socket of its own towards the server.
const CLIENTS: usize = 8;
/// Packets that are on the way at most; beyond it the newest is lost, as on any line.
const UNDER_WAY: usize = 4_096;

/// The switches.
#[derive(Debug, Default)]
pub struct Switches {
    /// Nothing gets to the server.
    pub up_cut: AtomicBool,
    /// Nothing gets to the client.
    pub down_cut: AtomicBool,
    /// Microseconds that every packet takes longer, each way.
    pub delay: AtomicU64,
    /// Packets in a million that are lost, each way, each by itself.
    pub loss: AtomicU64,
    /// Packets that were lost by that.
    pub lost: AtomicU64,
    /// Packets that were not.
    pub carried: AtomicU64,
    /// Each client's packets come from another port from now on, as after a change of path. Counts up.
    pub rebinds: AtomicU64,
    over: AtomicBool,
}

/// A running line. Ends when dropped.
pub struct Line {
    /// Where clients send to.
    pub address: SocketAddr,
    switches: Arc<Switches>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Line {
    /// A line to that server.
    ///
    /// # Errors
    /// Where no socket can be had.
    pub fn to(server: SocketAddr) -> anyhow::Result<Self> {
        Self::between(([127, 0, 0, 1], 0).into(), server)
    }

    /// The same at an address of one's own choice.
    ///
    /// # Errors
    /// As [`Self::to`].
    pub fn between(front: SocketAddr, server: SocketAddr) -> anyhow::Result<Self> {
        let front = UdpSocket::bind(front)?;
        let address = front.local_addr()?;
        let switches = Arc::new(Switches::default());
        let carried = Carrier {
            front,
            server,
            clients: BTreeMap::new(),
            under_way: BTreeMap::new(),
            number: 0,
            dice: u64::from(address.port()) << 32 | 0x9e37_79b9,
            rebinds: 0,
            switches: Arc::clone(&switches),
        };
        let thread = std::thread::Builder::new().name("line".to_owned()).spawn(move || carried.run())?;
        Ok(Self { address, switches, thread: Some(thread) })
    }

    /// Nothing gets through, or everything again.
    pub fn cut(&self, cut: bool) {
        self.switches.up_cut.store(cut, Ordering::SeqCst);
        self.switches.down_cut.store(cut, Ordering::SeqCst);
    }

    /// The switches by themselves.
    #[must_use]
    pub fn switches(&self) -> &Switches {
        &self.switches
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.switches.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Carrier {
    front: UdpSocket,
    server: SocketAddr,
    /// Client → the socket that stands for it towards the server.
    clients: BTreeMap<SocketAddr, UdpSocket>,
    /// By due time and number: to the server for that client, or to the client.
    under_way: BTreeMap<(Instant, u64), (bool, SocketAddr, Vec<u8>)>,
    number: u64,
    dice: u64,
    rebinds: u64,
    switches: Arc<Switches>,
}

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; 65_536];
        let _ = self.front.set_nonblocking(true);
        while !self.switches.over.load(Ordering::Relaxed) {
            self.rebind();
            let mut idle = true;
            while let Ok((len, from)) = self.front.recv_from(&mut buffer) {
                idle = false;
                self.put(true, from, buffer.get(..len).unwrap_or_default());
            }
            let clients: Vec<SocketAddr> = self.clients.keys().copied().collect();
            for client in clients {
                while let Some(socket) = self.clients.get(&client) {
                    match socket.recv(&mut buffer) {
                        Ok(len) => {
                            idle = false;
                            self.put(false, client, buffer.get(..len).unwrap_or_default());
                        }
                        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                        Err(_) => break,
                    }
                }
            }
            self.deliver();
            if idle {
                // The pace of the line: a test that needs it finer uses `trocar impair`. One that nobody uses disturbs nobody.
                let pace = if self.clients.is_empty() { 5_000 } else { 200 };
                std::thread::park_timeout(Duration::from_micros(pace));
            }
        }
    }

    fn rebind(&mut self) {
        let wanted = self.switches.rebinds.load(Ordering::Relaxed);
        if wanted != self.rebinds {
            self.rebinds = wanted;
            let clients: Vec<SocketAddr> = std::mem::take(&mut self.clients).into_keys().collect();
            clients.into_iter().for_each(|c| self.know(c));
        }
    }

    fn know(&mut self, client: SocketAddr) {
        if self.clients.contains_key(&client) || self.clients.len() >= CLIENTS {
            return;
        }
        let socket = UdpSocket::bind("127.0.0.1:0").and_then(|s| {
            s.connect(self.server)?;
            s.set_nonblocking(true)?;
            Ok(s)
        });
        if let Ok(socket) = socket {
            self.clients.insert(client, socket);
        }
    }

    fn put(&mut self, up: bool, client: SocketAddr, packet: &[u8]) {
        let cut = if up { &self.switches.up_cut } else { &self.switches.down_cut };
        if cut.load(Ordering::SeqCst) || self.under_way.len() >= UNDER_WAY {
            return;
        }
        if self.loses() {
            return;
        }
        self.know(client);
        self.number += 1;
        let due = Instant::now() + Duration::from_micros(self.switches.delay.load(Ordering::Relaxed));
        self.under_way.insert((due, self.number), (up, client, packet.to_vec()));
    }

    /// One throw of xorshift64 (Marsaglia 2003); each line has a seed of its own, so that losses of two lines are independent.
    fn loses(&mut self) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let lost = self.dice % 1_000_000 < self.switches.loss.load(Ordering::Relaxed);
        let counter = if lost { &self.switches.lost } else { &self.switches.carried };
        counter.fetch_add(1, Ordering::Relaxed);
        lost
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (up, client, packet) = entry.remove();
            if up {
                if let Some(socket) = self.clients.get(&client) {
                    let _ = socket.send(&packet);
                }
            } else {
                let _ = self.front.send_to(&packet, client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers everything, and a client on the line.
    fn pair() -> (UdpSocket, Line, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let line = Line::to(server.local_addr().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(line.address).unwrap();
        for s in [&server, &client] {
            s.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        (server, line, client)
    }

    #[test]
    fn what_is_sent_arrives_until_the_line_is_cut_and_again_after() {
        let (server, line, client) = pair();
        let mut b = [0; 16];
        client.send(b"one").unwrap();
        let (len, from) = server.recv_from(&mut b).unwrap();
        assert_eq!(&b[..len], b"one");
        server.send_to(b"two", from).unwrap();
        assert_eq!(client.recv(&mut b).unwrap(), 3);
        line.cut(true);
        client.send(b"lost").unwrap();
        assert!(server.recv_from(&mut b).is_err());
        line.cut(false);
        client.send(b"again").unwrap();
        assert_eq!(server.recv_from(&mut b).unwrap().0, 5);
    }

    #[test]
    fn so_many_packets_are_lost_as_it_was_told_to_lose() {
        let (server, line, client) = pair();
        line.switches().loss.store(100_000, Ordering::Relaxed);
        let mut b = [0; 16];
        for n in 0..2_000_u32 {
            client.send(&n.to_be_bytes()).unwrap();
            if n % 50 == 49 {
                server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                while server.recv_from(&mut b).is_ok() {}
            }
        }
        let [lost, carried] = [&line.switches().lost, &line.switches().carried].map(|n| n.load(Ordering::Relaxed));
        assert_eq!(lost + carried, 2_000);
        assert!((140..260).contains(&lost), "{lost}");
    }

    #[test]
    fn a_delay_is_kept_and_a_rebound_client_comes_from_another_port() {
        let (server, line, client) = pair();
        let mut b = [0; 16];
        line.switches().delay.store(50_000, Ordering::Relaxed);
        let began = Instant::now();
        client.send(b"slow").unwrap();
        let (_, from) = server.recv_from(&mut b).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
        line.switches().rebinds.fetch_add(1, Ordering::Relaxed);
        client.send(b"moved").unwrap();
        assert_ne!(server.recv_from(&mut b).unwrap().1, from);
    }
}
