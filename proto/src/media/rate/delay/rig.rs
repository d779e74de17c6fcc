//! Senders with a controller each, a line that they share, receivers that feed back: on one virtual clock.

use crate::link::config::{Blackout, Delay, Line, Loss};
use crate::link::trace::Trace;
use crate::link::{Fate, Link, LinkConfig};
use crate::media::rate::{LineState, Pacer, PacketResult, RateController, SentLog};
use crate::media::twcc::Recorder;
use crate::units::{Bitrate, Micros};
use std::collections::VecDeque;

/// The clock goes in steps of this length.
const STEP_US: u64 = 200;
const LEN: u32 = 1_200;

/// How a sender makes packets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// There is always one more, at the target.
    Greedy,
    /// Frames of the target's size, or of this many bits a second where that is less; what waits for more than 200 ms is
    /// left out. `follows`: the encoder keeps to the target; else it does not know it.
    Frames { fps: u64, most: u64, follows: bool },
}

/// How a sender hears of its packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Back {
    /// Transport-wide feedback every 50 ms, of which some share is lost.
    Twcc { lost: f64 },
    /// An acknowledgement for every second packet, timed by the sender's clock: what QUIC gives.
    Acks,
}

pub(super) struct Sender {
    pub(super) control: Box<dyn RateController>,
    pub(super) source: Source,
    pub(super) back: Back,
    pub(super) starts: u64,
    log: SentLog,
    recorder: Recorder,
    pacer: Pacer,
    next: u64,
    backlog: VecDeque<(u64, u32)>,
    frames: u64,
    /// Acknowledged or lost up to here; what arrived beyond.
    acked: Vec<u64>,
    sent_at: VecDeque<(u64, Micros)>,
    coming: VecDeque<(u64, Feedback)>,
    rng: crate::link::rng::Rng,
    rtt: u64,
    pub(super) seen: Seen,
}

enum Feedback {
    Twcc(crate::media::twcc::Feedback),
    Acks(Vec<u64>),
}

/// What was seen of a sender, every 100 ms.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) targets: Vec<f64>,
    pub(super) states: Vec<LineState>,
    delivered: Vec<u64>,
    /// Time of arrival and queueing at the line, in microseconds.
    queueing: Vec<(u64, u64)>,
    sent: Vec<u64>,
}

impl Seen {
    /// Mean target over a time in seconds, in bits per second.
    pub(super) fn target(&self, from: f64, to: f64) -> f64 {
        let part = &self.targets[(from * 10.0) as usize..(to * 10.0) as usize];
        part.iter().sum::<f64>() / part.len() as f64
    }

    pub(super) fn lowest(&self, from: f64, to: f64) -> f64 {
        self.targets[(from * 10.0) as usize..(to * 10.0) as usize].iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Bits per second that arrived over a time in seconds.
    pub(super) fn goodput(&self, from: f64, to: f64) -> f64 {
        let part = &self.delivered[(from * 10.0) as usize..((to * 10.0) as usize).min(self.delivered.len())];
        part.iter().sum::<u64>() as f64 * 80.0 / part.len() as f64
    }

    /// When the goodput over half a second first reached so much, in seconds from `from`.
    pub(super) fn reaches(&self, from: f64, rate: f64) -> f64 {
        let end = self.delivered.len() as f64 / 10.0;
        let steps = std::iter::successors(Some(from), |t| Some(t + 0.1));
        let mut ends = steps.take_while(|t| t + 0.5 < end);
        ends.find(|t| self.goodput(*t, t + 0.5) >= rate).map_or(f64::INFINITY, |t| t + 0.5 - from)
    }

    /// Quantile of the queueing delay at the line, in milliseconds.
    pub(super) fn queueing(&self, from: f64, to: f64, share: f64) -> f64 {
        let within = |q: &&(u64, u64)| (from * 1e6..to * 1e6).contains(&(q.0 as f64));
        let mut all: Vec<u64> = self.queueing.iter().filter(within).map(|q| q.1).collect();
        all.sort_unstable();
        all.get((all.len() as f64 * share) as usize).map_or(0.0, |q| *q as f64 / 1_000.0)
    }

    /// Bits per second that were sent over a time in seconds.
    pub(super) fn sent(&self, from: f64, to: f64) -> f64 {
        let part = &self.sent[(from * 10.0) as usize..(to * 10.0) as usize];
        part.iter().sum::<u64>() as f64 * 80.0 / part.len() as f64
    }

    /// When a second first had at least that share of the rate as goodput, with a queue below 100 ms: its beginning.
    pub(super) fn settles(&self, share: f64, rate: f64) -> f64 {
        let end = self.delivered.len() as f64 / 10.0;
        let steps = std::iter::successors(Some(0.0), |t| Some(t + 0.1));
        let mut ends = steps.take_while(|t| t + 1.0 < end);
        let good = |t: &f64| self.goodput(*t, t + 1.0) >= share * rate && self.queueing_p95(*t, t + 1.0) < 100.0;
        ends.find(good).unwrap_or(f64::INFINITY)
    }

    /// 95th percentile of the queueing delay at the line, in milliseconds.
    pub(super) fn queueing_p95(&self, from: f64, to: f64) -> f64 {
        self.queueing(from, to, 0.95)
    }
}

pub(super) struct Rig {
    /// From when on which line is there, in milliseconds.
    lines: Vec<(u64, Link<(usize, u64)>)>,
    delay_us: u64,
    back_us: u64,
    pub(super) senders: Vec<Sender>,
    now: u64,
    drift_ppm: f64,
    police: Option<Bucket>,
}

/// Drops what is above its rate, without delay.
struct Bucket {
    bits_per_us: f64,
    most: f64,
    tokens: f64,
    at: u64,
}

impl Bucket {
    fn admits(&mut self, now: u64, len: u32) -> bool {
        self.tokens = ((now - self.at) as f64).mul_add(self.bits_per_us, self.tokens).min(self.most);
        self.at = now;
        let bits = f64::from(len) * 8.0;
        let admitted = self.tokens >= bits;
        self.tokens -= if admitted { bits } else { 0.0 };
        admitted
    }
}

/// A line with a rate and a queue.
pub(super) fn line(mbit_s: f64, queue_ms: f64, one_way_ms: f64) -> LinkConfig {
    let line = Line { mbit_s: Some(mbit_s), queue_ms: Some(queue_ms), ..Line::default() };
    LinkConfig { line: Some(line), delay: Delay::Constant { ms: one_way_ms }, ..LinkConfig::default() }
}

/// A line that sends nothing at all for so long, once: what came meanwhile waits.
pub(super) fn stalls(mbit_s: f64, one_way_ms: f64, at_ms: u64, for_ms: u64) -> LinkConfig {
    let stall = at_ms..at_ms + for_ms;
    let each_ms = 12_000.0 / (mbit_s * 1e3);
    let times = (0..).map(|n| (f64::from(n) * each_ms) as u64).take_while(|ms| *ms <= 60_000);
    let text: String = times.filter(|ms| !stall.contains(ms)).map(|ms| format!("{ms}\n")).collect();
    let trace = Some(Trace::parse(&text).unwrap());
    let line = Line { trace, queue_ms: Some(300.0), ..Line::default() };
    LinkConfig { line: Some(line), delay: Delay::Constant { ms: one_way_ms }, ..LinkConfig::default() }
}

/// A line that never fills.
pub(super) fn wide(one_way_ms: f64) -> LinkConfig {
    line(1_000.0, 100.0, one_way_ms)
}

pub(super) fn random_loss(percent: f64, mut config: LinkConfig) -> LinkConfig {
    config.loss = Some(Loss::Random { percent });
    config
}

pub(super) fn bursts(percent: f64, burst_packets: f64, mut config: LinkConfig) -> LinkConfig {
    config.loss = Some(Loss::Bursts { percent, burst_packets });
    config
}

pub(super) fn jitter(ms: f64, reorders: bool, mut config: LinkConfig) -> LinkConfig {
    config.delay = Delay::Uniform { min_ms: 15.0, max_ms: 15.0 + ms };
    config.jitter_reorders = reorders;
    config
}

pub(super) fn dark(start_ms: f64, length_ms: f64, mut config: LinkConfig) -> LinkConfig {
    config.blackout = vec![Blackout { start_ms, length_ms, every_ms: None }];
    config
}

impl Rig {
    pub(super) fn new(lines: &[(u64, LinkConfig)], one_way_ms: f64) -> Self {
        let make = |(at, c): &(u64, LinkConfig)| (*at, Link::new(c, 7 + at).unwrap());
        let us = (one_way_ms * 1_000.0) as u64;
        Self {
            lines: lines.iter().map(make).collect(),
            delay_us: us,
            back_us: us,
            senders: Vec::new(),
            now: 0,
            drift_ppm: 0.0,
            police: None,
        }
    }

    /// With a policer before the line.
    pub(super) fn policed(mut self, mbit_s: f64, bucket_bytes: u32) -> Self {
        let most = f64::from(bucket_bytes) * 8.0;
        self.police = Some(Bucket { bits_per_us: mbit_s, most, tokens: most, at: 0 });
        self
    }

    pub(super) fn drifting(mut self, ppm: f64) -> Self {
        self.drift_ppm = ppm;
        self
    }

    pub(super) fn with(
        mut self,
        control: impl RateController + 'static,
        source: Source,
        back: Back,
        starts_s: f64,
    ) -> Self {
        let n = self.senders.len() as u64;
        self.senders.push(Sender {
            control: Box::new(control),
            source,
            back,
            starts: (starts_s * 1e6) as u64,
            log: SentLog::new(Bitrate(400_000_000)),
            recorder: Recorder::default(),
            pacer: Pacer::new(),
            next: 0,
            backlog: VecDeque::new(),
            frames: 0,
            acked: Vec::new(),
            sent_at: VecDeque::new(),
            coming: VecDeque::new(),
            rng: crate::link::rng::Rng::new(99 + n),
            rtt: 0,
            seen: Seen::default(),
        });
        self
    }

    /// Goes on for so many seconds.
    pub(super) fn run(mut self, seconds: f64) -> Self {
        let end = self.now + (seconds * 1e6) as u64;
        while self.now < end {
            self.now += STEP_US;
            self.send();
            self.deliver();
            for s in &mut self.senders {
                s.hear(self.now, self.back_us);
            }
            if self.now.is_multiple_of(100_000) {
                for s in &mut self.senders {
                    s.seen.targets.push(s.control.target().0 as f64);
                    s.seen.states.push(s.control.state());
                }
            }
        }
        self
    }

    fn send(&mut self) {
        let at = self.now / 1_000;
        let Some(line) = self.lines.iter().rposition(|(from, _)| *from <= at) else { return };
        for (i, s) in self.senders.iter_mut().enumerate().filter(|(_, s)| s.starts <= self.now) {
            s.make(self.now);
            let now = Micros(self.now);
            let rate = match s.source {
                Source::Greedy => s.control.target(),
                Source::Frames { .. } => s.control.pacing_rate(now),
            };
            while let Some((_, len)) = s.backlog.front().copied() {
                if s.pacer.take(now, len, rate).is_err() {
                    break;
                }
                s.backlog.pop_front();
                s.log.note(s.next, len, now);
                s.sent_at.push_back((s.next, now));
                let slot = (self.now / 100_000) as usize;
                s.seen.sent.resize(s.seen.sent.len().max(slot + 1), 0);
                s.seen.sent[slot] += u64::from(len);
                if self.police.as_mut().is_none_or(|p| p.admits(self.now, len)) {
                    self.lines[line].1.handle_packet(now, len, (i, s.next));
                }
                s.next += 1;
                s.make(self.now);
            }
        }
    }

    fn deliver(&mut self) {
        let now = Micros(self.now);
        for (_, link) in &mut self.lines {
            while let Some(d) = link.poll_departure(now) {
                let (i, seq) = d.payload;
                let Fate::Delivered { at, .. } = d.entry.fate else { continue };
                let s = &mut self.senders[i];
                let slot = (at.0 / 100_000) as usize;
                s.seen.delivered.resize(s.seen.delivered.len().max(slot + 1), 0);
                s.seen.delivered[slot] += u64::from(d.entry.len);
                s.seen.queueing.push((at.0, at.since(d.entry.arrived).saturating_sub(self.delay_us)));
                // The receiver's clock began elsewhere and may drift.
                let theirs = 1e9 + at.0 as f64 * (1.0 + self.drift_ppm / 1e6);
                match s.back {
                    Back::Twcc { .. } => s.recorder.handle_packet(Micros(theirs as u64), seq as u16),
                    Back::Acks => s.acked.push(seq),
                }
            }
            while link.poll_drop().is_some() {}
        }
        let theirs = Micros((1e9 + self.now as f64 * (1.0 + self.drift_ppm / 1e6)) as u64);
        for s in &mut self.senders {
            while let Some(f) = s.recorder.poll(theirs) {
                let Back::Twcc { lost } = s.back else { continue };
                if !s.rng.chance(lost) {
                    s.coming.push_back((self.now + self.back_us, Feedback::Twcc(f)));
                }
            }
            if s.acked.len() >= 2 {
                s.coming.push_back((self.now + self.back_us, Feedback::Acks(std::mem::take(&mut s.acked))));
            }
        }
    }
}

impl Sender {
    /// What the source has ready by now.
    fn make(&mut self, now: u64) {
        match self.source {
            Source::Greedy if self.backlog.is_empty() => self.backlog.push_back((now, LEN)),
            Source::Greedy => {}
            Source::Frames { fps, most, follows } => {
                while self.frames * 1_000_000 / fps + self.starts <= now {
                    self.frames += 1;
                    let rate = if follows { self.control.target().0.min(most) } else { most };
                    let mut bytes = rate / 8 / fps;
                    while bytes > 0 {
                        let len = bytes.min(LEN.into()) as u32;
                        self.backlog.push_back((now, len));
                        bytes -= u64::from(len);
                    }
                }
                while self.backlog.front().is_some_and(|(at, _)| at + 200_000 < now) {
                    self.backlog.pop_front();
                }
            }
        }
    }

    fn hear(&mut self, now: u64, back_us: u64) {
        while let Some((_, f)) =
            self.coming.front().filter(|(at, _)| *at <= now).is_some().then(|| self.coming.pop_front()).flatten()
        {
            let now = Micros(now);
            match f {
                Feedback::Twcc(f) => {
                    let results = self.log.handle_feedback(&f).to_vec();
                    let round = |r: &PacketResult| r.arrived.map(|_| now.since(r.sent));
                    if let Some(rtt) = results.iter().rev().find_map(round) {
                        // What a receiver report would say: without the wait for the feedback.
                        self.control.handle_round_trip(now, rtt.min(2 * back_us + 1_000));
                    }
                    self.control.handle_results(now, &results);
                }
                Feedback::Acks(acked) => self.acks(now, &acked),
            }
        }
    }

    fn acks(&mut self, now: Micros, acked: &[u64]) {
        // As our QUIC is set up: by number, or by time once a later one is acknowledged.
        let Some(highest) = acked.iter().max() else { return };
        let newest = self.sent_at.iter().find(|(seq, _)| seq == highest).map(|(_, sent)| now.since(*sent));
        let rtt = newest.unwrap_or(0).max(self.rtt);
        self.rtt = (7 * self.rtt + newest.unwrap_or(self.rtt)) / 8;
        let gone = |seq: u64, sent: Micros| seq + 32 <= *highest || (seq < *highest && now.since(sent) > rtt * 9 / 8);
        let mut results = Vec::new();
        self.sent_at.retain(|(seq, sent)| {
            let arrived = acked.contains(seq);
            if arrived || gone(*seq, *sent) {
                let at = arrived.then_some(now.0 as i64);
                results.push(PacketResult { bytes: LEN, sent: *sent, arrived: at });
                return false;
            }
            true
        });
        if let Some(r) = results.iter().rev().find(|r| r.arrived.is_some()) {
            self.control.handle_round_trip(now, now.since(r.sent));
        }
        self.control.handle_results(now, &results);
    }
}
