//! What participants write to each other: told to all, and the last of it kept for those who come later.

use super::{Live, Session};
use crate::error::SessionError;
use std::collections::VecDeque;
use trocar_proto::session::api::{ChatMessage, MAX_CHAT_KEPT, MAX_CHAT_LEN};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::{Micros, WallMicros};

/// Bytes of text that are kept, so that a welcome stays well below what a socket's write buffer holds.
const MAX_KEPT_BYTES: usize = 96 * 1024;

/// What a chat message has to be.
pub(crate) const CHAT_EXPECTED: &str = "1 to 2000 characters, no control characters but line ends";

/// The chat of one session. In memory: a restart forgets it.
#[derive(Debug, Default)]
pub(super) struct Chat {
    messages: VecDeque<ChatMessage>,
    bytes: usize,
    last_id: u64,
}

impl Chat {
    /// What was written last, oldest first.
    pub(super) fn kept(&self) -> Vec<ChatMessage> {
        self.messages.iter().cloned().collect()
    }

    /// Takes a message; the oldest go where there are too many or too much.
    fn add(&mut self, participant: &ParticipantId, name: String, text: String, at: WallMicros) -> ChatMessage {
        self.last_id += 1;
        let message = ChatMessage { id: self.last_id, participant: participant.clone(), name, text, at };
        self.bytes += message.text.len();
        self.messages.push_back(message.clone());
        while self.messages.len() > MAX_CHAT_KEPT || self.bytes > MAX_KEPT_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.text.len());
        }
        message
    }
}

impl Live {
    /// A participant writes something: it goes to everyone in the session, the writer too. In the inner result, the seconds
    /// to wait where it writes too often.
    pub(crate) fn chat(
        &mut self,
        (now, wall): (Micros, WallMicros),
        session_id: &SessionId,
        id: &ParticipantId,
        text: &str,
    ) -> Result<Result<(), u64>, SessionError> {
        let text = written(text).ok_or(SessionError::Invalid { field: "chat", expected: CHAT_EXPECTED })?;
        let rate = self.limits.chat;
        let participant = self.participant_mut(session_id, id)?;
        if let Err(seconds) = participant.chat.take(now, rate) {
            return Ok(Err(seconds));
        }
        let name = participant.name.clone();
        let session: &mut Session = self.session_mut(session_id)?;
        let message = session.chat.add(id, name, text, wall);
        self.broadcast(session_id, &ServerEvent::Chat { message });
        Ok(Ok(()))
    }
}

/// The text without white space around it and with `\n` as line ends, where it may be passed on.
fn written(text: &str) -> Option<String> {
    // Bytes first: counting the characters of a long text is work that its sender chose.
    let text = (text.len() <= MAX_CHAT_LEN.saturating_mul(4).saturating_add(64)).then(|| text.trim())?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let length = text.chars().count();
    let is_clean = text.chars().all(|c| c == '\n' || !c.is_control());
    ((1..=MAX_CHAT_LEN).contains(&length) && is_clean).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_trimmed_and_measured_in_characters() {
        assert_eq!(written("  stop there \r\nplease\t").as_deref(), Some("stop there \nplease"));
        assert_eq!(written(&"林".repeat(2_000)).map(|t| t.chars().count()), Some(2_000));
        for bad in ["", " \n ", "a\0b", "a\tb", "a\u{1b}[31mb", "a\u{85}b", &"x".repeat(2_001), &" ".repeat(9_000)] {
            assert_eq!(written(bad), None, "{bad:?} was taken");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_messages_and_in_bytes() {
        let who = ParticipantId::new("p").unwrap();
        let mut chat = Chat::default();
        for _ in 0..MAX_CHAT_KEPT + 5 {
            chat.add(&who, "Ada".into(), "x".into(), WallMicros(0));
        }
        assert_eq!((chat.kept().len(), chat.kept()[0].id), (MAX_CHAT_KEPT, 6));
        for _ in 0..100 {
            chat.add(&who, "Ada".into(), "林".repeat(2_000), WallMicros(0));
        }
        assert_eq!(chat.kept().len(), MAX_KEPT_BYTES / 6_000);
        assert_eq!(chat.kept().last().unwrap().id, MAX_CHAT_KEPT as u64 + 105);
        assert_eq!(chat.bytes, chat.kept().iter().map(|m| m.text.len()).sum::<usize>());
    }
}
