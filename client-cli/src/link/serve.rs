//! `trocar link serve`: the end that is measured against.

use super::clock::Clock;
use super::sender::{Flow, Progress};
use super::socket::{Nothing, Socket};
use crate::stop::Stop;
use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trocar_link::measure::packet::PACKET_BYTES_MAX;
use trocar_link::measure::responder::{Datagram, Doors, Limits, Output, Responder};
use trocar_link::measure::{PORT, Stamp};

/// Flows that end at a time and are not yet noted. Loss policy: their threads wait.
const ENDED: usize = 64;
/// Pongs that wait for their time. Loss policy: one more is not sent.
const LATER_MAX: usize = 64;
/// A flow begins so long after it was asked for, in microseconds: the answer goes first.
const BEGIN_US: Stamp = 5_000;
/// How often silent sessions are looked for, in microseconds.
const ROUND_US: Stamp = 500_000;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Address to listen at, UDP and TCP; the next port is used too. All addresses where left out.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// File with a key: only who has the same one may measure.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Highest rate that it sends or takes, in bits per second.
    #[arg(long, value_name = "RATE", value_parser = super::args::mbit_s, default_value = "1G")]
    max_rate: f64,
    /// Longest measurement, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0, value_parser = super::args::seconds)]
    max_seconds: f64,
    /// Measurements at a time; one of each peer.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions: u16,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

struct Server {
    responder: Mutex<Responder>,
    clock: Clock,
    flows: Mutex<BTreeMap<(u64, u16), Sending>>,
    later: Mutex<Vec<(Stamp, SocketAddr, Vec<u8>)>>,
    ended: SyncSender<((u64, u16), u32)>,
    stopped: AtomicBool,
    json: bool,
}

struct Sending {
    to: Arc<Mutex<SocketAddr>>,
    progress: Arc<Progress>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is stopped.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let clock = Clock::start();
    let first = match args.listen {
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let third = SocketAddr::new(listen.ip(), listen.port().checked_add(2).unwrap_or(0));
    let (endpoint, door) = {
        let _inside = runtime.enter();
        super::quic::open(third)?
    };
    let quic_port = door.port;
    runtime.spawn(super::quic::serve(endpoint));
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).ok().context("no random numbers")?;
    let limits =
        Limits { mbit_s_max: args.max_rate, seconds_max: args.max_seconds, sessions_max: usize::from(args.sessions) };
    let key = super::args::read_key(args.key_file.as_deref())?;
    let program = format!("trocar {} link serve", env!("CARGO_PKG_VERSION"));
    let doors = Doors { second_port: Some(second_port), quic: Some(door) };
    let (ended, endings) = sync_channel(ENDED);
    let server = Arc::new(Server {
        responder: Mutex::new(Responder::new(&secret, &key, limits, &program, doors)),
        clock,
        flows: Mutex::default(),
        later: Mutex::default(),
        ended,
        stopped: AtomicBool::new(false),
        json: args.json,
    });
    if first.buffer_bytes() < 4 << 20 {
        tracing::warn!("the kernel holds {} bytes of what comes: net.core.rmem_max is small", first.buffer_bytes());
    }
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "event": "ready", "listen": listen, "second_port": second_port, "quic_port": quic_port })
        );
    } else {
        let most = args.max_rate;
        println!("listening at {listen}, UDP and TCP, and at UDP {second_port} and {quic_port}; at most {most} Mbit/s");
    }
    serve(&runtime, server, first, second, tcp, endings)
}

fn serve(
    runtime: &tokio::runtime::Runtime,
    server: Arc<Server>,
    first: Socket,
    second: Socket,
    tcp: TcpListener,
    endings: Receiver<((u64, u16), u32)>,
) -> anyhow::Result<()> {
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let (own, flows) = (Arc::clone(&server), first.another()?);
    let mut threads = vec![thread("link").spawn(move || own.work(&first, &flows, Some(&endings)))?];
    let own = Arc::clone(&server);
    let flows = second.another()?;
    threads.push(thread("link-second").spawn(move || own.work(&second, &flows, None))?);
    let own = Arc::clone(&server);
    tcp.set_nonblocking(true)?;
    threads.push(thread("link-tcp").spawn(move || own.accept(&tcp))?);
    runtime.block_on(async {
        Stop::on_signals()?.requested().await;
        anyhow::Ok(())
    })?;
    server.stopped.store(true, Ordering::Relaxed);
    for flow in locked(&server.flows).values() {
        flow.progress.stop.store(true, Ordering::Relaxed);
    }
    for t in threads {
        let _ = t.join();
    }
    Ok(())
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
            Output::Note(text) if self.json => println!("{}", serde_json::json!({ "event": "note", "text": text })),
            Output::Note(text) => println!("{text}"),
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
