//! The one thread that drives the station: what comes in goes to [`Station`] and [`Mirror`], what they want done goes out at once.

use super::acts::{Act, Hands, News, Path};
use super::inbox::{Felt, Inbox, Lanes, Taken};
use super::input::Happenings;
use super::input::trajectory::Running;
use super::ledger::Ledger;
use super::now;
use super::report::{Report, Sent};
use super::view::{Offer, View};
use super::ways::{Came, Opened, Ways};
use super::words;
use anyhow::Context as _;
use serde_json::json;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::{Datagram, FromGate, Mode, Payload, Pose, Status, ToGate, Token};
use trocar_proto::handover::mirror::{Mirror, View as Seen};
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::station::{Input, Output, Phase, Senses, Station};
use trocar_proto::handover::types::{ChannelId, Clutch, Epoch, ExpertId, Nonce};
use trocar_proto::units::Micros;

/// The longest that nothing is looked at; the machine wants 5 ms at most.
const TICK: u64 = 2_000;
/// Time between two probes.
const PROBE: u64 = 100_000;
/// The screen sees a new picture so often.
const SHOW: u64 = 50_000;
const SECOND: u64 = 1_000_000;
/// Hands are at rest when nothing was moved for so long.
const MOVING: u64 = 60_000;

/// The station was not there for longer than this: what waited is a backlog (HO-T-011).
const GAP: u64 = 100_000;
/// The oldest motion that is sent (HO-T-012).
const MOTION_AGE: u64 = 50_000;
/// The oldest ACCEPT: one of a backlog was meant for an offer that another may have followed.
const ACCEPT_AGE: u64 = 500_000;

/// Gives the present token.
pub(super) type TokenSource = Arc<dyn Fn() -> String + Send + Sync>;

/// The running core.
pub(super) struct Handle {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Ends it. The station's last word is its silence: the gate's lease does the rest.
    pub(super) fn stop(mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) struct Core {
    me: ExpertId,
    station: Station,
    mirror: Mirror,
    token: TokenSource,
    report: Report,
    happenings: Happenings,
    ledger: Option<Ledger>,
    inbox: Inbox,
    ways: Ways,
    senses: Senses,
    motion: Option<Running>,
    /// When something was last moved.
    moved: Option<Micros>,
    probe_due: Micros,
    show_due: Micros,
    second_due: Micros,
    sent: Sent,
    offer: Option<Offer>,
    epoch: Option<Epoch>,
    /// What was last said of it.
    said: Said,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    phase: Phase,
    control: bool,
    silent: bool,
    unknown: bool,
    stopped: Option<u8>,
    protection: Protection,
}

impl Core {
    /// Starts the thread.
    pub(super) fn start(
        me: ExpertId,
        token: TokenSource,
        report: Report,
        happenings: Happenings,
        ledger: Option<Ledger>,
        paths: usize,
    ) -> anyhow::Result<(Inbox, Handle)> {
        let (inbox, lanes) = Inbox::new();
        let core = Self::new(me, token, report, happenings, ledger, inbox.clone(), paths);
        let work = move || core.run(&lanes);
        let thread = std::thread::Builder::new().name("trocar-station".to_owned()).spawn(work).context("no thread")?;
        Ok((inbox.clone(), Handle { inbox, thread: Some(thread) }))
    }

    fn new(
        me: ExpertId,
        token: TokenSource,
        report: Report,
        happenings: Happenings,
        ledger: Option<Ledger>,
        inbox: Inbox,
        paths: usize,
    ) -> Self {
        let now = now();
        Self {
            station: Station::new(Config::default(), me, now),
            me,
            mirror: Mirror::default(),
            token,
            report,
            happenings,
            ledger,
            inbox,
            // Above the ids of a station that ran before with this certificate (HO-C-006).
            ways: Ways::new(paths, crate::net::api::wall_now().0, now),
            senses: Senses::default(),
            motion: None,
            moved: None,
            probe_due: now,
            show_due: now,
            second_due: now.plus(SECOND),
            sent: Sent::default(),
            offer: None,
            epoch: None,
            said: Said {
                phase: Phase::Observer,
                control: false,
                silent: false,
                unknown: true,
                stopped: None,
                protection: Protection::Single,
            },
        }
    }

    fn run(mut self, lanes: &Lanes) {
        let mut looked = now();
        loop {
            let taken = lanes.take(self.wait(now()));
            // After it was taken: all of it came before.
            let (at, stop) = (now(), taken.stop);
            let gap = at.since(std::mem::replace(&mut looked, at));
            self.serve(taken, gap);
            if stop {
                return;
            }
            self.step();
        }
    }

    /// Until something is due.
    fn wait(&self, now: Micros) -> Duration {
        let motion = self.motion.as_ref().map_or(TICK, |m| m.due().0.saturating_sub(now.0));
        Duration::from_micros(motion.min(TICK))
    }

    /// Everything that waited, acts first, motions last; `gap` microseconds after the last time.
    fn serve(&mut self, taken: Taken, gap: u64) {
        let Taken { estop, give_back, acts, news, hands, shown, echoes, datagrams, motions, refused, .. } = taken;
        estop.into_iter().for_each(|reason| self.act(Act::Estop(reason)));
        if give_back {
            self.act(Act::Return);
        }
        for (at, act) in acts {
            if matches!(act, Act::Accept) && now().since(at) > ACCEPT_AGE {
                self.report.event("accepted", json!({ "taken": false }));
            } else {
                self.act(act);
            }
        }
        if refused > 0 {
            self.report.event("refused", json!({ "acts": refused }));
        }
        news.into_iter().for_each(|one| self.hear(one));
        self.sent.echoes += echoes;
        if let Some(frame) = shown {
            self.machine(Input::Shown(frame));
        }
        let mut late = gap;
        if let Some(Felt { let_go, latest, at }) = hands {
            late = late.max(now().since(at));
            if let_go != Hands::default() {
                self.feel(let_go);
            }
            self.feel(latest);
        }
        for (path, lane) in datagrams.iter().enumerate() {
            lane.iter().for_each(|sealed| self.datagram(path, sealed));
        }
        if late > GAP {
            // HO-T-011: whatever the backlog said of the clutch, it was said before this.
            self.sent.late += motions.len() as u64;
            self.machine(Input::Woke);
            return self.report.event("gap", json!({ "ms": late / 1_000, "motions": motions.len() }));
        }
        for (at, motion) in motions {
            // HO-T-012
            if now().since(at) > MOTION_AGE {
                self.sent.late += 1;
            } else {
                self.moved_by(motion);
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Opened(path) => self.opened(*path),
            News::Message(path, id, message) => {
                if self.ways.is_new(now(), path, id) {
                    self.message(message);
                }
            }
            News::Gone(path, why) => {
                if let Some(channel) = self.ways.gone(path) {
                    self.machine(Input::Gone(channel));
                }
                if self.ways.is_empty() {
                    self.tell("disconnected", json!({ "why": why }));
                } else {
                    self.report.event("path", json!({ "path": path + 1, "open": false, "why": why }));
                }
            }
        }
    }

    /// What time does: HBs, motion, probes, what is said and shown.
    fn step(&mut self) {
        let now = now();
        if self.moved.is_some_and(|at| now.since(at) >= MOVING) {
            self.moved = None;
            self.feel(Hands::default());
        }
        self.machine(Input::Tick);
        self.move_on(now);
        if now >= self.probe_due {
            self.probe_due = now.plus(PROBE);
            self.ways.look(now);
            if let Some(nonce) = random().filter(|_| !self.ways.is_empty()) {
                self.mirror.probed(now, nonce);
                self.send(&ToGate::Probe { nonce });
            }
        }
        self.say(now);
        if now >= self.second_due {
            self.second_due = now.plus(SECOND);
            let (sent, dropped) = (std::mem::take(&mut self.sent), self.inbox.dropped());
            self.ledger.iter_mut().for_each(Ledger::hand_over);
            self.report.event("sent", sent.words(dropped));
            self.report.event("paths", words::paths(&self.ways.views(now), self.said.protection));
        }
    }

    /// One input for the machine, and all that it wants done.
    fn machine(&mut self, input: Input) -> bool {
        let taken = match self.station.handle(now(), input) {
            Ok(()) => true,
            Err(reason) => {
                tracing::debug!(%reason, "the station's own refusal");
                false
            }
        };
        while let Some(output) = self.station.poll() {
            match output {
                Output::Send(message) => self.send(&message),
                Output::Seal(channel, datagram) => self.seal(channel, &datagram),
            }
        }
        taken
    }

    fn send(&mut self, message: &ToGate) {
        self.ways.send(None, message);
    }

    fn seal(&mut self, channel: ChannelId, datagram: &Datagram) {
        let at = now();
        match self.ways.seal(channel, datagram) {
            Ok((0, _)) => self.sent.dropped += 1,
            Ok((_, len)) => match datagram {
                Datagram::Heartbeat(_) => self.sent.heartbeats += 1,
                Datagram::Command(command) => {
                    self.sent.commands += 1;
                    self.ledger.iter_mut().for_each(|l| l.put(at, command, len));
                }
                Datagram::Beacon(_) => {} // the gate's alone
            },
            Err(error) => {
                tracing::debug!(%error, "not sealed");
                self.sent.dropped += 1;
            }
        }
    }

    fn opened(&mut self, path: Path) {
        let (gate, number) = (path.gate.clone(), path.number + 1);
        if let Some(old) = self.ways.gone(path.number) {
            self.machine(Input::Gone(old));
        }
        let (channel, binds) = match self.ways.opened(now(), path) {
            Opened::First(channel) => {
                self.mirror = Mirror::default();
                self.tell("connected", json!({ "gate": gate, "path": number }));
                (channel, None)
            }
            Opened::Another(channel, tunnel) => {
                self.report.event("path", json!({ "path": number, "open": true, "gate": gate }));
                (channel, Some(tunnel))
            }
            Opened::Elsewhere => {
                tracing::error!(path = number, gate, "this path leads to another gate: it is not used");
                return self.report.event("path", json!({ "path": number, "open": false, "why": "another gate" }));
            }
        };
        // HO-T-010: the first one makes an observer, whatever it was before.
        self.machine(Input::Opened(channel));
        if let Some(token) = self.fresh_token() {
            self.ways.send(Some(channel), &ToGate::Hello { capabilities: 0, binds, token });
        }
    }

    fn fresh_token(&self) -> Option<Token> {
        Token::new((self.token)()).inspect_err(|e| tracing::error!("token: {e}")).ok()
    }

    fn message(&mut self, message: FromGate) {
        match &message {
            FromGate::Status(status) => {
                // HO-T-014: the machine takes them over; what it cannot go by has to be put right at the gate.
                if let Err(error) = status.timers.apply(self.station.config()) {
                    tracing::error!(%error, "the gate's timers are none that a station can go by");
                    self.report.event("timers_refused", json!({ "why": error.to_string() }));
                }
                self.mirror.handle(status.clone());
                self.report.event("status", words::status(status, self.me));
            }
            FromGate::Offer { set, step, expires_ms, .. } => {
                let until = now().plus(u64::from(*expires_ms) * 1_000);
                self.offer = Some(Offer { set: *set, step: step.to_string(), until });
                let (set, step) = (words::set(*set), step.as_str());
                self.tell("offer", json!({ "set": set, "step": step, "expires_ms": expires_ms }));
            }
            FromGate::Withdraw { .. } => self.tell("withdraw", json!({})),
            FromGate::Grant { holder, epoch, set, lease_ms } => {
                let mine = *holder == self.me;
                // Before the machine, whose next datagrams are bound to it.
                if mine {
                    self.ways.grant(*epoch);
                }
                self.epoch = Some(*epoch);
                let (set, epoch) = (words::set(*set), epoch.0);
                if mine {
                    self.happenings.tell("grant", now());
                }
                self.report.event("grant", json!({ "mine": mine, "epoch": epoch, "set": set, "lease_ms": lease_ms }));
            }
            FromGate::Nack { reason, epoch } => {
                self.tell("nack", json!({ "reason": reason.to_string(), "epoch": epoch.0 }));
                self.report.with_view(|v| v.refused = Some(reason.to_string()));
            }
        }
        self.machine(Input::Message(message));
    }

    fn datagram(&mut self, path: usize, sealed: &[u8]) {
        match self.ways.open(now(), path, sealed) {
            Came::New(channel, Datagram::Beacon(beacon)) if self.machine(Input::Beacon(channel, beacon)) => {
                self.sent.beacons += 1;
            }
            Came::Copy => self.sent.copies += 1,
            Came::New(..) | Came::Nothing => self.sent.refused += 1,
        }
    }

    fn act(&mut self, act: Act) {
        let (word, taken) = match act {
            Act::Hands(hands) => return self.feel(hands),
            Act::Motion(payload) => return self.moved_by(payload),
            Act::Trajectory(trajectory) => {
                self.report.event("trajectory", json!({ "hz": trajectory.hz, "seconds": trajectory.seconds }));
                self.motion = Some(Running::begin(trajectory, now()));
                return;
            }
            Act::Accept => {
                let token = self.fresh_token();
                ("accepted", token.is_some_and(|token| self.machine(Input::Accept(token))))
            }
            Act::Decline(reason) => ("declined", self.machine(Input::Decline(reason))),
            Act::Return => ("returned", self.machine(Input::Return)),
            Act::Request(set, reason) => {
                self.send(&ToGate::Request { set, grade: set.grade(), reason });
                ("requested", !self.ways.is_empty())
            }
            Act::Estop(reason) => {
                self.send(&ToGate::Estop { person: None, reason });
                ("estop", !self.ways.is_empty())
            }
            Act::Quit => return,
        };
        self.report.event(word, json!({ "taken": taken }));
        if word == "accepted" && taken {
            self.happenings.tell(word, now());
        }
    }

    /// Says what happened, to scripts as well.
    fn tell(&self, what: &'static str, facts: serde_json::Value) {
        self.happenings.tell(what, now());
        self.report.event(what, facts);
    }

    fn feel(&mut self, hands: Hands) {
        let s = &mut self.senses;
        s.presence = hands.presence.unwrap_or(s.presence);
        s.pedal = hands.pedal.unwrap_or(s.pedal);
        s.clutch = hands.clutch.unwrap_or(s.clutch);
        if let Some(pose) = hands.pose {
            s.pose = pose;
        }
        let mut senses = s.clone();
        if let Ok(pose) = sim::Pose::decode(senses.pose.as_bytes()) {
            let motion_zero = pose.motion_zero && !self.is_moving();
            senses.pose = Pose::new(sim::Pose { motion_zero, ..pose }.encode()).unwrap_or_default();
        }
        self.machine(Input::Senses(senses));
    }

    /// The trajectory's next step, where it is due and the controls are coupled.
    fn move_on(&mut self, now: Micros) {
        let coupled = self.senses.clutch == Clutch::Closed && self.station.phase() == Phase::Control;
        let Some(motion) = self.motion.as_mut() else { return };
        let step = motion.step(now, coupled);
        if motion.is_over(now) {
            self.motion = None;
        }
        if let Some(payload) = step {
            self.moved_by(payload);
        }
    }

    /// A motion; a pose whose hands just moved is not at rest (HO-R-004).
    fn moved_by(&mut self, payload: Payload) {
        let was = self.is_moving();
        let moves = sim::Motion::decode(payload.as_bytes()).is_ok_and(|m| m.axes != [0; 6] || m.camera != [0; 3]);
        if moves {
            self.moved = Some(now());
        }
        if moves != was {
            self.feel(Hands::default());
        }
        self.machine(Input::Motion(payload));
    }

    fn is_moving(&self) -> bool {
        self.moved.is_some_and(|at| now().since(at) < MOVING)
    }

    /// Says each change once, and shows it.
    fn say(&mut self, now: Micros) {
        let phase = self.station.phase();
        let seen = match self.mirror.view(now, self.station.config()) {
            Seen::Known(status) => Some(status.clone()),
            Seen::Unknown => None,
        };
        let stopped = seen.as_ref().filter(|s| is_mine(s, self.me)).map(|s| s.stopped);
        let before = std::mem::replace(
            &mut self.said,
            Said {
                phase,
                control: phase == Phase::Control && self.mirror.has_control(now, self.station.config(), self.me), // HO-T-003
                silent: matches!(phase, Phase::Accepted | Phase::Control) && !self.station.is_sending(),
                unknown: seen.is_none(),
                stopped,
                protection: self.ways.protection(now),
            },
        );
        let said = self.said;
        if matches!(phase, Phase::Observer | Phase::Control) {
            self.offer = None;
        }
        if said.phase != before.phase {
            self.report.event("phase", json!({ "phase": words::phase(phase) }));
            if phase == Phase::Observer {
                self.happenings.tell("observer", now);
            }
        }
        if said.control != before.control {
            self.happenings.tell(if said.control { "control" } else { "control_lost" }, now);
            self.report.event("control", json!({ "control": said.control, "epoch": self.epoch.map(|e| e.0) }));
        }
        if said.silent != before.silent {
            if said.silent {
                self.happenings.tell("silence", now);
            }
            self.report.event("silence", json!({ "silence": said.silent }));
        }
        if said.unknown != before.unknown {
            if said.unknown {
                self.happenings.tell("unknown", now);
            }
            self.report.event("unknown", json!({ "unknown": said.unknown }));
        }
        if said.protection != before.protection {
            self.report.event("protection", json!({ "paths": said.protection.name() }));
        }
        if said.stopped != before.stopped {
            match said.stopped {
                Some(0) => self.happenings.tell("running", now),
                Some(_) => self.happenings.tell("stopped", now),
                None => {}
            }
            self.report.event("motion", json!({ "stopped": said.stopped.map(words::causes) }));
        }
        if said != before || now >= self.show_due {
            self.show_due = now.plus(SHOW);
            self.show(now, seen);
        }
    }

    fn show(&self, now: Micros, seen: Option<Status>) {
        let (gate, paths) = (self.ways.gate(), self.ways.views(now));
        let (said, senses, offer) = (self.said, self.senses.clone(), self.offer.clone());
        self.report.with_view(|view| {
            let refused = view.refused.take();
            *view = View {
                at: now,
                gate,
                paths,
                protection: said.protection,
                phase: said.phase,
                control: said.control,
                silent: said.silent,
                mine: seen.as_ref().is_some_and(|s| is_mine(s, self.me)),
                status: seen,
                offer,
                senses,
                refused,
                dropped: self.inbox.dropped(),
            };
        });
    }
}

fn is_mine(status: &Status, me: ExpertId) -> bool {
    status.mode == Mode::Remote && status.expert == Some(me)
}

/// A random number; without one nothing is asked.
fn random() -> Option<Nonce> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(Nonce(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests;
