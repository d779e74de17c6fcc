//! With the gates of one session: all are stopped, one is shown, and none while they differ.

use super::acts::{Act, Acts, Kind, Settled};
use super::link::{GateLink, GateLinks, MOST_GATES};
use super::probes::Probes;
use super::words::{control_info, request_reason};
use super::{Ask, Asked};
use crate::app::App;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use trocar_proto::handover::message::{FromGate, Mode, Status, ToGate, Token};
use trocar_proto::handover::types::{Epoch, ExpertId, GrantedSet, Nonce};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};

/// Time between two probes of ours.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// A gate that says nothing for this long is lost: STATUS comes ten times a second.
const SILENCE: Duration = Duration::from_secs(2);
/// Registers that differ for longer than this are two gates: one gate's copies by two ways differ for a STATUS or two.
const DIFFER: Duration = Duration::from_millis(300);

/// Speaks with a session's gates until the last one is lost.
pub(super) async fn converse(app: &App, session: &SessionId, first: GateLink, more: &mut GateLinks) {
    let mut talk = Talk {
        app,
        session,
        asked: app.gates.link(session.clone()),
        gates: Vec::new(),
        made: 0,
        turn: 0,
        probes: Probes::default(),
        probe_at: Instant::now(),
        acts: Acts::default(),
        differ: None,
    };
    talk.greet(first);
    while !talk.gates.is_empty() {
        talk.step(more).await;
    }
}

/// What must be the same at all gates.
type Register = (Epoch, Mode, Option<ExpertId>, GrantedSet);

/// One gate.
struct Gate {
    number: u32,
    link: GateLink,
    heard: Instant,
    /// What its newest STATUS said.
    register: Option<Register>,
}

/// Registers differ.
struct Differ {
    since: Instant,
    is_told: bool,
}

struct Talk<'a> {
    app: &'a App,
    session: &'a SessionId,
    asked: Asked,
    /// The newest last.
    gates: Vec<Gate>,
    made: u32,
    /// Which one is listened to first: none can keep another one from being heard.
    turn: usize,
    probes: Probes,
    probe_at: Instant,
    acts: Acts,
    differ: Option<Differ>,
}

impl Talk<'_> {
    /// One thing that happens. What people do goes before what machines ask.
    async fn step(&mut self, more: &mut GateLinks) {
        let is_waiting = self.probes.is_waiting();
        let has_room = self.gates.len() < MOST_GATES;
        let due = self.due();
        self.turn = self.turn.wrapping_add(1);
        tokio::select! {
            biased;
            Some(ask) = self.asked.acts.recv() => self.act(ask),
            Some(link) = more.recv(), if has_room => self.greet(link),
            (gate, heard) = hear(&mut self.gates, self.turn) => match heard {
                Some(message) => self.heard(gate, message),
                None => self.lose(gate),
            },
            Some(nonce) = self.asked.probes.recv(), if !is_waiting => {
                self.probes.ask(nonce);
                self.probe_at = Instant::now() + PROBE_EVERY;
            }
            () = sleep_until(self.probe_at), if is_waiting => {
                while let Ok(nonce) = self.asked.probes.try_recv() {
                    self.probes.ask(nonce);
                }
                self.send_probe();
            }
            () = sleep_until(due) => {}
        }
        self.look(Instant::now());
    }

    fn due(&self) -> Instant {
        let silent = self.gates.iter().map(|g| g.heard + SILENCE);
        let differ = self.differ.iter().filter(|d| !d.is_told).map(|d| d.since + DIFFER);
        let all = silent.chain(differ).chain(self.acts.due());
        all.min().unwrap_or_else(|| Instant::now() + SILENCE)
    }

    /// What time alone does.
    fn look(&mut self, now: Instant) {
        let silent = self.gates.iter().filter(|g| g.heard + SILENCE <= now).map(|g| g.number);
        for gate in silent.collect::<Vec<_>>() {
            self.lose(gate);
        }
        let late = self.acts.late(now);
        self.settle(late);
        if !self.registers_differ() {
            self.differ = None;
            return;
        }
        let differ = self.differ.get_or_insert(Differ { since: now, is_told: false });
        if !differ.is_told && differ.since + DIFFER <= now {
            differ.is_told = true;
            tracing::warn!(session = %self.session, "second gate: two gates tell of different registers");
            let notice = ServerEvent::ControlNotice {
                what: "second_gate".to_owned(),
                person: "second gate".to_owned(),
                reason: "two gates answer and contradict each other: who operates is unknown".to_owned(),
            };
            let mut live = self.app.live();
            live.control_unknown(self.session);
            live.tell_session(self.session, &notice);
        }
    }

    fn registers_differ(&self) -> bool {
        let mut all = self.gates.iter().filter_map(|g| g.register);
        let first = all.next();
        all.any(|each| Some(each) != first)
    }

    /// Whose STATUS is shown: the newest gate's that answers.
    fn shown(&self) -> Option<u32> {
        self.gates.iter().rev().find(|g| g.register.is_some()).map(|g| g.number)
    }

    /// HELLO: a gate takes signaling for who its certificate says it is, and its token is empty.
    fn greet(&mut self, link: GateLink) {
        self.made = self.made.wrapping_add(1);
        let number = self.made;
        self.gates.push(Gate { number, link, heard: Instant::now(), register: None });
        self.say(number, ToGate::Hello { capabilities: 0, binds: None, token: Token::default() });
    }

    /// Whether it was handed over; a gate that takes no more is given up.
    fn say(&mut self, gate: u32, message: ToGate) -> bool {
        let taken =
            self.gates.iter().find(|g| g.number == gate).is_some_and(|g| g.link.to_gate.try_send(message).is_ok());
        if !taken {
            self.lose(gate);
        }
        taken
    }

    fn lose(&mut self, gate: u32) {
        self.gates.retain(|g| g.number != gate);
        let settled = self.acts.lost(gate);
        self.settle(settled);
    }

    fn all(&self) -> Vec<u32> {
        self.gates.iter().map(|g| g.number).collect()
    }

    fn send_probe(&mut self) {
        // Without random numbers nobody is asked, and screens say "unknown".
        let Some(number) = crate::secret::nonce() else { return };
        if let Some(nonce) = self.probes.batch(Nonce(number)) {
            for gate in self.all() {
                self.say(gate, ToGate::Probe { nonce });
            }
        }
    }

    /// A stop goes to all gates, a request to the one that is shown.
    fn act(&mut self, ask: Ask) {
        let (act, message, to) = match ask {
            Ask::Request { participant, person, set, reason } => {
                let told = request_reason(&person, &reason);
                let message = ToGate::Request { set, grade: set.grade(), reason: told };
                let newest = self.shown().or_else(|| self.gates.last().map(|g| g.number));
                let to = newest.filter(|_| self.differ.is_none()).into_iter().collect();
                (Act { kind: Kind::Request, participant, person, reason }, message, to)
            }
            Ask::Estop { participant, person, reason } => {
                let message = ToGate::Estop { person: Some(person.clone()), reason: reason.clone() };
                (Act { kind: Kind::Estop, participant, person, reason }, message, self.all())
            }
        };
        if to.is_empty() {
            return self.refuse(&act, "two gates answer and contradict each other: nobody was asked");
        }
        if !self.acts.has_room() {
            return self.refuse(&act, "too much waits for the gate already: try again");
        }
        // Without a random number it is said all the same, and its sender learns that nobody answered.
        let number = crate::secret::nonce().map(Nonce);
        let mut heard = Vec::new();
        for gate in to {
            let probe = number.map(|nonce| ToGate::Probe { nonce });
            if self.say(gate, message.clone()) && probe.is_none_or(|probe| self.say(gate, probe)) {
                heard.push(gate);
            }
        }
        if heard.is_empty() {
            return self.refuse(&act, "the gate takes no more messages");
        }
        self.acts.said(act, number, heard, Instant::now());
    }

    fn heard(&mut self, gate: u32, message: FromGate) {
        match message {
            FromGate::Status(status) => self.status(gate, &status),
            FromGate::Nack { reason, .. } => match self.acts.refused(gate, reason) {
                Some(settled) => self.settle(settled),
                None => tracing::warn!(session = %self.session, %reason, "the gate refuses signaling"),
            },
            // A browser is never offered anything, and GRANT is in the next STATUS.
            FromGate::Offer { .. } | FromGate::Withdraw { .. } | FromGate::Grant { .. } => {}
        }
    }

    fn status(&mut self, gate: u32, status: &Status) {
        let settled = self.acts.answered(gate, status);
        self.settle(settled);
        if let Some(gate) = self.gates.iter_mut().find(|g| g.number == gate) {
            gate.register = Some((status.epoch, status.mode, status.expert, status.set));
        }
        if self.shown() != Some(gate) || self.registers_differ() {
            return;
        }
        let answers = self.probes.answered(&status.answers);
        let mut live = self.app.live();
        let participant = status.expert.and_then(|expert| live.participant_of(self.session, expert));
        live.control(self.session, control_info(status, participant, &answers));
    }

    fn settle(&self, settled: Vec<Settled>) {
        for Settled { act, taken, why } in settled {
            if taken {
                let (person, reason) = (act.person.to_string(), act.reason.to_string());
                let notice = ServerEvent::ControlNotice { what: act.kind.notice().to_owned(), person, reason };
                self.app.live().tell_session(self.session, &notice);
            } else if act.kind == Kind::Estop {
                self.app.live().forget_estop(self.session, &act.participant);
            }
            if let Some(why) = why {
                self.tell_refused(act.kind, &act.participant, why);
            }
        }
    }

    /// It did not go to any gate.
    fn refuse(&self, act: &Act, why: &str) {
        if act.kind == Kind::Estop {
            self.app.live().forget_estop(self.session, &act.participant);
        }
        self.tell_refused(act.kind, &act.participant, why.to_owned());
    }

    fn tell_refused(&self, kind: Kind, participant: &ParticipantId, detail: String) {
        let refused = ServerEvent::Refused { what: kind.refused().to_owned(), detail };
        self.app.live().tell_one(self.session, participant, &refused);
    }
}

impl Drop for Talk<'_> {
    /// There is no gate any more. Nobody who acted is left without an answer.
    fn drop(&mut self) {
        self.app.gates.unlink(self.session);
        for gate in self.all() {
            self.lose(gate);
        }
        while let Ok(ask) = self.asked.acts.try_recv() {
            let (kind, participant, person, reason) = match ask {
                Ask::Request { participant, person, reason, .. } => (Kind::Request, participant, person, reason),
                Ask::Estop { participant, person, reason } => (Kind::Estop, participant, person, reason),
            };
            self.refuse(&Act { kind, participant, person, reason }, "the gate was lost before it could be told");
        }
        self.app.live().control_gone(self.session);
    }
}

/// The next message of any gate, and whose; nothing instead of a message where that gate is gone.
async fn hear(gates: &mut [Gate], turn: usize) -> (u32, Option<FromGate>) {
    let count = gates.len().max(1);
    poll_fn(|context| {
        for n in 0..gates.len() {
            let Some(gate) = gates.get_mut((turn % count + n) % count) else { continue };
            if let Poll::Ready(message) = gate.link.from_gate.poll_recv(context) {
                gate.heard = Instant::now();
                return Poll::Ready((gate.number, message));
            }
        }
        Poll::Pending
    })
    .await
}
