//! The measurement over the link emulator, on a clock that jumps: its ledger is the truth, and the other end's clock is ahead and
//! drifts, so that one-way figures can be wrong. Nothing between packet and figure is replaced: what runs here runs in
//! `trocar link`, sockets apart.

mod lines;
mod rates;

use super::Stamp;
use super::clock::{ClockFilter, Estimate, Exchange};
use super::flow::{Known, Received, Way, evaluate};
use super::log::{Arrival, Log};
use super::message::{Accepted, Answer, Ask, Opening};
use super::packet::{HEADER_BYTES, Header, Key, Kind, PING_BYTES_MIN, PROBE_BYTES_MIN, read_probe};
use super::quantiles::quantile;
use super::responder::{Datagram, Doors, Limits, Output, Responder, opening};
use super::schedule::{FlowSpec, Schedule, Shape};
use super::trips::{Trip, Trips};
use crate::result::{Direction, Quantiles, VideoFlow};
use lines::{LINES, profiles};
use std::collections::{BTreeMap, BTreeSet};
use trocar_proto::link::{Direction as Side, Entry, Fate, Link, Profile};
use trocar_proto::units::Micros;

/// Where our clock stands when the emulator's is at 0.
const OURS: Stamp = 1_700_000_000_000_000;
const PING_EVERY_US: u64 = 20_000;

struct Clocks {
    offset: f64,
    ppm: f64,
}

impl Clocks {
    fn theirs(&self, t: u64) -> Stamp {
        OURS + (t as f64 * (1.0 + self.ppm * 1e-6) + self.offset) as Stamp
    }

    /// Theirs minus ours.
    fn truth(&self, ours: Stamp) -> f64 {
        self.offset + (ours - OURS) as f64 * self.ppm * 1e-6
    }
}

fn ours(t: u64) -> Stamp {
    OURS + t as Stamp
}

/// What really happened to a packet of a flow.
struct Fact {
    phase: u16,
    seq: u32,
    entry: Entry,
}

enum Todo {
    Ping,
    Probe(Way, u16, u32),
}

/// Both ends and the line between them.
struct World {
    t: u64,
    clocks: Clocks,
    links: BTreeMap<Way, Link<Vec<u8>>>,
    facts: BTreeMap<Way, Vec<Fact>>,
    responder: Responder,
    session: u64,
    key: Key,
    filter: ClockFilter,
    logs: BTreeMap<u16, Log>,
    trips: Trips,
    pings: u32,
    /// When the picture began.
    loaded_from: u64,
    /// When each ping left, and when the first whole answer to it came.
    left: BTreeMap<u32, u64>,
    answered: BTreeMap<u32, u64>,
    phase: u16,
}

impl PartialOrd for Way {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Way {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(other.name())
    }
}

impl World {
    fn new(profile: &Profile, seed: u64, clocks: Clocks) -> Self {
        let limits = Limits { mbit_s_max: 2_000.0, seconds_max: 1e6, sessions_max: 1 };
        let mut responder = Responder::new(b"secret", b"shared", limits, "t", Doors::default());
        let shared = Key::new(b"shared");
        let from = "192.0.2.1:1".parse().unwrap();
        let at = clocks.theirs(0);
        let mut give = |bytes: &[u8]| {
            let mut out = Vec::new();
            responder.handle_packet(Datagram { from, at, tos: 0, bytes }, || at, &mut out);
            out.into_iter().find_map(|o| if let Output::Send { bytes, .. } = o { Some(bytes) } else { None }).unwrap()
        };
        let retry = give(&opening(Kind::Hello, 1, &shared, &[]));
        let cookie = hex::encode(Header::open(&shared, &retry).unwrap());
        let open = serde_json::to_vec(&Opening { cookie, program: "t".to_owned(), beside: None }).unwrap();
        let accept = give(&opening(Kind::Open, 1, &shared, &open));
        let accepted: Accepted = serde_json::from_slice(Header::open(&shared, &accept).unwrap()).unwrap();
        let session = Header::read(&accept).unwrap().session;
        let link = |side: Side, config| Link::new(config, side.seed(seed)).unwrap();
        Self {
            t: 0,
            clocks,
            links: [(Way::Up, link(Side::Up, &profile.up)), (Way::Down, link(Side::Down, &profile.down))].into(),
            facts: [(Way::Up, Vec::new()), (Way::Down, Vec::new())].into(),
            key: shared.derive(1, session, &hex::decode(&accepted.salt).unwrap()),
            responder,
            session,
            filter: ClockFilter::default(),
            logs: BTreeMap::new(),
            trips: Trips::default(),
            pings: 0,
            loaded_from: 0,
            left: BTreeMap::new(),
            answered: BTreeMap::new(),
            phase: 0,
        }
    }

    fn header(&self, kind: Kind, phase: u16, seq: u32, sent: Stamp) -> Header {
        Header { kind, from_responder: false, phase, session: self.session, seq, frame: 0, sent }
    }

    /// To the responder, past the line: what is asked is asked until it is answered.
    fn ask(&mut self, ask: &Ask) -> Answer {
        let bytes = self.header(Kind::Ask, 0, 1, ours(self.t)).seal(&self.key, &serde_json::to_vec(ask).unwrap());
        let out = self.hand_to_responder(self.t, &bytes);
        let answer = out.iter().find_map(|o| if let Output::Send { bytes, .. } = o { Some(bytes) } else { None });
        serde_json::from_slice(Header::open(&self.key, answer.unwrap()).unwrap()).unwrap()
    }

    fn hand_to_responder(&mut self, t: u64, bytes: &[u8]) -> Vec<Output> {
        let (at, mut out) = (self.clocks.theirs(t), Vec::new());
        let from = "192.0.2.1:1".parse().unwrap();
        self.responder.handle_packet(Datagram { from, at, tos: 0, bytes }, || at, &mut out);
        out
    }

    fn send(&mut self, way: Way, bytes: Vec<u8>) {
        let link = self.links.get_mut(&way).unwrap();
        link.handle_packet(Micros(self.t), bytes.len() as u32, bytes);
    }

    /// Flows in these directions at once, pings beside them, and everything that is under way at the end.
    fn run(&mut self, flows: &[(Way, FlowSpec)]) -> Vec<u16> {
        let begin = self.t;
        let mut todo: Vec<(u64, Todo)> = Vec::new();
        let mut phases = Vec::new();
        for (way, spec) in flows {
            self.phase += 1;
            phases.push(self.phase);
            assert_eq!(self.ask(&Ask::Start { phase: self.phase, way: *way, flow: *spec }), Answer::Done);
            if *way == Way::Down {
                self.logs.insert(self.phase, Log::new(*spec));
            }
            todo.extend(Schedule::new(*spec).unwrap().map(|d| (begin + d.at_us, Todo::Probe(*way, self.phase, d.seq))));
        }
        let longest = flows.iter().map(|(_, s)| s.duration_us).max().unwrap();
        todo.extend((0..longest / PING_EVERY_US).map(|i| (begin + i * PING_EVERY_US, Todo::Ping)));
        todo.sort_by_key(|(at, _)| *at);
        let mut todo = todo.into_iter().peekable();
        loop {
            let next = todo.peek().map(|(at, _)| *at);
            let wake = self.links.values().filter_map(Link::next_wakeup).map(|w| w.0).min();
            let Some(t) = [next, wake].into_iter().flatten().min() else { break };
            self.t = self.t.max(t);
            self.arrive();
            while let Some((_, what)) = todo.next_if(|(at, _)| *at <= self.t) {
                self.do_it(&what, flows, &phases);
            }
        }
        phases
    }

    fn do_it(&mut self, what: &Todo, flows: &[(Way, FlowSpec)], phases: &[u16]) {
        match *what {
            Todo::Ping => {
                self.pings += 1;
                self.left.insert(self.pings, self.t);
                let body = [0; PING_BYTES_MIN - HEADER_BYTES];
                let ping = self.header(Kind::Ping, 0, self.pings, ours(self.t)).seal(&self.key, &body);
                self.send(Way::Up, ping);
            }
            Todo::Probe(way, phase, seq) => {
                let at = phases.iter().position(|p| *p == phase).unwrap();
                let sent = if way == Way::Up { ours(self.t) } else { self.clocks.theirs(self.t) };
                let head = Header { from_responder: way == Way::Down, ..self.header(Kind::Probe, phase, seq, sent) };
                let mut bytes = Vec::new();
                head.write_probe(&self.key, usize::from(flows[at].1.packet_bytes), &mut bytes);
                self.send(way, bytes);
            }
        }
    }

    /// Gives out what has arrived, and writes down the truth about it.
    fn arrive(&mut self) {
        for way in [Way::Up, Way::Down] {
            while let Some(d) = self.links.get_mut(&way).unwrap().poll_departure(Micros(self.t)) {
                let Fate::Delivered { at, .. } = d.entry.fate else { unreachable!() };
                self.note(way, &d.payload, d.entry);
                let mut bytes = d.payload;
                if let Some(bit) = d.corrupt_bit {
                    bytes[bit as usize / 8] ^= 0x80 >> (bit % 8);
                }
                match way {
                    Way::Up => {
                        for output in self.hand_to_responder(at.0, &bytes) {
                            if let Output::Send { bytes, .. } = output {
                                self.send(Way::Down, bytes);
                            }
                        }
                    }
                    Way::Down => self.at_client(at.0, &bytes),
                }
            }
            while let Some((entry, bytes)) = self.links.get_mut(&way).unwrap().poll_drop() {
                self.note(way, &bytes, entry);
            }
        }
    }

    fn note(&mut self, way: Way, bytes: &[u8], entry: Entry) {
        let h = Header::read(bytes).unwrap();
        if let (Kind::Pong, Fate::Delivered { at, corrupt_bit: None, .. }) = (h.kind, entry.fate) {
            let first = self.answered.entry(h.seq).or_insert(at.0);
            *first = at.0.min(*first);
        }
        if h.kind == Kind::Probe {
            self.facts.get_mut(&way).unwrap().push(Fact { phase: h.phase, seq: h.seq, entry });
        }
    }

    fn at_client(&mut self, t: u64, bytes: &[u8]) {
        if let Some(p) = (bytes.len() >= PROBE_BYTES_MIN).then(|| read_probe(bytes, |_| Some(&self.key))).flatten() {
            let arrival =
                Arrival { seq: p.header.seq, damaged: p.damaged, tos: 0, sent: p.header.sent, arrived: ours(t) };
            self.logs.get_mut(&p.header.phase).unwrap().handle_arrival(arrival);
        } else if let (Ok(h), Some(body)) = (Header::read(bytes), Header::open(&self.key, bytes)) {
            let stamp = |at: usize| Stamp::from_be_bytes(body[at..at + 8].try_into().unwrap());
            let exchange = Exchange { t0: stamp(0), t1: stamp(8), t2: h.sent, t3: ours(t) };
            self.filter.handle_exchange(exchange);
            let rtt_us = exchange.rtt_us() as f64;
            self.trips.handle_pong(Trip { seq: h.seq, sent: exchange.t0, rtt_us, len: bytes.len() });
        }
    }

    /// What the receiving end makes of a flow.
    fn received(&mut self, way: Way, phase: u16, spec: &FlowSpec, known: Known) -> Received {
        match way {
            Way::Down => evaluate(&self.logs[&phase], &known),
            Way::Up => {
                let mut text = String::new();
                for part in 0.. {
                    let answer = self.ask(&Ask::Report { phase, known, part });
                    let Answer::Part { parts, text: t, .. } = answer else { panic!("{answer:?} {spec:?}") };
                    text += &t;
                    if part + 1 == parts {
                        break;
                    }
                }
                serde_json::from_str(&text).unwrap()
            }
        }
    }

    /// The round trips of what left from one time until before another are what they were: counted each once, and to the microsecond,
    /// for they need one clock. How many there were.
    fn trips_agree(&self, from: u64, until: u64) -> Result<u64, String> {
        let of = |seq: &u32, sent: &u64| self.answered.get(seq).map(|came| (came - sent) as f64);
        let mut were: Vec<f64> =
            self.left.iter().filter_map(|(q, t)| of(q, t).filter(|_| (from..until).contains(t))).collect();
        were.sort_by(f64::total_cmp);
        let said = self.trips.quantiles(ours(from), ours(until) - 1, PING_BYTES_MIN);
        let Some(q) = said else { return if were.is_empty() { Ok(0) } else { Err("no round trip".to_owned()) } };
        if q.count != were.len() as u64 {
            return Err(format!("{} round trips, were {}", q.count, were.len()));
        }
        for (share, is) in shares(&q) {
            let was = quantile(&were, share).unwrap();
            if is != was {
                return Err(format!("round trip at {share}: {is}, was {was}"));
            }
        }
        Ok(q.count)
    }

    fn forget(&mut self, phase: u16) {
        self.ask(&Ask::Forget { phase });
        self.logs.remove(&phase);
    }
}

/// The truth about a flow, by code that shares nothing with the estimator.
#[derive(Debug, Clone, PartialEq)]
struct Truth {
    lost: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    bursts: Vec<(u32, u64)>,
    delays: Vec<f64>,
}

fn truth(facts: &[Fact], phase: u16, sent: u32) -> Truth {
    let came: Vec<&Fact> =
        facts.iter().filter(|f| f.phase == phase && matches!(f.entry.fate, Fate::Delivered { .. })).collect();
    let mut seen = BTreeSet::new();
    let (mut reordered, mut corrupted, mut delays) = (0, 0, Vec::new());
    for f in &came {
        let Fate::Delivered { at, corrupt_bit, .. } = f.entry.fate else { unreachable!() };
        corrupted += u64::from(corrupt_bit.is_some());
        if seen.contains(&f.seq) {
            continue;
        }
        reordered += u64::from(seen.range(f.seq..).next().is_some());
        seen.insert(f.seq);
        delays.push((at.0 - f.entry.arrived.0) as f64);
    }
    delays.sort_by(f64::total_cmp);
    let (mut bursts, mut run) = (BTreeMap::new(), 0_u32);
    for seq in 0..=sent {
        if seq < sent && !seen.contains(&seq) {
            run += 1;
        } else if run > 0 {
            *bursts.entry(run).or_insert(0) += 1;
            run = 0;
        }
    }
    let (all, received) = (came.len() as u64, seen.len() as u64);
    Truth {
        lost: u64::from(sent) - received,
        duplicated: all - received,
        reordered,
        corrupted,
        bursts: bursts.into_iter().collect(),
        delays,
    }
}

fn shares(q: &Quantiles) -> [(f64, f64); 5] {
    [(0.0, q.min), (0.5, q.p50), (0.95, q.p95), (0.99, q.p99), (1.0, q.max)]
}

/// Whether a flow was measured as it was: exactly where it can be counted, within the error bars where a clock is needed.
fn agrees(r: &Received, t: &Truth, e: &Estimate, span_us: f64) -> Result<(), String> {
    let f = &r.flow;
    let counted = (f.lost, f.duplicated, f.reordered, f.corrupted);
    let were = (t.lost, t.duplicated, t.reordered, t.corrupted);
    if counted != were {
        return Err(format!("lost, doubled, reordered, damaged: counted {counted:?}, were {were:?}"));
    }
    if f.loss_bursts != t.bursts {
        return Err(format!("bursts: counted {:?}, were {:?}", f.loss_bursts, t.bursts));
    }
    let Some(delay) = &f.delay_us else {
        return if t.delays.is_empty() { Ok(()) } else { Err("no delay".to_owned()) };
    };
    for (share, is) in shares(delay) {
        let was = quantile(&t.delays, share).unwrap();
        if (is - was).abs() > e.uncertainty_us {
            return Err(format!("delay at {share}: {is}, was {was}, ± {}", e.uncertainty_us));
        }
    }
    let bar = e.drift_uncertainty_ppm * 1e-6 * span_us + 4.0;
    for (share, is) in shares(f.jitter_us.as_ref().unwrap()) {
        let was = quantile(&t.delays, share).unwrap() - t.delays[0];
        if (is - was).abs() > bar {
            return Err(format!("jitter at {share}: {is}, was {was}, ± {bar}"));
        }
    }
    Ok(())
}

const IDLE: FlowSpec =
    FlowSpec { shape: Shape::Smooth { pps: 100.0 }, packet_bytes: 200, duration_us: 12_000_000, tos: 0 };
const VIDEO: FlowSpec = FlowSpec {
    shape: Shape::Video { mbit_s: 4.0, fps: 60.0, key_every: 60, key_size: 4.0 },
    packet_bytes: 1_200,
    duration_us: 5_000_000,
    tos: 0,
};

/// Smooth and picture-shaped flows both ways: figures, and what they have to agree with.
#[allow(clippy::type_complexity, reason = "named where it is taken apart")]
fn measured(profile: &Profile, seed: u64, clocks: Clocks) -> (World, Estimate, Vec<(Way, FlowSpec, Received, Truth)>) {
    let mut w = World::new(profile, seed, clocks);
    let flows = [(Way::Up, IDLE), (Way::Down, IDLE), (Way::Up, VIDEO), (Way::Down, VIDEO)];
    let mut phases = w.run(&flows[..2]);
    w.loaded_from = w.t;
    phases.extend(w.run(&flows[2..]));
    let e = w.filter.estimate().unwrap();
    let mut all = Vec::new();
    for ((way, spec), phase) in flows.into_iter().zip(phases) {
        let known = Known { way, sent: spec.packets(), clock: e.model, floor_us: None, detail: true };
        let r = w.received(way, phase, &spec, known);
        all.push((way, spec, r, truth(&w.facts[&way], phase, spec.packets())));
    }
    (w, e, all)
}

#[test]
fn loss_bursts_reordering_copies_and_damage_are_exact_and_delays_within_their_error_bars() {
    let lines = profiles();
    assert!(lines.len() >= 12);
    let mut seed = 0;
    for (i, (name, profile)) in lines.iter().enumerate().cycle().take(3 * lines.len()) {
        seed += 1;
        // A clock that is hours ahead or behind, and drifts as much as quartz may.
        let clocks = Clocks { offset: (i as f64 - 6.0) * 3.6e9, ppm: (i as f64 * 37.0) % 180.0 - 90.0 };
        let (w, e, all) = measured(profile, seed, clocks);
        for t in [0, w.t / 2, w.t] {
            let off = (e.model.offset_us(ours(t)) - w.clocks.truth(ours(t))).abs();
            assert!(off <= e.uncertainty_us, "{name}: the clock is off by {off}, {e:?}");
        }
        let drift = (e.model.drift_ppm - w.clocks.ppm).abs();
        assert!(drift <= e.drift_uncertainty_ppm, "{name}: drift off by {drift}, {e:?}");
        for (from, until) in [(0, w.loaded_from), (w.loaded_from, w.t)] {
            w.trips_agree(from, until).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        for (way, spec, r, t) in &all {
            agrees(r, t, &e, spec.duration_us as f64).unwrap_or_else(|why| panic!("{name} {way:?} {spec:?}: {why}"));
        }
        println!(
            "{name:<22} offset ± {:>8.1} us  drift ± {:>6.1} ppm  lost {:>3} of {}",
            e.uncertainty_us, e.drift_uncertainty_ppm, all[0].2.flow.lost, all[0].2.flow.sent
        );
    }
}

#[test]
fn a_wrong_clock_and_a_miscounted_packet_are_found() {
    let profile: Profile = toml::from_str(LINES[5].1).unwrap();
    let (mut w, e, all) = measured(&profile, 7, Clocks { offset: 5e6, ppm: 40.0 });
    assert!(w.trips_agree(0, w.t).unwrap() > 100, "the control");
    let slowest = w.answered.iter_mut().max_by_key(|(seq, came)| **came - w.left[*seq]).unwrap().1;
    *slowest += 1;
    assert!(w.trips_agree(0, w.t).unwrap_err().starts_with("round trip at 1"), "a microsecond is found");
    w.answered.pop_last();
    assert!(w.trips_agree(0, w.t).unwrap_err().contains("round trips, were"), "one too many is found");
    let (_, spec, r, t) = &all[0];
    let check = |r: &Received, t: &Truth| agrees(r, t, &e, spec.duration_us as f64);
    assert_eq!(check(r, t), Ok(()), "the control");
    assert!(t.lost > 0 && t.bursts.len() > 1);
    let mut miscounted = r.clone();
    miscounted.flow.lost -= 1;
    miscounted.flow.received += 1;
    assert!(check(&miscounted, t).unwrap_err().starts_with("lost"));
    let mut joined = r.clone();
    joined.flow.loss_bursts[0].1 += 1;
    assert!(check(&joined, t).unwrap_err().starts_with("bursts"));
    let mut wrong = r.clone();
    let delay = wrong.flow.delay_us.as_mut().unwrap();
    for q in [&mut delay.min, &mut delay.p50, &mut delay.p95, &mut delay.p99, &mut delay.max] {
        *q += 2.0 * e.uncertainty_us;
    }
    assert!(check(&wrong, t).unwrap_err().starts_with("delay"), "an offset that is off by twice the error bar");
    let mut drifting = r.clone();
    drifting.flow.jitter_us.as_mut().unwrap().p95 += 12e6 * 2e-6 * e.drift_uncertainty_ppm + 10.0;
    assert!(check(&drifting, t).unwrap_err().starts_with("jitter"));
}

#[test]
fn frames_that_lose_a_packet_are_counted_as_damaged() {
    let profile: Profile = toml::from_str("up.loss = { model = 'random', percent = 1 }").unwrap();
    let mut w = World::new(&profile, 5, Clocks { offset: 0.0, ppm: 0.0 });
    let phase = w.run(&[(Way::Up, VIDEO)])[0];
    let clock = w.filter.estimate().unwrap().model;
    let known = Known { way: Way::Up, sent: VIDEO.packets(), clock, floor_us: None, detail: true };
    let r = w.received(Way::Up, phase, &VIDEO, known);
    let frames = r.frames.unwrap();
    let lost: BTreeSet<u32> = w.facts[&Way::Up].iter().filter(|f| f.entry.fate == Fate::Lost).map(|f| f.seq).collect();
    let damaged: BTreeSet<u32> =
        Schedule::new(VIDEO).unwrap().filter(|d| lost.contains(&d.seq)).map(|d| d.frame).collect();
    assert_eq!((frames.frames, frames.damaged), (300, damaged.len() as u64));
    assert!(!damaged.is_empty());
    // The shape that reports read.
    let video = VideoFlow {
        mbit_s: 4.0,
        fps: 60.0,
        flow: r.flow,
        frames: frames.frames,
        frames_damaged: frames.damaged,
        frame_delay_us: frames.delay_us,
    };
    let direction = Direction { name: "up".to_owned(), video: Some(video), ..Direction::default() };
    assert_eq!(serde_json::from_str::<Direction>(&serde_json::to_string(&direction).unwrap()).unwrap(), direction);
}
