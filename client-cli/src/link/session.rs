//! A session with `trocar link serve`, from the measuring end: a thread reads, a thread pings, and whoever measures asks and waits.

use super::route::{Route, Secret};
use anyhow::{Context as _, bail};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trocar_link::measure::Stamp;
use trocar_link::measure::clock::{ClockFilter, Exchange};
use trocar_link::measure::cookie::read_address;
use trocar_link::measure::flow::{Known, Received, Way};
use trocar_link::measure::keys::nonce_of;
use trocar_link::measure::log::{Arrival, Log};
use trocar_link::measure::message::{Accepted, Answer, Ask, Beside, Opening, Refusal};
use trocar_link::measure::packet::{
    HEADER_BYTES, Header, Key, Kind, PACKET_BYTES_MAX, PING_BYTES_MIN, PROBE_BYTES_MIN, read_probe,
};
use trocar_link::measure::responder::opening;
use trocar_link::measure::schedule::FlowSpec;
use trocar_link::measure::trips::{Trip, Trips};
use trocar_link::result::Quantiles;
use trocar_link::sockets::{Clock, Flow, Nothing, Progress, Socket};

/// A peer that says nothing for so long is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A question that is not answered for so long is given up: longer than a radio changes its cell.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Between two tries before a round trip is known.
pub(super) const TRY_EVERY: Duration = Duration::from_millis(250);
/// Questions that are under way at a time.
const ASKED_AT_ONCE: usize = 8;

struct Shared {
    socket: Socket,
    to: SocketAddr,
    clock: Clock,
    shared_key: Key,
    grant: Option<u32>,
    /// The session and its key.
    session: OnceLock<(u64, Key)>,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    /// Between two pings, in microseconds; 0: none.
    ping_every_us: AtomicU64,
    ping_seq: AtomicU32,
}

#[derive(Default)]
struct State {
    filter: ClockFilter,
    trips: Trips,
    logs: BTreeMap<u16, Log>,
    answers: BTreeMap<u32, Answer>,
    retry: Option<(u64, Vec<u8>)>,
    accepted: Option<(u64, Accepted)>,
    refused: Option<String>,
    nobody: bool,
    foreign: u64,
    /// Where the other end sees us.
    seen_as: Option<SocketAddr>,
    /// What it saw where it is another now: to be told of.
    moved: bool,
    moves: u32,
}

/// A session.
pub(super) struct Session {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    asked: AtomicU32,
    pub(super) route: Route,
    pub(super) peer: Accepted,
    pub(super) local: SocketAddr,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Said twice and not waited for: a session that hears nothing more ends by itself.
        if let Some((session, key)) = self.shared.session.get()
            && let Ok(body) = serde_json::to_vec(&Ask::Bye)
        {
            let (seq, sent) = (self.asked.fetch_add(1, Ordering::Relaxed), self.now());
            let head =
                Header { kind: Kind::Ask, from_responder: false, phase: 0, session: *session, seq, frame: 0, sent };
            for _ in 0..2 {
                let _ = self.shared.socket.send(&head.seal(key, &body), self.route.to, 0);
            }
        }
        self.shared.ended.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn drawn() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok().context("no random numbers")?;
    Ok(u64::from_be_bytes(bytes))
}

impl Session {
    /// Connects. `beside` is the session that this one is the second path of.
    ///
    /// # Errors
    /// Says who does not answer, or answers as somebody else, and what to do.
    pub(super) fn open(route: Route, secret: &Secret, clock: Clock, beside: Option<&Self>) -> anyhow::Result<Self> {
        let socket = Socket::connect(route.from, route.to, clock)?;
        let local = socket.local()?;
        let shared = Arc::new(Shared {
            socket,
            to: route.to,
            clock,
            shared_key: Key::new(&secret.key),
            grant: secret.grant,
            session: OnceLock::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            ping_every_us: AtomicU64::new(0),
            ping_seq: AtomicU32::new(0),
        });
        let own = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("link-read".to_owned()).spawn(move || own.read())?;
        let own = Arc::clone(&shared);
        let pinger = std::thread::Builder::new().name("link-ping".to_owned()).spawn(move || own.ping())?;
        let threads = vec![reader, pinger];
        let peer = Accepted {
            nonce: 0,
            salt: String::new(),
            program: String::new(),
            mbit_s_max: 0.0,
            seconds_max: 0.0,
            second_port: None,
            quic: None,
        };
        let mut session = Self { shared, threads, asked: AtomicU32::new(1), route, peer, local };
        session.connect(beside)?;
        Ok(session)
    }

    fn connect(&mut self, beside: Option<&Self>) -> anyhow::Result<()> {
        let shared = &self.shared;
        let nonce = nonce_of(shared.grant, drawn()?);
        let hello = opening(Kind::Hello, nonce, &shared.shared_key, &[]);
        let cookie = self.shared.exchange(&hello, |s| s.retry.take().filter(|(n, _)| *n == nonce))?.1;
        let beside = beside.and_then(|b| {
            let (session, key) = b.shared.session.get()?;
            Some(Beside { session: *session, proof: hex::encode(key.mac(&[&cookie])) })
        });
        let program = format!("trocar {} link test", env!("CARGO_PKG_VERSION"));
        let body = serde_json::to_vec(&Opening { cookie: hex::encode(cookie), program, beside })?;
        let open = opening(Kind::Open, nonce, &shared.shared_key, &body);
        let (id, accepted) = shared.exchange(&open, |s| s.accepted.take().filter(|(_, a)| a.nonce == nonce))?;
        let salt = hex::decode(&accepted.salt).context("the peer's salt cannot be read")?;
        let _ = shared.session.set((id, shared.shared_key.derive(nonce, id, &salt)));
        self.peer = accepted;
        Ok(())
    }

    pub(super) fn ping_every(&self, every: Option<Duration>) {
        let us = every.map_or(0, |e| e.as_micros() as u64);
        self.shared.ping_every_us.store(us, Ordering::Relaxed);
    }

    /// One ping of this length. Whether the system took it: one that is larger than the first part of the way it does not take.
    pub(super) fn ping_once(&self, len: usize) -> bool {
        self.shared.ping_once(len, 0).is_ok()
    }

    /// Asks for a pong after a pause, from a socket and so from a mapping of its own, which rests meanwhile. Where the other end saw
    /// that socket, if its pong came.
    pub(super) fn rest(&self, seconds: f64) -> anyhow::Result<Option<SocketAddr>> {
        let shared = &self.shared;
        let (id, key) = shared.session.get().context("no session")?;
        let socket = Socket::connect(self.route.from, self.route.to, shared.clock)?;
        let asked = Instant::now();
        let pause = seconds.round().max(1.0);
        let seq = shared.ping_seq.fetch_add(1, Ordering::Relaxed);
        let sent = shared.clock.now();
        let head =
            Header { kind: Kind::Ping, from_responder: false, phase: 0, session: *id, seq, frame: pause as u32, sent };
        socket.send(&head.seal(key, &[0; PING_BYTES_MIN - HEADER_BYTES]), self.route.to, 0)?;
        let mut buffer = [0; 2_048];
        while asked.elapsed().as_secs_f64() < pause + 2.0 {
            let Ok(came) = socket.receive(&mut buffer) else { continue };
            let pong = buffer.get(..came.len).and_then(|b| Header::open(key, b));
            if let Some(body) = pong {
                return Ok(body.get(16..).and_then(read_address));
            }
        }
        Ok(None)
    }

    /// Where the other end's second port sees us.
    pub(super) fn seen_by_second_port(&self) -> Option<SocketAddr> {
        let (id, key) = self.shared.session.get()?;
        let mut to = self.route.to;
        to.set_port(self.peer.second_port?);
        // The same local port, towards another one: an unconnected twin of the socket is not to be had, so the kernel is told.
        let socket = Socket::twin(self.local, to, self.shared.clock).ok()?;
        let mut buffer = [0; 2_048];
        for _ in 0..5 {
            let (seq, sent) = (self.shared.ping_seq.fetch_add(1, Ordering::Relaxed), self.shared.clock.now());
            let head = Header { kind: Kind::Ping, from_responder: false, phase: 0, session: *id, seq, frame: 0, sent };
            socket.send(&head.seal(key, &[0; PING_BYTES_MIN - HEADER_BYTES]), to, 0).ok()?;
            let asked = Instant::now();
            while asked.elapsed() < TRY_EVERY {
                let Ok(came) = socket.receive(&mut buffer) else { continue };
                if let Some(body) = buffer.get(..came.len).and_then(|b| Header::open(key, b)) {
                    return body.get(16..).and_then(read_address);
                }
            }
        }
        None
    }

    pub(super) fn now(&self) -> Stamp {
        self.shared.clock.now()
    }

    pub(super) fn clock(&self) -> Clock {
        self.shared.clock
    }

    pub(super) fn seen_as(&self) -> Option<SocketAddr> {
        locked(&self.shared.state).seen_as
    }

    /// How often our address became another.
    pub(super) fn moves(&self) -> u32 {
        locked(&self.shared.state).moves
    }

    pub(super) fn filter(&self) -> ClockFilter {
        locked(&self.shared.state).filter.clone()
    }

    /// Round trips of pings that left from `since` on.
    pub(super) fn trips(&self, since: Stamp) -> Vec<Trip> {
        locked(&self.shared.state).trips.since(since).copied().collect()
    }

    /// Round trips of pings of the usual length that left between two times.
    pub(super) fn round_trips(&self, from: Stamp, until: Stamp) -> Option<Quantiles> {
        locked(&self.shared.state).trips.quantiles(from, until, PING_BYTES_MIN)
    }

    /// Begins a flow in both ends' minds. Up: [`Session::send`] sends it.
    pub(super) fn begin(&self, phase: u16, way: Way, flow: FlowSpec) -> anyhow::Result<()> {
        if way == Way::Down {
            locked(&self.shared.state).logs.insert(phase, Log::new(flow));
        }
        match self.ask(Ask::Start { phase, way, flow })? {
            Answer::Done => Ok(()),
            Answer::No { why } => bail!("{} does not take the flow: {why}", self.route.to),
            other => bail!("an answer to another question: {other:?}"),
        }
    }

    /// Sends a flow from `at` on; the thread gives how many packets were sent.
    pub(super) fn send(
        &self,
        phase: u16,
        spec: FlowSpec,
        begin: Stamp,
    ) -> anyhow::Result<(JoinHandle<u32>, Arc<Progress>)> {
        let (session, key) = self.shared.session.get().context("no session")?.clone();
        let (socket, clock) = (self.shared.socket.another()?, self.shared.clock);
        let to = Arc::new(Mutex::new(self.route.to));
        let flow = Flow { socket, to, from_responder: false, session, phase, key, spec, clock, begin };
        let progress = Arc::new(Progress::default());
        let own = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("link-flow".to_owned()).spawn(move || flow.run(&own))?;
        Ok((thread, progress))
    }

    /// How much of a flow towards us has come, and how long nothing has.
    pub(super) fn came(&self, phase: u16) -> (u32, i64) {
        let state = locked(&self.shared.state);
        let Some(log) = state.logs.get(&phase) else { return (0, i64::MAX) };
        let quiet = log.last_arrival().map_or(i64::MAX, |last| self.now() - last);
        (log.arrivals().len() as u32, quiet)
    }

    /// What came of a flow towards us.
    pub(super) fn take_log(&self, phase: u16) -> Option<Log> {
        locked(&self.shared.state).logs.remove(&phase)
    }

    /// What the other end makes of a flow towards it.
    pub(super) fn report(&self, phase: u16, known: Known) -> anyhow::Result<Received> {
        let part = |part| Ask::Report { phase, known, part };
        let (parts, mut text) = match self.ask(part(0))? {
            Answer::Part { parts, text, .. } => (parts, text),
            Answer::No { why } => bail!("no report: {why}"),
            other => bail!("an answer to another question: {other:?}"),
        };
        for answer in self.ask_all((1..parts).map(part).collect())? {
            let Answer::Part { text: more, .. } = answer else { bail!("a report with a gap: {answer:?}") };
            text.push_str(&more);
        }
        Ok(serde_json::from_str(&text)?)
    }

    pub(super) fn ask(&self, ask: Ask) -> anyhow::Result<Answer> {
        self.ask_all(vec![ask])?.pop().context("no answer")
    }

    /// Questions whose order does not matter, several at a time; answers in the order of the questions.
    fn ask_all(&self, asks: Vec<Ask>) -> anyhow::Result<Vec<Answer>> {
        let (id, key) = self.shared.session.get().context("no session")?;
        let mut answers = Vec::with_capacity(asks.len());
        for group in asks.chunks(ASKED_AT_ONCE) {
            let asked: Vec<(u32, &Ask)> =
                group.iter().map(|a| (self.asked.fetch_add(1, Ordering::Relaxed), a)).collect();
            let give_up = Instant::now() + ANSWER_WITHIN;
            let mut every = self.patience();
            loop {
                let missing: Vec<&(u32, &Ask)> = {
                    let state = locked(&self.shared.state);
                    asked.iter().filter(|(seq, _)| !state.answers.contains_key(seq)).collect()
                };
                if missing.is_empty() {
                    break;
                }
                self.still()?;
                if Instant::now() >= give_up {
                    bail!("{} does not answer any more", self.route.to);
                }
                for (seq, ask) in missing {
                    let sent = self.now();
                    let head = Header {
                        kind: Kind::Ask,
                        from_responder: false,
                        phase: 0,
                        session: *id,
                        seq: *seq,
                        frame: 0,
                        sent,
                    };
                    let _ = self.shared.socket.send(&head.seal(key, &serde_json::to_vec(ask)?), self.route.to, 0);
                }
                let all = |s: &State| asked.iter().all(|(seq, _)| s.answers.contains_key(seq));
                self.shared.wait(every, |s| (s.refused.is_some() || all(s)).then_some(()));
                every = (every * 2).min(Duration::from_secs(1));
            }
            let mut state = locked(&self.shared.state);
            answers.extend(asked.iter().filter_map(|(seq, _)| state.answers.remove(seq)));
        }
        Ok(answers)
    }

    /// Whether the other end lets us go on.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn still(&self) -> anyhow::Result<()> {
        match &locked(&self.shared.state).refused {
            Some(why) => bail!("{} ended the measurement: {why}", self.route.to),
            None => Ok(()),
        }
    }

    /// How long an answer may take before it is asked for again.
    fn patience(&self) -> Duration {
        let recent = locked(&self.shared.state).trips.slowest_of_newest(50);
        if recent == 0.0 { TRY_EVERY } else { Duration::from_micros(recent as u64 * 2 + 20_000) }
    }

    pub(super) fn id(&self) -> u64 {
        self.shared.session.get().map_or(0, |(id, _)| *id)
    }
}

impl Shared {
    /// Sends until `found` finds what it waits for.
    fn exchange<T>(&self, packet: &[u8], found: impl Fn(&mut State) -> Option<T>) -> anyhow::Result<T> {
        let give_up = Instant::now() + CONNECT_WITHIN;
        let to = self.to;
        while Instant::now() < give_up {
            if let Err(error) = self.socket.send(packet, to, 0) {
                tracing::debug!(%error, "not sent");
            }
            let one = self.wait(TRY_EVERY, |s| {
                if s.refused.is_some() || s.nobody {
                    return Some(None);
                }
                found(s).map(Some)
            });
            match one {
                Some(Some(found)) => return Ok(found),
                Some(None) => break,
                None => {}
            }
        }
        let state = locked(&self.state);
        match &*state {
            State { refused: Some(why), .. } => bail!("{to} refuses: {why}"),
            State { nobody: true, .. } => bail!("nobody listens at {to}: start `trocar link serve` there"),
            State { foreign: 1.., .. } => bail!("what answers at {to} is no `trocar link serve`"),
            _ => bail!(
                "{to} does not answer within {} s: is `trocar link serve` running there, and may UDP pass?",
                CONNECT_WITHIN.as_secs()
            ),
        }
    }

    fn wait<T>(&self, long: Duration, found: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + long;
        let mut state = locked(&self.state);
        loop {
            if let Some(found) = found(&mut state) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(&self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX + 1];
        while !self.ended.load(Ordering::Relaxed) {
            match self.socket.receive(&mut buffer) {
                Ok(came) => {
                    self.handle(buffer.get(..came.len).unwrap_or_default(), came.at, came.tos);
                }
                Err(Nothing::Refused) => {
                    locked(&self.state).nobody = true;
                    self.changed.notify_all();
                }
                Err(Nothing::Quiet) => {}
                Err(Nothing::Broken(error)) => {
                    tracing::warn!(%error, "cannot read");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn handle(&self, bytes: &[u8], at: Stamp, tos: u8) {
        let session = self.session.get();
        let key = |id: u64| session.filter(|(own, _)| *own == id).map(|(_, key)| key);
        if bytes.len() >= PROBE_BYTES_MIN
            && let Some(probe) = read_probe(bytes, key)
        {
            let h = probe.header;
            let arrival = Arrival { seq: h.seq, damaged: probe.damaged, tos, sent: h.sent, arrived: at };
            if let Some(log) = locked(&self.state).logs.get_mut(&h.phase).filter(|_| h.from_responder) {
                log.handle_arrival(arrival);
            }
            return;
        }
        let header = Header::read(bytes).ok().filter(|h| h.from_responder);
        let mut state = locked(&self.state);
        let Some(header) = header else {
            state.foreign += 1;
            return;
        };
        let body = |key: &Key| Header::open(key, bytes).map(<[u8]>::to_vec);
        match header.kind {
            Kind::Retry => state.retry = body(&self.shared_key).map(|cookie| (header.session, cookie)),
            Kind::Accept => {
                state.accepted = body(&self.shared_key).and_then(|b| Some((header.session, json::<Accepted>(&b)?)));
                if state.accepted.is_none() {
                    state.refused = Some("the keys of the two ends differ: give both the same --key-file".to_owned());
                }
            }
            // Before there is a session, also where its tag is not ours: that the keys differ is one of the reasons.
            Kind::Refuse => {
                let ours = session.is_none() || key(header.session).is_some_and(|key| body(key).is_some());
                let said = bytes.get(HEADER_BYTES..).filter(|_| ours).and_then(json::<Refusal>);
                state.refused = said.map(|r| r.why).or_else(|| state.refused.take());
            }
            Kind::Answer => {
                if let Some(answer) = key(header.session).and_then(body).and_then(|b| json(&b)) {
                    state.answers.insert(header.seq, answer);
                }
            }
            Kind::Pong => {
                if let Some(body) = key(header.session).and_then(body) {
                    state.handle_pong(&header, &body, bytes.len(), at);
                }
            }
            _ => {}
        }
        drop(state);
        self.changed.notify_all();
    }

    fn ping_once(&self, len: usize, pause: u32) -> std::io::Result<()> {
        let Some((session, key)) = self.session.get() else { return Ok(()) };
        let seq = self.ping_seq.fetch_add(1, Ordering::Relaxed);
        let body = vec![0; len.max(PING_BYTES_MIN) - HEADER_BYTES];
        let sent = self.clock.now();
        let head =
            Header { kind: Kind::Ping, from_responder: false, phase: 0, session: *session, seq, frame: pause, sent };
        self.socket.send(&head.seal(key, &body), self.to, 0)
    }

    fn ping(&self) {
        let mut next = Instant::now();
        while !self.ended.load(Ordering::Relaxed) {
            let every = self.ping_every_us.load(Ordering::Relaxed);
            if every == 0 {
                std::thread::sleep(Duration::from_millis(5));
                next = Instant::now();
                continue;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let _ = self.ping_once(PING_BYTES_MIN, 0);
            next = (next + Duration::from_micros(every)).max(Instant::now());
            let moved = std::mem::take(&mut locked(&self.state).moved);
            if moved {
                self.tell_of_new_address();
            }
        }
    }

    /// Shows the other end that we are at our new address too, as at the beginning: flows go only where a cookie was shown.
    fn tell_of_new_address(&self) {
        let (Ok(drawn), Some((session, key))) = (drawn(), self.session.get()) else { return };
        let nonce = nonce_of(self.grant, drawn);
        let hello = opening(Kind::Hello, nonce, &self.shared_key, &[]);
        for _ in 0..8 {
            let _ = self.socket.send(&hello, self.to, 0);
            let Some((_, cookie)) = self.wait(TRY_EVERY, |s| s.retry.take().filter(|(n, _)| *n == nonce)) else {
                continue;
            };
            let ask = Ask::Move { nonce, cookie: hex::encode(cookie) };
            let head = Header {
                kind: Kind::Ask,
                from_responder: false,
                phase: 0,
                session: *session,
                seq: u32::MAX,
                frame: 0,
                sent: self.clock.now(),
            };
            let Ok(body) = serde_json::to_vec(&ask) else { return };
            let _ = self.socket.send(&head.seal(key, &body), self.to, 0);
            if self.wait(TRY_EVERY, |s| s.answers.remove(&u32::MAX)) == Some(Answer::Done) {
                return;
            }
        }
    }
}

impl State {
    fn handle_pong(&mut self, header: &Header, body: &[u8], len: usize, at: Stamp) {
        let stamp = |from: usize| body.get(from..)?.first_chunk::<8>().map(|b| Stamp::from_be_bytes(*b));
        let (Some(t0), Some(t1)) = (stamp(0), stamp(8)) else { return };
        let exchange = Exchange { t0, t1, t2: header.sent, t3: at };
        if header.frame == 0 {
            self.filter.handle_exchange(exchange);
            self.trips.handle_pong(Trip { seq: header.seq, sent: t0, rtt_us: exchange.rtt_us() as f64, len });
        }
        let seen = body.get(16..).and_then(read_address);
        if let (Some(before), Some(now)) = (self.seen_as, seen)
            && before != now
        {
            self.moves += 1;
            self.moved = true;
        }
        self.seen_as = seen.or(self.seen_as);
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
