//! The patient's consent: of all signed documents for the session, the one with the highest serial decides, so that an old one that
//! is played again changes nothing (HO-U-001). Signatures are checked by whoever hands a document in.

use crate::session::ids::SessionId;
use crate::units::WallMicros;

/// What is consented to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    /// Being seen by remote participants.
    pub view: bool,
    /// Being recorded.
    pub record: bool,
    /// Remote operation.
    pub remote_operation: bool,
    /// Use for other purposes.
    pub secondary_use: bool,
}

/// One signed document whose signature and signer are right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Document {
    /// For which session.
    pub session: SessionId,
    /// The higher one decides.
    pub serial: u64,
    /// To what.
    pub scope: Scope,
    /// From when.
    pub from: WallMicros,
    /// Until when, exclusive.
    pub until: WallMicros,
    /// Everything is withdrawn.
    pub withdrawn: bool,
}

/// Why a document does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// For another session.
    #[error("the consent is for another session")]
    OtherSession,
    /// Not above the highest serial.
    #[error("serial {serial}: {highest} is already known")]
    OldSerial {
        /// What it has.
        serial: u64,
        /// What is known.
        highest: u64,
    },
}

/// What is known of one session's consent. Without a document nothing is consented to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Consent {
    session: SessionId,
    highest: Option<Document>,
}

impl Consent {
    /// Nothing is known.
    #[must_use]
    pub const fn new(session: SessionId) -> Self {
        Self { session, highest: None }
    }

    /// Takes a document.
    ///
    /// # Errors
    /// [`ConsentError`] where it is another session's, or its serial is not above the highest.
    pub fn take(&mut self, document: Document) -> Result<(), ConsentError> {
        if document.session != self.session {
            return Err(ConsentError::OtherSession);
        }
        if let Some(known) = &self.highest
            && document.serial <= known.serial
        {
            return Err(ConsentError::OldSerial { serial: document.serial, highest: known.serial });
        }
        self.highest = Some(document);
        Ok(())
    }

    /// Withdrawn by an act at the gate's console; only a document with a higher serial brings it back.
    pub const fn withdraw(&mut self) {
        if let Some(known) = &mut self.highest {
            known.withdrawn = true;
        }
    }

    /// What is consented to now (HO-U-002).
    #[must_use]
    pub fn scope(&self, now: WallMicros) -> Scope {
        match &self.highest {
            Some(d) if !d.withdrawn && d.from <= now && now < d.until => d.scope,
            _ => Scope::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::new("or-1").unwrap()
    }

    fn document(serial: u64, withdrawn: bool) -> Document {
        let scope = Scope { view: true, remote_operation: true, ..Scope::default() };
        Document { session: session(), serial, scope, from: WallMicros(10), until: WallMicros(20), withdrawn }
    }

    #[test]
    fn an_old_consent_that_is_played_again_does_not_undo_a_withdrawal() {
        // HO-U-001
        let mut consent = Consent::new(session());
        consent.take(document(1, false)).unwrap();
        consent.take(document(2, true)).unwrap();
        assert_eq!(consent.take(document(1, false)), Err(ConsentError::OldSerial { serial: 1, highest: 2 }));
        assert_eq!(consent.take(document(2, false)), Err(ConsentError::OldSerial { serial: 2, highest: 2 }));
        assert_eq!(consent.scope(WallMicros(15)), Scope::default());
        let other = Document { session: SessionId::new("or-2").unwrap(), ..document(9, false) };
        assert_eq!(consent.take(other), Err(ConsentError::OtherSession));
    }

    #[test]
    fn consent_is_active_within_its_validity_and_scope_and_until_withdrawn() {
        // HO-U-002
        let mut consent = Consent::new(session());
        assert_eq!(consent.scope(WallMicros(15)), Scope::default());
        consent.take(document(1, false)).unwrap();
        for (at, active) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(consent.scope(WallMicros(at)).remote_operation, active, "{at}");
        }
        assert!(!consent.scope(WallMicros(15)).record);
        consent.withdraw();
        assert!(!consent.scope(WallMicros(15)).view);
    }
}
