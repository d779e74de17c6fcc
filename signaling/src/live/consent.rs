//! Whose consent a session has, and what ends without it.

use super::{Closing, Live};
use crate::consent::ConsentInfo;
use crate::error::SessionError;
use trocar_control::audit::clock::utc_seconds;
use trocar_control::consent::Signed;
use trocar_proto::handover::consent::{Consent, ConsentError, Document, Scope};
use trocar_proto::session::ids::{LegId, ParticipantId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// What is known of one session's consent.
#[derive(Debug)]
pub(super) struct Given {
    consent: Consent,
    current: Option<Signed>,
    /// Its signer is vouched for no more.
    is_distrusted: bool,
}

impl Given {
    pub(super) const fn new(session: SessionId) -> Self {
        Self { consent: Consent::new(session), current: None, is_distrusted: false }
    }

    fn scope(&self, wall: WallMicros) -> Scope {
        if self.is_distrusted { Scope::default() } else { self.consent.scope(wall) }
    }
}

impl Live {
    /// From now on nobody but the surgical team sees anything without consent.
    pub(crate) const fn require_consent(&mut self) {
        self.requires_consent = true;
    }

    /// Whether the document would count: of this session, and with a higher serial than all before.
    pub(crate) fn check_consent(&self, id: &SessionId, document: &Document) -> Result<(), SessionError> {
        self.session(id)?.given.consent.clone().take(document.clone()).map_err(SessionError::from)
    }

    /// The document counts from now on; what it does not consent to ends.
    pub(crate) fn take_consent(
        &mut self,
        wall: WallMicros,
        id: &SessionId,
        signed: Signed,
    ) -> Result<Vec<Closing>, SessionError> {
        let given = &mut self.session_mut(id)?.given;
        given.consent.take(signed.document.clone())?;
        (given.current, given.is_distrusted) = (Some(signed), false);
        Ok(self.end_without_consent(wall))
    }

    /// What was known before a restart: the serial counts even where the document does not any more.
    pub(crate) fn restore_consent(&mut self, document: Document, signed: Option<Signed>) {
        let Ok(session) = self.session_mut(&document.session.clone()) else { return };
        let is_distrusted = signed.is_none();
        if session.given.consent.take(document).is_ok() {
            (session.given.current, session.given.is_distrusted) = (signed, is_distrusted);
        }
    }

    /// Looks at all signers again.
    pub(crate) fn look_at_signers(&mut self, is_distrusted: impl Fn(&Signed) -> bool) {
        for (id, session) in &mut self.sessions {
            let Some(signed) = &session.given.current else { continue };
            let distrusted = is_distrusted(signed);
            if distrusted && !session.given.is_distrusted {
                tracing::warn!(session = %id, signer = %signed.signer, "the signer of the consent is not trusted any more");
            }
            session.given.is_distrusted = distrusted;
        }
    }

    /// What is consented to.
    pub(crate) fn consent_info(&self, wall: WallMicros, id: &SessionId) -> Result<ConsentInfo, SessionError> {
        let given = &self.session(id)?.given;
        let document = given.current.as_ref().map(|s| &s.document);
        let Scope { view, record, remote_operation, secondary_use } = given.scope(wall);
        Ok(ConsentInfo {
            session: id.clone(),
            required: self.requires_consent,
            serial: document.map_or(0, |d| d.serial),
            withdrawn: document.is_some_and(|d| d.withdrawn) || given.is_distrusted,
            view,
            record,
            remote_operation,
            secondary_use,
            from: document.map(|d| utc_seconds(d.from)),
            until: document.map(|d| utc_seconds(d.until)),
        })
    }

    /// Whether this participant may begin to see or hear something now.
    pub(super) fn may_view(&self, wall: WallMicros, id: &SessionId, who: &ParticipantId) -> Result<(), SessionError> {
        let role = self.participant(id, who)?.role;
        if self.is_consented(wall, id, role)? { Ok(()) } else { Err(SessionError::NoConsent) }
    }

    fn is_consented(&self, wall: WallMicros, id: &SessionId, role: Role) -> Result<bool, SessionError> {
        let scope = self.session(id)?.given.scope(wall);
        Ok(!self.requires_consent
            || match role {
                // The team at the patient's side is not "others".
                Role::Local => true,
                Role::Recorder => scope.view && scope.record,
                _ => scope.view,
            })
    }

    /// Ends what is seen and heard without consent. While an expert operates, or may operate as far as is known here, no expert's picture is
    /// taken away: nobody is blinded while moving (handover.md, F16).
    pub(crate) fn end_without_consent(&mut self, wall: WallMicros) -> Vec<Closing> {
        if !self.requires_consent {
            return Vec::new();
        }
        let mut ended: Vec<LegId> = Vec::new();
        for (id, session) in &self.sessions {
            let operated = session.may_be_operated;
            for (leg, l) in session.legs.iter().filter(|(_, l)| l.is_committed()) {
                let role = session.participants.get(&l.owner).map_or(Role::Observer, |p| p.role);
                let spared = operated && role == Role::Expert;
                if !spared && !self.is_consented(wall, id, role).unwrap_or(false) {
                    ended.push(leg.clone());
                }
            }
        }
        ended.iter().filter_map(|leg| self.drop_leg(leg)).collect()
    }
}

impl From<ConsentError> for SessionError {
    fn from(e: ConsentError) -> Self {
        Self::ConsentRefused(e)
    }
}
