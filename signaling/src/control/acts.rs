//! What people did and gates have not answered yet.
//!
//! A probe of its own follows each act by the same ordered channel. The STATUS that answers it was made after the gate had judged the
//! act, so that a NACK came before it or none comes; an ESTOP that was taken shows as an alarm in it. Until then nobody is told that
//! anybody was stopped.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use trocar_proto::handover::gate::Alarms;
use trocar_proto::handover::message::{Reason, Short, Status};
use trocar_proto::handover::types::Nonce;
use trocar_proto::session::ids::ParticipantId;

/// A gate that answers an act later than this did not answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Acts under way at most. Loss policy: refused to whoever acts.
const MOST: usize = 64;

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Estop,
}

impl Kind {
    /// As everybody is told of it.
    pub(super) const fn notice(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Estop => "estop",
        }
    }

    /// As its sender is told that it was refused.
    pub(super) const fn refused(self) -> &'static str {
        match self {
            Self::Request => "control_request",
            Self::Estop => "control_estop",
        }
    }
}

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) kind: Kind,
    pub(super) participant: ParticipantId,
    pub(super) person: Short,
    pub(super) reason: Short,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) act: Act,
    /// A gate took it: everybody is to be told.
    pub(super) taken: bool,
    /// What its sender is to be told: why not, or which gate did not.
    pub(super) why: Option<String>,
}

#[derive(Debug)]
struct UnderWay {
    act: Act,
    number: Option<Nonce>,
    until: Instant,
    /// Gates that were told and have not answered.
    waits: Vec<u32>,
    taken: bool,
    refused: Option<String>,
    lost: Option<&'static str>,
}

/// All acts under way, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Acts(VecDeque<UnderWay>);

impl Acts {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MOST
    }

    /// It was said to those gates, followed by the probe of that number.
    pub(super) fn said(&mut self, act: Act, number: Option<Nonce>, gates: Vec<u32>, now: Instant) {
        let until = now + ANSWER_WITHIN;
        self.0.push_back(UnderWay { act, number, until, waits: gates, taken: false, refused: None, lost: None });
    }

    /// When the oldest is given up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.front().map(|each| each.until)
    }

    /// A gate's STATUS came.
    pub(super) fn answered(&mut self, gate: u32, status: &Status) -> Vec<Settled> {
        for each in &mut self.0 {
            let is_answered = each.number.is_some_and(|n| status.answers.contains(&n));
            if !is_answered || !each.stop_waiting(gate) {
                continue;
            }
            match each.act.kind {
                Kind::Request => each.taken = true,
                Kind::Estop if Alarms(status.alarms).has(Alarms::ESTOP) => each.taken = true,
                Kind::Estop => each.refused = Some("the gate: its answer shows no stop".to_owned()),
            }
        }
        self.settled()
    }

    /// A gate refused something: the oldest act of that kind that it has not answered. Nothing where there is none.
    pub(super) fn refused(&mut self, gate: u32, reason: Reason) -> Option<Vec<Settled>> {
        let is_stop = reason == Reason::EstopLimited;
        let mut waiting = self.0.iter_mut().filter(|each| each.waits.contains(&gate));
        let each = waiting.find(|each| !is_stop || each.act.kind == Kind::Estop)?;
        each.stop_waiting(gate);
        each.refused = Some(format!("the gate: {reason}"));
        Some(self.settled())
    }

    /// A gate is lost.
    pub(super) fn lost(&mut self, gate: u32) -> Vec<Settled> {
        for each in &mut self.0 {
            if each.stop_waiting(gate) {
                each.lost = Some("the gate was lost before it answered: it may not have heard this");
            }
        }
        self.settled()
    }

    /// Time passed.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Settled> {
        for each in self.0.iter_mut().filter(|each| each.until <= now) {
            each.waits.clear();
            each.lost = Some("the gate did not answer within 2 s: it may not have heard this");
        }
        self.settled()
    }

    fn settled(&mut self) -> Vec<Settled> {
        let mut settled = Vec::new();
        self.0.retain(|each| {
            let is_over = each.waits.is_empty();
            if is_over {
                // A gate that is gone matters only where no other one took it: a predecessor that died is not heard of again.
                let lost = each.lost.filter(|_| !each.taken).map(ToOwned::to_owned);
                let why = each.refused.clone().or(lost);
                settled.push(Settled { act: each.act.clone(), taken: each.taken, why });
            }
            !is_over
        });
        settled
    }
}

impl UnderWay {
    /// Whether the gate was waited for.
    fn stop_waiting(&mut self, gate: u32) -> bool {
        let before = self.waits.len();
        self.waits.retain(|each| *each != gate);
        self.waits.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::{Figures, Mode};
    use trocar_proto::handover::types::{Colours, Epoch, GrantedSet};

    fn act(kind: Kind) -> Act {
        let participant = ParticipantId::new("p-1").unwrap();
        Act { kind, participant, person: Short::default(), reason: Short::default() }
    }

    fn status(alarms: Alarms, answers: &[u64]) -> Status {
        Status {
            epoch: Epoch(1),
            mode: Mode::Local,
            expert: None,
            set: GrantedSet::default(),
            since_ms: 0,
            stopped: 0,
            alarms: alarms.0,
            colours: Colours::default(),
            figures: Figures::default(),
            answers: answers.iter().map(|n| Nonce(*n)).collect(),
            paths: trocar_proto::handover::paths::Protection::default(),
            timers: trocar_proto::handover::message::Timers::default(),
        }
    }

    #[test]
    fn a_stop_is_taken_when_all_gates_answered_and_one_shows_it() {
        let now = Instant::now();
        let mut acts = Acts::default();
        acts.said(act(Kind::Estop), Some(Nonce(5)), vec![1, 2], now);
        assert_eq!(acts.answered(1, &status(Alarms::ESTOP, &[4])), []);
        assert_eq!(acts.answered(1, &status(Alarms::ESTOP, &[5])), [], "the other one has not answered");
        let settled = acts.lost(2);
        assert_eq!((settled[0].taken, &settled[0].why), (true, &None));
        acts.said(act(Kind::Estop), Some(Nonce(6)), vec![1], now);
        let settled = acts.answered(1, &status(Alarms::CONSENT, &[6]));
        assert!(!settled[0].taken);
        assert!(settled[0].why.as_ref().unwrap().contains("no stop"));
    }

    #[test]
    fn a_refusal_is_of_the_act_that_it_fits_and_silence_is_told() {
        let now = Instant::now();
        let mut acts = Acts::default();
        acts.said(act(Kind::Request), Some(Nonce(1)), vec![1], now);
        acts.said(act(Kind::Estop), Some(Nonce(2)), vec![1, 2], now);
        assert_eq!(acts.refused(3, Reason::EstopLimited), None, "that gate was asked nothing");
        assert_eq!(acts.refused(1, Reason::EstopLimited), Some(Vec::new()), "the other gate may still take it");
        let settled = acts.answered(2, &status(Alarms::ESTOP, &[2]));
        assert!(settled[0].taken && settled[0].why.is_some(), "one took it, the other one did not: both is told");
        assert_eq!(acts.late(now), []);
        let settled = acts.late(now + ANSWER_WITHIN);
        assert!(!settled[0].taken && settled[0].why.as_ref().unwrap().contains("did not answer"), "{settled:?}");
        assert_eq!((settled[0].act.kind, acts.due()), (Kind::Request, None));
    }
}
