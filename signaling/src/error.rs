//! Why something about a session could not be done: one enum for the in-process handle and the HTTP routes.

use crate::store::StoreError;

/// Why a request about sessions, participants, feeds or legs was refused.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session is not open (any more).
    #[error("the session is closed")]
    SessionClosed,
    /// The participant was removed, or was away for so long that it was forgotten.
    #[error("the participant is not in the session any more")]
    ParticipantGone,
    /// The invitation is not known, or its time is over.
    #[error("the invitation is unknown or expired: ask for a new link")]
    InvitationInvalid,
    /// No such feed.
    #[error("the session has no such feed")]
    NoFeed,
    /// The name is taken.
    #[error("a feed of that name exists already")]
    FeedExists,
    /// The name of the sound is taken.
    #[error("a feed of that name, for the sound, exists already")]
    AudioFeedExists,
    /// No such publication, or it is somebody else's.
    #[error("the participant has no such publication")]
    NoPublication,
    /// The relay found nothing in the offer that it could take.
    #[error("the offer sends no picture and no sound that can be taken")]
    NothingSent,
    /// No such leg, or it is somebody else's.
    #[error("the participant has no such leg")]
    NoLeg,
    /// The feeds of the participant would have more than [`crate::Limits::bitrate_per_participant`] together.
    #[error("the feeds of one participant may have {limit} bit/s together, and {left} bit/s of that are left")]
    Bitrate {
        /// The most, in bit/s.
        limit: u64,
        /// What is left of it, in bit/s.
        left: u64,
    },
    /// The patient has not consented to being seen by others, or has withdrawn it.
    #[error(
        "the patient has not consented to being seen by others, or has withdrawn it: the surgical team hands consent in"
    )]
    NoConsent,
    /// Who holds the invitation has to say who it is.
    #[error("{}", .0.what)]
    IdentityNeeded(crate::identity::IdentityNeed),
    /// Nobody comes in by break-glass here, or not now.
    #[error(transparent)]
    BreakGlass(crate::break_glass::BreakGlassRefused),
    /// A device's certificate opens no other role.
    #[error("a certificate takes the place of a login in the role publisher, and this invitation is for {}", .0.name())]
    DeviceRole(trocar_proto::session::role::Role),
    /// People of that realm may do nothing in that role here.
    #[error("no realm_policy of this node lets people of realm {from} do anything as {} in a session of realm {to}", .role.name())]
    RealmDenied {
        /// Whose people.
        from: trocar_proto::session::ids::RealmId,
        /// In whose session.
        to: trocar_proto::session::ids::RealmId,
        /// As what.
        role: trocar_proto::session::role::Role,
    },
    /// A consent document that does not count.
    #[error("{0}")]
    ConsentRefused(trocar_proto::handover::consent::ConsentError),
    /// A bound of [`crate::Limits`] is reached.
    #[error("limit reached: {0}")]
    Full(&'static str),
    /// A value that cannot be used.
    #[error("{field}: {expected}")]
    Invalid {
        /// Name of the value.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// The database did not take it.
    #[error("the store refused: {0}")]
    Store(#[from] StoreError),
    /// The operating system gave no random bytes, or the token could not be signed.
    #[error("no token or secret could be made")]
    Secret,
}
