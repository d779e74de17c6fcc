//! One measurement of a line, from the first packet to the result.

use super::family::answers;
use super::flows::{Flows, Ran};
use super::ladder;
use super::relay::Relay;
use super::route::{Route, Secret};
use super::session::Session;
use super::show::{Show, ms, spread};
use crate::net::link::InvitationLink;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_link::measure::flow::{Received, Way};
use trocar_link::measure::mtu::MtuSearch;
use trocar_link::measure::nat;
use trocar_link::measure::pair::{Pair, second_path};
use trocar_link::measure::ramp::{Idle, Ramp};
use trocar_link::measure::schedule::{FlowSpec, Shape};
use trocar_link::result::{self, Direction, LinkResult, Quantiles, VideoFlow};
use trocar_link::sockets::Clock;

/// AF41 (RFC 4594: interactive video) and ECT(0).
const MARK: u8 = (34 << 2) | 2;
/// Payload of the packets that fill a line, where they get through.
const PACKET_BYTES: u32 = 1_200;
/// Packets a second of the idle flow, and their payload: 0.16 Mbit/s.
const IDLE: (f64, u16) = (100.0, 200);
/// Pings while nothing else is to be disturbed, and otherwise.
const PING: Duration = Duration::from_millis(20);
/// How often a size of packet is tried before it does not pass.
const MTU_TRIES: u32 = 3;
/// Steps of one ramp.
const STEPS: u32 = 20;
/// Frames a second, frames from one key frame to the next, and its size beside another frame's.
const PICTURE: (f64, u32, f64) = (60.0, 60, 5.0);

/// What will be measured.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: String,
    /// The invitation, where the other end is a relay.
    pub(super) relay: Option<InvitationLink>,
    pub(super) routes: Vec<(String, Route)>,
    /// The target's address in the other family.
    pub(super) other_family: Result<SocketAddr, String>,
    pub(super) secret: Secret,
    pub(super) duration_s: f64,
    /// Highest rate to try, up and down.
    pub(super) rate_max: [f64; 2],
    /// Rate of the picture, up and down; none: the class has none there.
    pub(super) video: [Option<f64>; 2],
    pub(super) nat_timeout: Option<f64>,
    pub(super) command: String,
}

impl Plan {
    fn part_us(&self, share: f64, least_s: f64, most_s: f64) -> u64 {
        ((self.duration_s * share).clamp(least_s, most_s) * 1e6) as u64
    }
}

struct Measuring<'a> {
    plan: &'a Plan,
    flows: Flows,
    show: &'a mut Show,
    result: LinkResult,
    /// The ladder was a relay's.
    by_relay: bool,
    /// Flows whose figures wait for the last word on the clock: idle, then the picture's.
    idle: Vec<Ran>,
    video: Vec<Ran>,
}

/// Measures.
///
/// # Errors
/// Where the other end cannot be reached, or is lost on the way.
pub(super) fn measure(plan: &Plan, relay: Option<&Relay>, show: &mut Show) -> anyhow::Result<LinkResult> {
    let began = Instant::now();
    let mut result = LinkResult {
        schema: result::SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()),
        duration_s: 0.0,
        command: plan.command.clone(),
        here: String::new(),
        there: plan.target.clone(),
        load_average: load_average(),
        clock: None,
        path: result::Path::default(),
        directions: Vec::new(),
        ladder: Vec::new(),
        second_path: None,
        why_not: Vec::new(),
    };
    let clock = Clock::start();
    if let Some(relay) = relay {
        // First: it says what remains where UDP gets through nowhere.
        (result.ladder, result.why_not) = relay.ladder();
        ladder::say(&result.ladder, show);
    }
    let (session, second) = match connect(plan, relay, clock, &mut result) {
        Ok(connected) => connected,
        Err(error) if relay.is_some() => {
            show.line("connect", &format!("{error:#}"));
            result.why_not.push(("directions".to_owned(), format!("{error:#}")));
            result.duration_s = began.elapsed().as_secs_f64();
            return Ok(result);
        }
        Err(error) => return Err(error),
    };
    show.line("connect", &format!("{} is {}; it sees us as {}", plan.target, session.peer.program, seen(&session)));
    session.ping_every(Some(PING));
    if let Some(second) = &second {
        second.ping_every(Some(PING * 5));
    }
    let flows = Flows::new(session, second);
    let mut m = Measuring { plan, flows, show, result, by_relay: relay.is_some(), idle: Vec::new(), video: Vec::new() };
    m.clock();
    m.mtu();
    m.idle()?;
    let idle = m.idle_figures()?;
    m.marks()?;
    m.nat();
    m.family();
    m.ladder();
    for (i, way) in [Way::Up, Way::Down].into_iter().enumerate() {
        m.ramp(i, way, idle.get(i))?;
        m.picture(i, way)?;
    }
    m.figures()?;
    m.nat_timeout();
    m.result.duration_s = began.elapsed().as_secs_f64();
    Ok(m.result)
}

fn connect(
    plan: &Plan,
    relay: Option<&Relay>,
    clock: Clock,
    result: &mut LinkResult,
) -> anyhow::Result<(Session, Option<Session>)> {
    if let Some(Err(why)) = relay.map(|r| &r.granted) {
        anyhow::bail!("{why}");
    }
    let mut routes = plan.routes.iter();
    let Some((_, first)) = routes.next() else { anyhow::bail!("no way to {}", plan.target) };
    let session = Session::open(*first, &plan.secret, clock, None)?;
    // The first ping tells where we are seen.
    session.ping_every(Some(PING));
    let deadline = Instant::now() + Duration::from_secs(2);
    while session.seen_as().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let second =
        routes.next().map(|(_, route)| Session::open(*route, &plan.secret, clock, Some(&session))).transpose()?;
    result.here = format!("{} ({})", session.local, hostname());
    result.there = format!("{} ({})", plan.target, session.peer.program);
    result.path.family = if session.route.to.ip().to_canonical().is_ipv4() { "ipv4" } else { "ipv6" }.to_owned();
    Ok((session, second))
}

fn seen(session: &Session) -> String {
    session.seen_as().map_or_else(|| "nobody yet".to_owned(), |a| a.to_string())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "?".to_owned(), |h| h.trim().to_owned())
}

/// Of the last minute (Linux).
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

impl Measuring<'_> {
    fn why_not(&mut self, field: &str, reason: impl std::fmt::Display) {
        self.result.why_not.push((field.to_owned(), reason.to_string()));
    }

    fn session(&self) -> &Session {
        &self.flows.session
    }

    fn clock(&mut self) {
        let until = Instant::now() + Duration::from_micros(self.plan.part_us(0.05, 1.0, 3.0));
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            let n = self.flows.session.filter().len();
            self.show.tick("clock", || format!("{n} exchanges"));
        }
        if let Some(e) = self.flows.clock() {
            let text = format!("theirs is {} ahead of ours, ± {}", ms(e.model.offset_us), ms(e.uncertainty_us));
            self.show.line("clock", &text);
        }
    }

    fn mtu(&mut self) {
        let mut search = MtuSearch::default();
        while let Some(size) = search.next_size() {
            self.show.tick("mtu", || format!("{size} bytes"));
            let passed = self.passes(size);
            search.handle(size, passed);
        }
        self.result.path.mtu_payload_bytes = search.largest();
        match search.largest() {
            Some(bytes) => self.show.line("mtu", &format!("{bytes} bytes of UDP payload pass whole, there and back")),
            None => self.why_not("path.mtu_payload_bytes", "not even 500 bytes of UDP payload came back unfragmented"),
        }
    }

    fn passes(&self, size: usize) -> bool {
        let session = self.session();
        for _ in 0..MTU_TRIES {
            let since = session.now();
            let slowest = session.trips(since - 2_000_000).iter().map(|t| t.rtt_us).fold(0.0, f64::max);
            if !session.ping_once(size) {
                return false;
            }
            let until = Instant::now() + Duration::from_micros(slowest as u64 * 2 + 60_000);
            while Instant::now() < until {
                if session.trips(since).iter().any(|t| t.len == size) {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        false
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        let (pps, packet_bytes) = IDLE;
        let duration_us = self.plan.part_us(0.3, 2.0, 600.0);
        let spec = FlowSpec { shape: Shape::Smooth { pps }, packet_bytes, duration_us, tos: 0 };
        let flows = [(Way::Up, spec), (Way::Down, spec)];
        let since = self.session().now();
        let text = |s: f64| format!("{s:.0} of {:.0} s, {pps} packets/s each way", duration_us as f64 * 1e-6);
        let mut pairs: Vec<Pair> = Vec::new();
        if self.flows.second.is_some() {
            (self.idle, pairs) = self.flows.run_on_both(&flows, self.show, "idle", text)?;
        } else {
            self.idle = self.flows.run(&flows, self.show, "idle", text)?;
        }
        self.result.path.rtt_idle_us = self.session().round_trips(since, i64::MAX);
        self.show.line("idle", &format!("round trip {}", spread(self.result.path.rtt_idle_us.as_ref())));
        if let Some((name, _)) = self.plan.routes.get(1) {
            self.result.second_path = second_path(name, &pairs);
            if let Some(s) = &self.result.second_path {
                let text = format!(
                    "{} later; loses {:.3} %, both at once {:.3} %",
                    ms(s.skew_us),
                    s.second_loss_percent,
                    s.both_loss_percent
                );
                self.show.line("second", &text);
            } else {
                self.why_not("second_path", "nothing came on both paths");
            }
        } else {
            self.why_not("second_path", "--path was not given twice");
        }
        Ok(())
    }

    /// The idle flows without their series: what the ramps start from.
    fn idle_figures(&mut self) -> anyhow::Result<Vec<Received>> {
        let mut all = Vec::new();
        for ran in &self.idle {
            let r = self.flows.look_at(ran, None, false)?;
            let f = &r.flow;
            let text = format!(
                "{:<4} {} of {} lost, {} reordered; jitter {}",
                ran.way.name(),
                f.lost,
                f.sent,
                f.reordered,
                spread(f.jitter_us.as_ref())
            );
            self.show.line("idle", &text);
            self.result.directions.push(Direction { name: ran.way.name().to_owned(), ..Direction::default() });
            all.push(r);
        }
        Ok(all)
    }

    fn marks(&mut self) -> anyhow::Result<()> {
        let shape = Shape::Smooth { pps: 100.0 };
        let spec = FlowSpec { shape, packet_bytes: 200, duration_us: 300_000, tos: MARK };
        let flows = [(Way::Up, spec), (Way::Down, spec)];
        let ran = self.flows.run(&flows, self.show, "marks", |_| "AF41 and ECT(0) each way".to_owned())?;
        for (i, ran) in ran.iter().enumerate() {
            let tos = self.flows.received(ran, None, false)?.tos;
            let came: u64 = tos.iter().map(|(_, n)| n).sum();
            let with = |fits: fn(u8) -> bool| tos.iter().filter(|(t, _)| fits(*t)).map(|(_, n)| n).sum::<u64>();
            let (dscp, ecn) = (with(|t| t >> 2 == MARK >> 2), with(|t| t & 3 == MARK & 3));
            let Some(direction) = self.result.directions.get_mut(i).filter(|_| came > 0) else {
                self.why_not(
                    &format!("directions.{}.dscp_survives", ran.way.name()),
                    "none of the marked packets came",
                );
                continue;
            };
            // A few packets of another class may have come between; most of them decide.
            direction.dscp_survives = Some(dscp * 2 > came);
            direction.ecn_survives = Some(ecn * 2 > came);
            let kept = |yes| if yes { "arrives" } else { "is wiped off" };
            let text = format!(
                "{:<4} DSCP AF41 {}, ECN ECT(0) {}",
                ran.way.name(),
                kept(dscp * 2 > came),
                kept(ecn * 2 > came)
            );
            self.show.line("marks", &text);
        }
        Ok(())
    }

    fn nat(&mut self) {
        let session = self.session();
        let (local, Some(seen)) = (session.local, session.seen_as()) else {
            return self.why_not("path.nat_mapping", "no ping came back");
        };
        let second = if seen == local { None } else { session.seen_by_second_port() };
        self.result.path.mapped_address = (seen != local).then(|| seen.to_string());
        self.result.path.nat_mapping = nat::mapping(local, seen, second).map(str::to_owned);
        if self.result.path.nat_mapping.is_none() {
            self.why_not("path.nat_mapping", "the other end's second port did not answer");
        }
        if let (Some(mapping), true) = (&self.result.path.nat_mapping, seen != local) {
            self.show.line("nat", &format!("{local} is seen as {seen}: {mapping} mapping"));
        }
    }

    fn family(&mut self) {
        match &self.plan.other_family {
            Ok(to) => {
                let answers = answers(Route { from: None, to: *to }, self.session().clock()).is_ok();
                self.result.path.other_family = Some(answers);
                self.show.line("family", &format!("{to} {}", if answers { "answers too" } else { "does not answer" }));
            }
            Err(why) => self.why_not("path.other_family", why),
        }
    }

    fn ladder(&mut self) {
        if self.by_relay {
            return;
        }
        let (to, door) = (self.session().route.to, self.session().peer.quic.clone());
        if door.is_none() {
            self.why_not("ladder.quic-udp", "the other end has no QUIC");
        }
        let rtt = self.result.path.rtt_idle_us.as_ref().map(|q| q.p50);
        self.result.ladder = ladder::of_peer(to, door.as_ref(), rtt);
        ladder::say(&self.result.ladder, self.show);
        for name in ["webrtc-udp", "ice-tcp", "turn-udp", "turn-tls-443"] {
            self.why_not(&format!("ladder.{name}"), "a peer is no relay");
        }
    }

    fn packet_bytes(&self) -> u16 {
        self.result.path.mtu_payload_bytes.unwrap_or(PACKET_BYTES).min(PACKET_BYTES) as u16
    }

    fn ramp(&mut self, i: usize, way: Way, idle: Option<&Received>) -> anyhow::Result<()> {
        let most = self.plan.rate_max.get(i).copied().unwrap_or(10.0).min(self.session().peer.mbit_s_max);
        let step_us = self.plan.part_us(0.02, 0.25, 1.0);
        let jitter = idle.and_then(|r| r.flow.jitter_us.as_ref());
        let floor_us = idle.and_then(|r| r.flow.delay_us.as_ref()).map(|d| d.min);
        let at_rest =
            Idle { loss_percent: idle.map_or(0.0, |r| r.step.loss_percent), jitter_us: jitter.map_or(0.0, |j| j.p95) };
        let mut ramp = Ramp::new((most / 16.0).max(0.5), most, STEPS, at_rest);
        let mut too_slow = None;
        while let Some(rate) = ramp.next_rate() {
            let r = self.step(way, FlowSpec::smooth_at(rate, self.packet_bytes(), step_us), floor_us)?;
            let s = &r.step;
            let text = format!(
                "{:<4} {:7.2} Mbit/s sent, {:7.2} came, {:.2} % lost, {} in queues",
                way.name(),
                s.offered_mbit_s,
                s.received_mbit_s,
                s.loss_percent,
                ms(s.queue_p95_us)
            );
            self.show.line("ramp", &text);
            if s.offered_mbit_s < rate * 0.9 {
                too_slow = Some(s.offered_mbit_s);
                break;
            }
            ramp.handle_step(r.step, r.stretch, at_rest.noise(step_us));
        }
        self.fill(way, ramp.capacity().map_or(0.5, |c| c.mbit_s * 1.1).min(most))?;
        let capacity = ramp.capacity();
        let field = format!("directions.{}.capacity_mbit_s", way.name());
        if let Some(rate) = too_slow {
            self.why_not(
                &field,
                format!("the sending machine made {rate:.1} Mbit/s and no more: the line may carry more"),
            );
        } else if capacity.is_none() {
            self.why_not(&field, "not even the lowest rate came through clean");
        } else if capacity.is_some_and(|c| c.at_least) {
            let field = format!("directions.{}.capacity_uncertainty_mbit_s", way.name());
            self.why_not(
                &field,
                format!("the line carried all of the {most} Mbit/s that were to be tried: at least that"),
            );
        }
        if let Some(direction) = self.result.directions.get_mut(i) {
            direction.ramp = ramp.steps().to_vec();
            direction.capacity_mbit_s = capacity.map(|c| c.mbit_s);
            direction.capacity_uncertainty_mbit_s = capacity.filter(|c| !c.at_least).map(|c| c.uncertainty);
        }
        if let Some(c) = capacity {
            let bar = if c.at_least { String::new() } else { format!(" ± {:.2}", c.uncertainty) };
            let least = if c.at_least { "at least " } else { "" };
            self.show.line("ramp", &format!("{:<4} carries {least}{:.2}{bar} Mbit/s", way.name(), c.mbit_s));
        }
        Ok(())
    }

    fn step(&mut self, way: Way, spec: FlowSpec, floor_us: Option<f64>) -> anyhow::Result<Received> {
        let ran = self.flows.run(&[(way, spec)], self.show, "ramp", |_| format!("{:.1} Mbit/s", spec.mbit_s()))?;
        let Some(ran) = ran.first() else { anyhow::bail!("no flow") };
        self.flows.received(ran, floor_us, false)
    }

    /// Round trips while the line is filled.
    fn fill(&mut self, way: Way, mbit_s: f64) -> anyhow::Result<()> {
        let since = self.session().now();
        let spec = FlowSpec::smooth_at(mbit_s, self.packet_bytes(), self.plan.part_us(0.05, 0.7, 3.0));
        let name = way.name();
        let ran =
            self.flows.run(&[(way, spec)], self.show, "load", |_| format!("{name} filled with {mbit_s:.1} Mbit/s"))?;
        let until = since + spec.duration_us as i64;
        for r in &ran {
            self.flows.received(r, None, false)?;
        }
        let loaded = self.session().round_trips(since, until);
        self.show.line("load", &format!("{name:<4} filled: round trip {}", spread(loaded.as_ref())));
        // The worse of the two directions.
        let worse = |q: &Quantiles| self.result.path.rtt_loaded_us.as_ref().is_none_or(|old| q.p99 > old.p99);
        if let Some(q) = loaded.filter(worse) {
            self.result.path.rtt_loaded_us = Some(q);
        }
        Ok(())
    }

    fn picture(&mut self, i: usize, way: Way) -> anyhow::Result<()> {
        let field = format!("directions.{}.video", way.name());
        let Some(mbit_s) = self.plan.video.get(i).copied().flatten() else {
            self.why_not(&field, "the class has no rate in this direction");
            return Ok(());
        };
        let (fps, key_every, key_size) = PICTURE;
        let shape = Shape::Video { mbit_s, fps, key_every, key_size };
        let duration_us = self.plan.part_us(0.15, 1.0, 60.0);
        let spec = FlowSpec { shape, packet_bytes: self.packet_bytes(), duration_us, tos: 0 };
        if let Err(e) = spec.check(self.session().peer.mbit_s_max) {
            self.why_not(&field, e);
            return Ok(());
        }
        let name = way.name();
        let text = |s: f64| format!("{name} {mbit_s:.1} Mbit/s at {fps} frames/s, {s:.0} s");
        self.video.extend(self.flows.run(&[(way, spec)], self.show, "picture", text)?);
        Ok(())
    }

    /// What waited for the clock.
    fn figures(&mut self) -> anyhow::Result<()> {
        if let Some(e) = self.flows.clock() {
            self.result.clock = Some(result::Clock {
                offset_us: e.model.offset_us(self.session().now() - e_span(self.session(), &e)),
                uncertainty_us: e.uncertainty_us,
                drift_ppm: e.model.drift_ppm,
                drift_uncertainty_ppm: e.drift_uncertainty_ppm,
            });
        } else {
            self.why_not("clock", "no ping came back");
        }
        for (direction, ran) in self.result.directions.iter_mut().zip(&self.idle) {
            direction.idle = Some(self.flows.received(ran, None, true)?.flow);
        }
        for ran in std::mem::take(&mut self.video) {
            let r = self.flows.received(&ran, None, true)?;
            let Some(frames) = r.frames else { continue };
            let text = format!(
                "{:<4} {} of {} frames damaged; a frame takes {}",
                ran.way.name(),
                frames.damaged,
                frames.frames,
                spread(frames.delay_us.as_ref())
            );
            self.show.line("picture", &text);
            let video = VideoFlow {
                mbit_s: ran.spec.mbit_s(),
                fps: PICTURE.0,
                flow: r.flow,
                frames: frames.frames,
                frames_damaged: frames.damaged,
                frame_delay_us: frames.delay_us,
            };
            if let Some(d) = self.result.directions.iter_mut().find(|d| d.name == ran.way.name()) {
                d.video = Some(video);
            }
        }
        let moves = self.session().moves();
        if moves > 0 {
            self.show.line("nat", &format!("our address became another one {moves} times while packets flowed"));
            self.why_not(
                "path.mapped_address",
                format!("it changed {moves} times during the measurement: the last one is said"),
            );
            self.result.path.mapped_address = self.session().seen_as().map(|a| a.to_string());
        }
        Ok(())
    }

    fn nat_timeout(&mut self) {
        let Some(most) = self.plan.nat_timeout else {
            return self.why_not("path.nat_lives_s", "--nat-timeout was not given");
        };
        for pause in nat::pauses(most) {
            self.show.line("nat", &format!("resting for {pause} s"));
            match self.session().rest(pause) {
                Ok(Some(_)) => self.result.path.nat_lives_s = Some(pause.round().max(1.0)),
                Ok(None) => {
                    self.show.line("nat", &format!("a mapping that rests for {pause} s is gone"));
                    break;
                }
                Err(error) => return self.why_not("path.nat_lives_s", format!("{error:#}")),
            }
        }
        if self.result.path.nat_lives_s.is_none() {
            self.why_not("path.nat_lives_s", "not even the shortest pause was survived");
        }
    }
}

/// How long ago the run's first exchange was: the offset is said for the start.
fn e_span(session: &Session, e: &trocar_link::measure::clock::Estimate) -> i64 {
    2 * (session.now() - e.model.at).max(0)
}
