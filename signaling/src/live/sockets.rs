//! Event sockets as the rest of the state sees them: a bounded queue each, presence, and who is told what.

use super::{ClockReport, Live};
use crate::error::SessionError;
use crate::figures::ReasonLabels;
use axum::extract::ws::Utf8Bytes;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::{Micros, WallMicros};

/// Why the server ends a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its queue is full: the client does not read.
    Slow,
    /// The participant was removed.
    Removed,
    /// The session was closed, or the server goes away.
    Going,
}

/// The sending half of a socket's queue.
#[derive(Debug)]
pub(super) struct Socket {
    serial: u64,
    /// None once the socket is to end: its task sends what is queued and then closes.
    queue: Option<mpsc::Sender<Utf8Bytes>>,
    ending: Arc<OnceLock<Ending>>,
}

impl Socket {
    /// Lets the socket's task come to its end.
    pub(super) fn end(&mut self, why: Ending) {
        let _ = self.ending.set(why);
        self.queue = None;
    }

    fn send(&mut self, text: &Utf8Bytes) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(text.clone()).is_err() {
            self.end(Ending::Slow);
        }
    }

    /// Sends unless the queue is half full; whether it did.
    fn send_if_room(&self, text: &Utf8Bytes) -> bool {
        let Some(queue) = &self.queue else { return false };
        queue.capacity() > queue.max_capacity() / 2 && queue.try_send(text.clone()).is_ok()
    }
}

/// The receiving half, for the socket's task.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) serial: u64,
    /// Ends when the server wants the socket to end.
    pub(crate) queue: mpsc::Receiver<Utf8Bytes>,
    /// Why, once it has ended.
    pub(crate) ending: Arc<OnceLock<Ending>>,
}

impl Live {
    /// A new event socket of a participant. Its first message is the welcome; where there is a gate, the
    /// newest STATUS follows, and where there was one, that it is lost; then who speaks. Others are told where it was not present.
    pub(crate) fn attach(
        &mut self,
        wall: WallMicros,
        session: &SessionId,
        id: &ParticipantId,
    ) -> Result<Outbound, SessionError> {
        let serial = self.serial();
        let limits = (self.limits.sockets_per_participant, self.limits.socket_queue);
        let participant = self.participant_mut(session, id)?;
        if participant.sockets.len() >= limits.0 {
            return Err(SessionError::Full("event sockets"));
        }
        let (queue, receiver) = mpsc::channel(limits.1);
        let ending = Arc::new(OnceLock::new());
        participant.sockets.push(Socket { serial, queue: Some(queue), ending: ending.clone() });
        participant.absent_since = None;
        self.note_present(wall, session, id);
        let welcome = ServerEvent::Welcome {
            participant: id.clone(),
            now: wall,
            session: self.session(session)?.info(session),
            chat: self.session(session)?.chat.kept(),
            traced: self.is_traced(),
        };
        let found = self.session(session)?;
        let feeds: Vec<_> = found.speaking.iter().filter(|f| found.feeds.contains_key(*f)).cloned().collect();
        let speaking = (!feeds.is_empty()).then_some(ServerEvent::Speaking { feeds });
        for event in [Some(welcome), found.control.event(), speaking].into_iter().flatten() {
            if let (Some(text), Ok(participant)) = (as_text(&event), self.participant_mut(session, id)) {
                participant.sockets.iter_mut().filter(|s| s.serial == serial).for_each(|s| s.send(&text));
            }
        }
        Ok(Outbound { serial, queue: receiver, ending })
    }

    /// A socket has gone. With the last one the participant's grace period begins; others are told where it has no leg and
    /// no publication either.
    pub(crate) fn detach(&mut self, now: Micros, session: &SessionId, id: &ParticipantId, serial: u64) {
        let Ok(participant) = self.participant_mut(session, id) else { return };
        let before = participant.sockets.len();
        participant.sockets.retain(|s| s.serial != serial);
        if participant.sockets.is_empty() && before > 0 {
            participant.absent_since = Some(now);
            self.note_absent(session, id);
        }
    }

    /// A participant says what it found about its clock. Everyone is told about its feeds where that differs from what
    /// they know.
    pub(crate) fn report_clock(
        &mut self,
        session_id: &SessionId,
        id: &ParticipantId,
        report: ClockReport,
    ) -> Result<(), SessionError> {
        self.participant_mut(session_id, id)?.clock = Some(report);
        let session = self.session_mut(session_id)?;
        let mut changed = Vec::new();
        for feed in session.feeds.values_mut().filter(|f| f.publisher() == id) {
            if feed.set_clock(report) {
                changed.extend(feed.announced());
            }
        }
        for feed in changed {
            self.broadcast(session_id, &ServerEvent::Feed { feed });
        }
        Ok(())
    }

    /// Tells everyone in the session.
    pub(super) fn broadcast(&mut self, session: &SessionId, event: &ServerEvent) {
        self.broadcast_but(session, None, event);
    }

    /// Tells one participant, on all of its sockets.
    pub(super) fn send_to(&mut self, session: &SessionId, id: &ParticipantId, event: &ServerEvent) {
        let (Some(text), Ok(participant)) = (as_text(event), self.participant_mut(session, id)) else { return };
        participant.sockets.iter_mut().for_each(|s| s.send(&text));
    }

    /// Tells one participant something that the next message of its kind replaces: dropped where its queue is half full.
    pub(super) fn send_lossy(&mut self, session: &SessionId, id: &ParticipantId, event: &ServerEvent) {
        let (Some(text), Ok(participant)) = (as_text(event), self.participant(session, id)) else { return };
        for socket in &participant.sockets {
            if socket.send_if_room(&text) {
                self.figures.captures_sent.inc();
            } else {
                self.figures.captures_dropped.inc();
            }
        }
    }

    /// Tells everyone something that the next message of its kind replaces: left out where a socket's queue is half full.
    pub(super) fn broadcast_lossy(&self, session: &SessionId, event: &ServerEvent) {
        let (Some(text), Ok(session)) = (as_text(event), self.session(session)) else { return };
        for socket in session.participants.values().flat_map(|p| &p.sockets) {
            if !socket.send_if_room(&text) {
                self.figures.control_dropped.inc();
            }
        }
    }

    pub(super) fn broadcast_but(&mut self, session: &SessionId, but: Option<&ParticipantId>, event: &ServerEvent) {
        let (Some(text), Some(session)) = (as_text(event), self.sessions.get_mut(session)) else { return };
        let others = session.participants.iter_mut().filter(|(id, _)| Some(*id) != but);
        others.flat_map(|(_, p)| p.sockets.iter_mut()).for_each(|s| s.send(&text));
    }

    /// Counts a socket that the server ended.
    pub(crate) fn count_ended(&self, reason: &'static str) {
        self.figures.sockets_closed.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// The event as it goes out: made once, however many sockets it goes to.
fn as_text(event: &ServerEvent) -> Option<Utf8Bytes> {
    match serde_json::to_string(event) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            tracing::error!(%error, "an event has no JSON form");
            None
        }
    }
}
