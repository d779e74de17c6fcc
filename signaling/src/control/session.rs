//! One session's gate: found, spoken with, lost, found again.

use super::link::{Dialer, GateLink};
use super::probes::Probes;
use super::words::{control_info, request_reason};
use super::{Ask, Asked};
use crate::app::App;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use trocar_proto::handover::message::{FromGate, Reason, Status, ToGate, Token};
use trocar_proto::handover::types::Nonce;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};

/// How often it is looked at who listens where.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a gate stays linked when nobody listens any more.
const LINGER: Duration = Duration::from_secs(30);
/// First and longest pause between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
/// Time between two probes of ours.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// A gate that says nothing for this long is lost: STATUS comes ten times a second.
const SILENCE: Duration = Duration::from_secs(2);
/// A NACK within this is the answer to the newest act.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Keeps a link for each session in which somebody listens.
pub(crate) async fn manage(app: Arc<App>, dialer: Arc<dyn Dialer>) {
    let mut keepers = JoinSet::new();
    let mut running: BTreeMap<SessionId, (AbortHandle, Instant)> = BTreeMap::new();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = app.gates.listened.notified() => {}
        }
        let now = Instant::now();
        for session in app.live().listened_sessions() {
            let mut spawn = || keepers.spawn(keep(app.clone(), dialer.clone(), session.clone()));
            running.entry(session.clone()).or_insert_with(|| (spawn(), now)).1 = now;
        }
        running.retain(|_, (keeper, wanted)| {
            let stays = now.duration_since(*wanted) < LINGER;
            if !stays {
                keeper.abort();
            }
            stays
        });
        while keepers.try_join_next().is_some() {}
    }
}

/// Dials for ever.
async fn keep(app: Arc<App>, dialer: Arc<dyn Dialer>, session: SessionId) {
    let [mut pause, longest] = PAUSES;
    let mut told = String::new();
    loop {
        match dialer.dial(&session).await {
            Ok(link) => {
                tracing::info!(%session, "linked to the gate");
                converse(&app, &session, link).await;
                tracing::warn!(%session, "the gate is lost");
                pause = PAUSES[0];
                told.clear();
            }
            Err(error) => {
                if error != told {
                    tracing::warn!(%session, error, "no way to a gate");
                    told = error;
                }
                pause = (pause * 2).min(longest);
            }
        }
        sleep(pause).await;
    }
}

/// Makes it known that a gate is there, for as long as it lives.
struct Linked<'a> {
    app: &'a App,
    session: &'a SessionId,
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.app.gates.unlink(self.session);
        self.app.live().control_gone(self.session);
    }
}

/// Speaks with a gate until it is lost.
async fn converse(app: &App, session: &SessionId, link: GateLink) {
    let mut asked = app.gates.link(session.clone());
    let _linked = Linked { app, session };
    let mut talk = Talk { app, session, link, probes: Probes::default(), newest_act: None };
    // HELLO: a gate takes signaling for who its certificate says it is, and its token is empty.
    let hello = ToGate::Hello { capabilities: 0, binds: None, token: Token::default() };
    if talk.say(hello).is_none() {
        return;
    }
    while talk.step(&mut asked).await.is_some() {}
}

struct Talk<'a> {
    app: &'a App,
    session: &'a SessionId,
    link: GateLink,
    probes: Probes,
    newest_act: Option<(ParticipantId, &'static str, Instant)>,
}

impl Talk<'_> {
    /// One thing that happens; nothing at the link's end. What people do goes before what machines ask.
    async fn step(&mut self, asked: &mut Asked) -> Option<()> {
        let is_waiting = self.probes.is_waiting();
        tokio::select! {
            biased;
            act = asked.acts.recv() => self.act(act?),
            heard = timeout(SILENCE, self.link.from_gate.recv()) => {
                self.hear(heard.ok().flatten()?);
                Some(())
            }
            nonce = asked.probes.recv(), if !is_waiting => {
                self.probes.ask(nonce?);
                Some(())
            }
            () = sleep(PROBE_EVERY), if is_waiting => {
                while let Ok(nonce) = asked.probes.try_recv() {
                    self.probes.ask(nonce);
                }
                self.send_probe()
            }
        }
    }

    /// A gate that takes no more is given up.
    fn say(&self, message: ToGate) -> Option<()> {
        self.link.to_gate.try_send(message).ok()
    }

    fn send_probe(&mut self) -> Option<()> {
        // Without random numbers nobody is asked, and screens say "unknown".
        let Some(number) = crate::secret::nonce() else { return Some(()) };
        match self.probes.batch(Nonce(number)) {
            Some(nonce) => self.say(ToGate::Probe { nonce }),
            None => Some(()),
        }
    }

    fn act(&mut self, ask: Ask) -> Option<()> {
        let (participant, what, person, reason, message) = match ask {
            Ask::Request { participant, person, set, reason } => {
                let told = request_reason(&person, &reason);
                let message = ToGate::Request { set, grade: set.grade(), reason: told };
                (participant, "request", person, reason, message)
            }
            Ask::Estop { participant, person, reason } => {
                let message = ToGate::Estop { person: Some(person.clone()), reason: reason.clone() };
                (participant, "estop", person, reason, message)
            }
        };
        self.say(message)?;
        let refused = if what == "estop" { "control_estop" } else { "control_request" };
        self.newest_act = Some((participant, refused, Instant::now()));
        let (person, reason) = (person.to_string(), reason.to_string());
        let notice = ServerEvent::ControlNotice { what: what.to_owned(), person, reason };
        self.app.live().tell_session(self.session, &notice);
        Some(())
    }

    fn hear(&mut self, message: FromGate) {
        match message {
            FromGate::Status(status) => self.tell(&status),
            FromGate::Nack { reason, .. } => self.refuse(reason),
            // A browser is never offered anything, and GRANT is in the next STATUS.
            FromGate::Offer { .. } | FromGate::Withdraw { .. } | FromGate::Grant { .. } => {}
        }
    }

    fn tell(&mut self, status: &Status) {
        let answers = self.probes.answered(&status.answers);
        let mut live = self.app.live();
        let participant = status.expert.and_then(|expert| live.participant_of(self.session, expert));
        live.control(self.session, control_info(status, participant, &answers));
    }

    fn refuse(&mut self, reason: Reason) {
        match self.newest_act.take() {
            Some((participant, what, at)) if at.elapsed() < ANSWER_WITHIN => {
                let refused = ServerEvent::Refused { what: what.to_owned(), detail: format!("the gate: {reason}") };
                self.app.live().tell_one(self.session, &participant, &refused);
            }
            _ => tracing::warn!(session = %self.session, %reason, "the gate refuses signaling"),
        }
    }
}
