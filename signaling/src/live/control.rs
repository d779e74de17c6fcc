//! The register as the session was last told it, and who may say what to the gate.

use super::{Live, Register};
use crate::config::Rate;
use crate::error::SessionError;
use trocar_proto::handover::types::ExpertId;
use trocar_proto::session::event::{ControlInfo, ServerEvent};
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::Micros;

/// Time between two ESTOPs of one participant, as at the gate (HO-M-017), in microseconds.
pub(crate) const ESTOP_EVERY_US: u64 = 10_000_000;
/// Requests of one participant.
pub(super) const REQUESTS: Rate = Rate { burst: 3, per_second: 1 };

impl Live {
    /// Sessions in which somebody has an event socket.
    pub(crate) fn listened_sessions(&self) -> Vec<SessionId> {
        let listened = self.sessions.iter().filter(|(_, s)| s.participants.values().any(|p| !p.sockets.is_empty()));
        listened.map(|(id, _)| id.clone()).collect()
    }

    /// A STATUS came: everybody is told, and later comers too. One that finds a socket's queue half full is left out there, since
    /// the next one replaces it.
    pub(crate) fn control(&mut self, session: &SessionId, control: ControlInfo) {
        self.broadcast_lossy(session, &ServerEvent::Control { control: control.clone() });
        self.trace(|t, now| t.mode(now, session, &control.mode));
        if let Ok(session) = self.session_mut(session) {
            session.may_be_operated = matches!(control.mode.as_str(), "granting" | "remote");
            // Whoever comes later asked none of these questions.
            session.control = Register::Said(Box::new(ControlInfo { answers: Vec::new(), ..control }));
        }
    }

    /// The gate is lost: everybody is told, and later comers too, until one is heard again.
    pub(crate) fn control_gone(&mut self, session_id: &SessionId) {
        let Ok(session) = self.session_mut(session_id) else { return };
        if matches!(session.control, Register::Said(_)) {
            session.control = Register::Lost;
            self.broadcast(session_id, &ServerEvent::ControlGone);
            self.trace(|t, now| t.ended(now, session_id, "gate lost"));
        }
    }

    /// Gates contradict each other: who operates is unknown, to whoever is here and to later comers.
    pub(crate) fn control_unknown(&mut self, session_id: &SessionId) {
        let Ok(session) = self.session_mut(session_id) else { return };
        if !matches!(session.control, Register::Lost) {
            session.control = Register::Lost;
            self.broadcast(session_id, &ServerEvent::ControlGone);
            self.trace(|t, now| t.ended(now, session_id, "gates differ"));
        }
    }

    /// Tells everybody in a session.
    pub(crate) fn tell_session(&mut self, session: &SessionId, event: &ServerEvent) {
        self.broadcast(session, event);
    }

    /// Tells one participant.
    pub(crate) fn tell_one(&mut self, session: &SessionId, id: &ParticipantId, event: &ServerEvent) {
        self.send_to(session, id, event);
    }

    /// Who has that certificate, as far as it is known here: whoever is present, the last comer first.
    pub(crate) fn participant_of(&self, session: &SessionId, expert: ExpertId) -> Option<ParticipantId> {
        let all = self.session(session).ok()?.participants.iter();
        let same = all.filter(|(_, p)| p.cnf.is_some_and(|cnf| cnf.0 == expert.0));
        same.max_by_key(|(_, p)| (p.is_present, p.since)).map(|(id, _)| id.clone())
    }

    /// Whether this participant may ask for control now, and its name. In the inner result, why not.
    pub(crate) fn may_request(
        &mut self,
        now: Micros,
        session: &SessionId,
        id: &ParticipantId,
    ) -> Result<Result<String, String>, SessionError> {
        let participant = self.participant_mut(session, id)?;
        if participant.role != Role::Expert {
            return Ok(Err(format!("the role {} does not ask for control; an expert does", participant.role.name())));
        }
        Ok(match participant.control_requests.take(now, REQUESTS) {
            Ok(()) => Ok(participant.name.clone()),
            Err(wait_s) => Err(format!("too many requests: the next one can be sent in {wait_s} s")),
        })
    }

    /// Whether this participant may stop now, and its name. In the inner result, why not.
    pub(crate) fn may_estop(
        &self,
        now: Micros,
        session: &SessionId,
        id: &ParticipantId,
    ) -> Result<Result<String, String>, SessionError> {
        let participant = self.participant(session, id)?;
        let since = participant.estop_at.map(|at| now.since(at)).filter(|since| *since < ESTOP_EVERY_US);
        Ok(match since {
            None => Ok(participant.name.clone()),
            Some(since) => {
                let wait_s = (ESTOP_EVERY_US - since).div_ceil(1_000_000);
                Err(format!("the last one was heard; the next one can be sent in {wait_s} s"))
            }
        })
    }

    /// This participant's ESTOP goes to the gate.
    pub(crate) fn note_estop(&mut self, now: Micros, session: &SessionId, id: &ParticipantId) {
        if let Ok(participant) = self.participant_mut(session, id) {
            participant.estop_at = Some(now);
        }
    }

    /// No gate took this participant's ESTOP: the next one may follow at once.
    pub(crate) fn forget_estop(&mut self, session: &SessionId, id: &ParticipantId) {
        if let Ok(participant) = self.participant_mut(session, id) {
            participant.estop_at = None;
        }
    }
}
