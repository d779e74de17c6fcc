//! The end that is measured against, with its sockets and threads: `trocar link serve` and relays with `[link_test]` run it. None of its
//! threads carries media.

use super::clock::Clock;
use super::sender::{Flow, Progress};
use super::socket::{Nothing, Socket};
use crate::measure::packet::PACKET_BYTES_MAX;
use crate::measure::responder::{Datagram, Doors, Limits, Output, Responder};
use crate::measure::{PORT, Stamp};
use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Flows that end at a time and are not yet noted. Loss policy: their threads wait.
const ENDED: usize = 64;
/// Pongs that wait for their time. Loss policy: one more is not sent.
const LATER_MAX: usize = 64;
/// A flow begins so long after it was asked for, in microseconds: the answer goes first.
const BEGIN_US: Stamp = 5_000;
/// How often silent sessions are looked for, in microseconds.
const ROUND_US: Stamp = 500_000;
/// A grant outlives the longest measurement by so much, in microseconds: from the asking to the first packet.
const GRANT_MORE_US: Stamp = 30_000_000;

/// Who may measure.
pub enum Who {
    /// Whoever has this key; an empty one is everybody's.
    HasKey(Vec<u8>),
    /// Whoever was given a grant.
    HasGrant,
}

/// How it is opened.
pub struct Opened {
    /// Where, UDP and TCP; the next two ports are used too. All addresses where left out.
    pub listen: Option<SocketAddr>,
    /// Who may measure.
    pub who: Who,
    /// What they may.
    pub limits: Limits,
    /// What it calls itself.
    pub program: String,
    /// Who began, who ended.
    pub note: fn(&str),
}

/// What lets one measurement in.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number: the upper half of what the client draws.
    pub number: u32,
    /// Its key.
    pub key: [u8; 32],
}

/// It runs. [`Responding::stop`] ends it.
pub struct Responding {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
    /// Where it answers, UDP and TCP.
    pub listen: SocketAddr,
    /// UDP, for how a NAT maps.
    pub second_port: u16,
    /// UDP, for QUIC.
    pub quic_port: u16,
    seconds_max: f64,
}

struct Server {
    responder: Mutex<Responder>,
    clock: Clock,
    flows: Mutex<BTreeMap<(u64, u16), Sending>>,
    later: Mutex<Vec<(Stamp, SocketAddr, Vec<u8>)>>,
    ended: SyncSender<((u64, u16), u32)>,
    stopped: AtomicBool,
    /// Why everything is to end.
    end: Mutex<Option<String>>,
    note: fn(&str),
}

struct Sending {
    to: Arc<Mutex<SocketAddr>>,
    progress: Arc<Progress>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Responding {
    /// Opens its ports and starts its threads; QUIC is answered on the runtime.
    ///
    /// # Errors
    /// Names the port that cannot be opened.
    pub fn start(runtime: &tokio::runtime::Handle, opened: Opened) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let first = match opened.listen {
            Some(at) => Socket::bind(at, clock)?,
            // A machine without IPv6 has the other.
            None => Socket::bind(SocketAddr::new([0_u16; 8].into(), PORT), clock)
                .or_else(|_| Socket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT), clock))?,
        };
        let listen = first.local()?;
        let beside = |port: Option<u16>| Socket::bind(SocketAddr::new(listen.ip(), port.unwrap_or(0)), clock);
        let second = beside(listen.port().checked_add(1)).or_else(|_| beside(None))?;
        let second_port = second.local()?.port();
        let tcp = TcpListener::bind(listen).with_context(|| format!("cannot open TCP {listen}"))?;
        tcp.set_nonblocking(true)?;
        let third = SocketAddr::new(listen.ip(), listen.port().checked_add(2).unwrap_or(0));
        let (endpoint, door) = {
            let _inside = runtime.enter();
            super::quic::open(third)?
        };
        let quic_port = door.port;
        runtime.spawn(super::quic::serve(endpoint));
        if first.buffer_bytes() < 4 << 20 {
            tracing::warn!("the kernel holds {} bytes of what comes: net.core.rmem_max is small", first.buffer_bytes());
        }
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok().context("no random numbers")?;
        let doors = Doors { second_port: Some(second_port), quic: Some(door) };
        let seconds_max = opened.limits.seconds_max;
        let responder = match &opened.who {
            Who::HasKey(key) => Responder::new(&secret, key, opened.limits, &opened.program, doors),
            Who::HasGrant => Responder::for_grants(&secret, opened.limits, &opened.program, doors),
        };
        let (ended, endings) = sync_channel(ENDED);
        let server = Arc::new(Server {
            responder: Mutex::new(responder),
            clock,
            flows: Mutex::default(),
            later: Mutex::default(),
            ended,
            stopped: AtomicBool::new(false),
            end: Mutex::default(),
            note: opened.note,
        });
        let threads = threads(&server, (first, second), tcp, endings)?;
        Ok(Self { server, threads, listen, second_port, quic_port, seconds_max })
    }

    /// Lets one measurement in; none where as many as may be are let in already.
    ///
    /// # Errors
    /// Where there are no random numbers.
    pub fn grant(&self) -> anyhow::Result<Option<Grant>> {
        let (mut number, mut key) = ([0; 4], [0; 32]);
        let random = SystemRandom::new();
        random.fill(&mut number).and_then(|()| random.fill(&mut key)).ok().context("no random numbers")?;
        let number = u32::from_be_bytes(number);
        let now = self.server.clock.now();
        let until = now + (self.seconds_max * 1e6) as Stamp + GRANT_MORE_US;
        let taken = locked(&self.server.responder).handle_grant(number, &key, now, until);
        Ok(taken.then_some(Grant { number, key }))
    }

    /// Measurements that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        locked(&self.server.responder).sessions()
    }

    /// Ends everything within a few hundredths of a second, and forgets what was let in.
    pub fn end_all(&self, why: &str) {
        *locked(&self.server.end) = Some(why.to_owned());
    }

    /// Closes, and waits until its threads have ended.
    pub fn stop(self) {
        self.server.stopped.store(true, Ordering::Relaxed);
        for flow in locked(&self.server.flows).values() {
            flow.progress.stop.store(true, Ordering::Relaxed);
        }
        for t in self.threads {
            let _ = t.join();
        }
    }
}

fn threads(
    server: &Arc<Server>,
    (first, second): (Socket, Socket),
    tcp: TcpListener,
    endings: Receiver<((u64, u16), u32)>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let (own, flows) = (Arc::clone(server), first.another()?);
    let mut threads = vec![thread("link").spawn(move || own.work(&first, &flows, Some(&endings)))?];
    let own = Arc::clone(server);
    let flows = second.another()?;
    threads.push(thread("link-second").spawn(move || own.work(&second, &flows, None))?);
    let own = Arc::clone(server);
    threads.push(thread("link-tcp").spawn(move || own.accept(&tcp))?);
    Ok(threads)
}

impl Server {
    fn work(self: &Arc<Self>, socket: &Socket, flows: &Socket, endings: Option<&Receiver<((u64, u16), u32)>>) {
        let mut buffer = vec![0; PACKET_BYTES_MAX + 1];
        let mut out = Vec::new();
        let mut next_round = self.clock.now();
        while !self.stopped.load(Ordering::Relaxed) {
            match socket.receive(&mut buffer) {
                Ok(came) => {
                    let bytes = buffer.get(..came.len).unwrap_or_default();
                    let d = Datagram { from: came.from, at: came.at, tos: came.tos, bytes };
                    locked(&self.responder).handle_packet(d, || self.clock.now(), &mut out);
                }
                Err(Nothing::Quiet | Nothing::Refused) => {}
                Err(Nothing::Broken(error)) => {
                    tracing::warn!(%error, "cannot read");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            for id in endings.into_iter().flat_map(Receiver::try_iter) {
                locked(&self.responder).handle_flow_ended(id.0, id.1);
                locked(&self.flows).remove(&id.0);
            }
            let now = self.clock.now();
            if let Some(why) = endings.and_then(|_| locked(&self.end).take()) {
                locked(&self.responder).end_all(&why, &mut out);
            }
            if endings.is_some() && now >= next_round {
                locked(&self.responder).handle_timeout(now, &mut out);
                next_round = now + ROUND_US;
            }
            for output in out.drain(..) {
                self.perform(output, socket, flows);
            }
            if endings.is_some() {
                self.send_later(socket, now);
            }
        }
    }

    fn perform(self: &Arc<Self>, output: Output, socket: &Socket, flows: &Socket) {
        match output {
            Output::Send { to, bytes } => {
                if let Err(error) = socket.send(&bytes, to, 0) {
                    tracing::debug!(%error, %to, "cannot send");
                }
            }
            Output::Later { seconds, to, bytes } => {
                let mut later = locked(&self.later);
                if later.len() < LATER_MAX {
                    later.push((self.clock.now() + Stamp::from(seconds) * 1_000_000, to, bytes));
                }
            }
            Output::Start { id, to, key, flow } => {
                let (to, progress) = (Arc::new(Mutex::new(to)), Arc::new(Progress::default()));
                locked(&self.flows).insert(id, Sending { to: Arc::clone(&to), progress: Arc::clone(&progress) });
                let Ok(socket) = flows.another() else { return self.end(id, 0) };
                let (session, phase) = id;
                let (clock, begin) = (self.clock, self.clock.now() + BEGIN_US);
                let flow = Flow { socket, to, from_responder: true, session, phase, key, spec: flow, clock, begin };
                let own = Arc::clone(self);
                let run = move || own.end(id, flow.run(&progress));
                if std::thread::Builder::new().name("link-flow".to_owned()).spawn(run).is_err() {
                    self.end(id, 0);
                }
            }
            Output::Redirect { session, to } => {
                for (_, s) in locked(&self.flows).iter().filter(|((of, _), _)| *of == session) {
                    *locked(&s.to) = to;
                }
            }
            Output::Stop { id } => {
                if let Some(s) = locked(&self.flows).get(&id) {
                    s.progress.stop.store(true, Ordering::Relaxed);
                }
            }
            Output::Note(text) => (self.note)(&text),
        }
    }

    /// Told to the thread of the first socket. Where that has ended, nobody wants to know.
    fn end(&self, id: (u64, u16), sent: u32) {
        let _ = self.ended.send((id, sent));
    }

    fn send_later(&self, socket: &Socket, now: Stamp) {
        let due = {
            let mut later = locked(&self.later);
            let all = std::mem::take(&mut *later);
            let (due, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _, _)| *at <= now);
            *later = rest;
            due
        };
        for (_, to, bytes) in due {
            let _ = socket.send(&bytes, to, 0);
        }
    }

    /// Answers that TCP gets through, by taking the connection and closing it.
    fn accept(&self, tcp: &TcpListener) {
        while !self.stopped.load(Ordering::Relaxed) {
            if tcp.accept().is_err() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
