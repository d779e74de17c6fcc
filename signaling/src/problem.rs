//! Refusals: the problem documents (RFC 9457) that HTTP errors are answered with, each kind in one place.

use crate::break_glass::BreakGlassRefused;
use crate::error::SessionError;
use crate::name::clean;
use crate::store::StoreError;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::ids::FeedId;
use trocar_proto::session::link_test::LinkTestRefused;
use trocar_proto::session::problem::{PROBLEM_JSON, Problem};
use trocar_proto::session::role::Verb;

/// Longest detail, in characters; details may quote what a client sent.
const MAX_DETAIL: usize = 300;

/// A kind of problem: status, the NAME of `urn:trocar:problem:NAME`, and the title.
pub(crate) type Kind = (u16, &'static str, &'static str);

// One line for each kind. The names are part of the interface: clients tell problems apart by them.
pub(crate) const TOKEN_MISSING: Kind = (401, "token-missing", "A bearer token is needed");
pub(crate) const TOKEN_EXPIRED: Kind = (401, "token-expired", "The token has expired");
pub(crate) const TOKEN_INVALID: Kind = (401, "token-invalid", "The token is not valid");
pub(crate) const IDENTITY_NEEDED: Kind = (401, "identity-needed", "A login is needed");
pub(crate) const LOGIN_FAILED: Kind = (401, "login-failed", "Account, password or code is wrong");
pub(crate) const SECOND_FACTOR_NEEDED: Kind = (401, "second-factor-needed", "A login with a second factor is needed");
pub(crate) const BREAK_GLASS_OFF: Kind = (403, "break-glass-off", "This node takes no break-glass joins");
pub(crate) const BREAK_GLASS_ROLE: Kind = (403, "break-glass-role", "This role is not joined by break-glass");
pub(crate) const BREAK_GLASS_UNNEEDED: Kind = (409, "break-glass-unneeded", "No break-glass is needed");
pub(crate) const LOGIN_UNFINISHED: Kind = (401, "login-unfinished", "The login came to nothing");
pub(crate) const DEVICE_REFUSED: Kind = (403, "device-refused", "The certificate does not take the place of a login");
pub(crate) const PASSKEY_REFUSED: Kind = (401, "passkey-refused", "The passkey does not log in here");
pub(crate) const PASSKEY_LINK: Kind = (403, "passkey-link-invalid", "The link is not good any more");
pub(crate) const PASSKEY_UNUSABLE: Kind = (422, "passkey-unusable", "The passkey cannot be registered");
pub(crate) const PASSKEYS_UNUSED: Kind = (404, "passkeys-unused", "This node uses no passkeys");
pub(crate) const ISSUER_UNKNOWN: Kind = (404, "issuer-unknown", "No logins of that issuer are taken here");
pub(crate) const ISSUER_UNAVAILABLE: Kind = (503, "issuer-unavailable", "The issuer of identities cannot be asked");
pub(crate) const LOGIN_UNUSED: Kind = (404, "login-unused", "This node has no local accounts");
pub(crate) const REALM_DENIED: Kind = (403, "realm-denied", "People of this realm may do nothing in this role here");
pub(crate) const TOKEN_REALM: Kind = (403, "token-realm", "The token is of another realm than the address is for");
pub(crate) const TOKEN_SESSION: Kind = (403, "token-session", "The token is for another session");
pub(crate) const VERB_MISSING: Kind = (403, "verb-missing", "The role does not allow this");
pub(crate) const PURPOSE_ROLE: Kind = (403, "purpose-role", "The role may not publish for that purpose");
pub(crate) const CNF_MISSING: Kind = (403, "cnf-missing", "The token is bound to no client certificate");
pub(crate) const SESSION_CLOSED: Kind = (403, "session-closed", "The session is closed");
pub(crate) const PARTICIPANT_GONE: Kind = (403, "participant-gone", "The participant is not in the session any more");
pub(crate) const INVITATION_INVALID: Kind = (403, "invitation-invalid", "The invitation is not valid");
pub(crate) const CONSENT_MISSING: Kind = (403, "consent-missing", "The patient has not consented to this");
pub(crate) const ORIGIN: Kind = (403, "origin", "Pages of this origin may not connect");
pub(crate) const METRICS_CLOSED: Kind = (403, "metrics-closed", "Figures are not shown to other machines");
pub(crate) const JSON_SYNTAX: Kind = (400, "json-syntax", "The body is not JSON");
pub(crate) const JSON_FIELD: Kind = (400, "json-field", "A field of the body cannot be used");
pub(crate) const FIELD_INVALID: Kind = (400, "field-invalid", "A value cannot be used");
pub(crate) const PATH_INVALID: Kind = (400, "path-invalid", "A name in the path cannot be used");
pub(crate) const BODY_BROKEN: Kind = (400, "body-broken", "The body did not arrive whole");
pub(crate) const SDP_INVALID: Kind = (400, "sdp-invalid", "The SDP cannot be used");
pub(crate) const SUBPROTOCOL: Kind = (400, "subprotocol", "The WebSocket subprotocol is not offered");
pub(crate) const NOT_FOUND: Kind = (404, "not-found", "There is nothing here");
pub(crate) const FEED_MISSING: Kind = (404, "feed-missing", "There is no such feed");
pub(crate) const LEG_MISSING: Kind = (404, "leg-missing", "There is no such leg");
pub(crate) const PUBLICATION_MISSING: Kind = (404, "publication-missing", "There is no such publication");
pub(crate) const CONSENT_UNUSED: Kind = (404, "consent-unused", "This node does not look at consent");
pub(crate) const LINK_TESTS_UNUSED: Kind = (404, "link-tests-unused", "This node does not answer measurements");
pub(crate) const METHOD: Kind = (405, "method", "The method is not allowed here");
pub(crate) const NOT_ACCEPTABLE: Kind = (406, "not-acceptable", "The feed cannot be sent as offered");
pub(crate) const BODY_TIMEOUT: Kind = (408, "body-timeout", "The body took too long");
pub(crate) const FEED_EXISTS: Kind = (409, "feed-exists", "A feed of that name exists already");
pub(crate) const LINK_TEST_OPERATED: Kind = (409, "link-test-operated", "Somebody operates");
pub(crate) const LINK_TEST_BUSY: Kind = (409, "link-test-busy", "The line is being measured");
pub(crate) const IF_MATCH_FAILED: Kind = (412, "if-match-failed", "The ICE session is another one by now");
pub(crate) const BODY_TOO_LARGE: Kind = (413, "body-too-large", "The body is too large");
pub(crate) const MEDIA_TYPE: Kind = (415, "media-type", "The body is of another media type");
pub(crate) const SDP_UNPROCESSABLE: Kind = (422, "sdp-unprocessable", "The SDP is understood but cannot be served");
pub(crate) const CONSENT_INVALID: Kind = (422, "consent-invalid", "The consent document does not count");
pub(crate) const UPGRADE: Kind = (426, "upgrade-required", "This is a WebSocket");
pub(crate) const IF_MATCH_MISSING: Kind = (428, "if-match-missing", "If-Match is needed");
pub(crate) const TOO_MANY: Kind = (429, "too-many-requests", "Too many requests");
pub(crate) const LIMIT: Kind = (503, "limit-reached", "A limit is reached");
pub(crate) const STORE: Kind = (503, "store-unavailable", "The store does not take this now");
pub(crate) const RELAY_FULL: Kind = (503, "relay-full", "The relay is full");
pub(crate) const RELAY_UNAVAILABLE: Kind = (503, "relay-unavailable", "The relay does not answer");
pub(crate) const REALM_UNSERVED: Kind = (503, "realm-unserved", "The relay does not serve this realm");
pub(crate) const NOT_READY: Kind = (503, "not-ready", "Not ready");
pub(crate) const INTERNAL: Kind = (500, "internal", "Something went wrong here");

/// Name of a problem, left in the response for the layer that counts and records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProblemName(pub(crate) &'static str);

/// A request refused. Becomes a problem document.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal of that kind. `detail` says what was wrong here and what would be right; it is cut and cleaned.
    pub(crate) fn new(kind: Kind, detail: impl AsRef<str>) -> Self {
        let (status, name, title) = kind;
        let problem = Problem::new(status, name, title, clean(detail.as_ref(), MAX_DETAIL));
        Self(Box::new(Inner { name, problem, retry_after_s: None }))
    }

    /// Names the field, header, parameter or claim at fault.
    pub(crate) fn field(mut self, field: impl AsRef<str>) -> Self {
        self.0.problem = self.0.problem.field(clean(field.as_ref(), 128));
        self
    }

    /// Names feeds that the client could take instead.
    fn alternatives(mut self, feeds: Vec<FeedId>) -> Self {
        self.0.problem.alternatives = feeds;
        self
    }

    /// Names the ways to log in.
    pub(crate) fn ways(mut self, ways: Vec<String>) -> Self {
        self.0.problem.ways = ways;
        self
    }

    /// Says whether one may come in without, in an emergency.
    fn break_glass(mut self, may: bool) -> Self {
        self.0.problem.break_glass = may;
        self
    }

    /// Says after how many seconds it makes sense to ask again.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// The bearer may not do `verb`.
    pub(crate) fn verb(verb: Verb) -> Self {
        let verb = format!("{verb:?}").to_lowercase();
        Self::new(VERB_MISSING, format!("the token's role does not have the verb {verb}")).field("verbs")
    }

    /// Status of the answer.
    pub(crate) fn status(&self) -> u16 {
        self.0.problem.status
    }

    /// NAME of `urn:trocar:problem:NAME`.
    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    /// What was wrong here.
    pub(crate) fn detail(&self) -> &str {
        &self.0.problem.detail
    }

    /// `WWW-Authenticate` (RFC 6750 section 3), where the token is at fault.
    fn challenge(&self) -> Option<HeaderValue> {
        let text = match (self.0.problem.status, self.0.name) {
            (401, "token-missing" | "login-failed" | "login-unfinished" | "passkey-refused") => {
                "Bearer realm=\"trocar\"".to_owned()
            }
            // RFC 9470: what was shown is not enough.
            (401, "identity-needed" | "second-factor-needed") => {
                "Bearer realm=\"trocar\", error=\"insufficient_user_authentication\"".to_owned()
            }
            (401, name) => format!("Bearer realm=\"trocar\", error=\"invalid_token\", error_description=\"{name}\""),
            (403, "verb-missing") => "Bearer realm=\"trocar\", error=\"insufficient_scope\"".to_owned(),
            _ => return None,
        };
        HeaderValue::from_str(&text).ok()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is five strings and a number: it always has a JSON form.
        let body = serde_json::to_string(&self.0.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(ProblemName(self.0.name));
        response
    }
}

impl From<SessionError> for Refusal {
    fn from(e: SessionError) -> Self {
        let detail = e.to_string();
        match e {
            SessionError::SessionClosed => Self::new(SESSION_CLOSED, detail).field("session"),
            SessionError::ParticipantGone => Self::new(PARTICIPANT_GONE, "join again with the link").field("sub"),
            SessionError::InvitationInvalid => Self::new(INVITATION_INVALID, detail).field("invitation"),
            SessionError::NoFeed => Self::new(FEED_MISSING, detail).field("feed"),
            SessionError::FeedExists => Self::new(FEED_EXISTS, detail).field("feed"),
            SessionError::AudioFeedExists => Self::new(FEED_EXISTS, detail).field("audio_feed"),
            SessionError::NoPublication => Self::new(PUBLICATION_MISSING, detail).field("publication"),
            SessionError::NothingSent => Self::new(SDP_UNPROCESSABLE, detail).field("body"),
            SessionError::NoLeg => Self::new(LEG_MISSING, detail).field("leg"),
            SessionError::Bitrate { .. } => Self::new(FIELD_INVALID, detail).field("max_bitrate"),
            SessionError::IdentityNeeded(need) => {
                let kind = if need.second_factor { SECOND_FACTOR_NEEDED } else { IDENTITY_NEEDED };
                Self::new(kind, &need.what).field("Authorization").ways(need.ways).break_glass(need.break_glass)
            }
            SessionError::BreakGlass(BreakGlassRefused::Off) => {
                Self::new(BREAK_GLASS_OFF, detail).field("identity.break_glass")
            }
            SessionError::BreakGlass(BreakGlassRefused::Role(_)) => {
                Self::new(BREAK_GLASS_ROLE, detail).field("identity.break_glass.roles")
            }
            SessionError::BreakGlass(BreakGlassRefused::Unneeded) => {
                Self::new(BREAK_GLASS_UNNEEDED, detail).field("break_glass")
            }
            SessionError::BreakGlass(BreakGlassRefused::TooOften(seconds)) => {
                Self::new(TOO_MANY, detail).field("break_glass").retry_after(seconds)
            }
            SessionError::DeviceRole(_) => Self::new(DEVICE_REFUSED, detail).field("device"),
            SessionError::RealmDenied { .. } => Self::new(REALM_DENIED, detail).field("realm_policy"),
            SessionError::NoConsent => Self::new(CONSENT_MISSING, detail).field("session"),
            SessionError::ConsentRefused(_) => Self::new(CONSENT_INVALID, detail).field("serial"),
            SessionError::Full(what) => Self::new(LIMIT, detail).field(what).retry_after(5),
            SessionError::Invalid { field, expected } => Self::new(FIELD_INVALID, expected).field(field),
            SessionError::Store(cause) => {
                if !matches!(cause, StoreError::Busy) {
                    tracing::error!(%cause, "the store refused a write");
                }
                Self::new(STORE, "ask again").retry_after(1)
            }
            SessionError::Secret => Self::new(INTERNAL, detail),
        }
    }
}

/// The relay's refusal; `sdp_field` names the body where that is what the relay could not use.
pub(crate) fn refused_by_relay(e: &AdmitError, sdp_field: &'static str) -> Refusal {
    refused_saying(e, e.to_string(), sdp_field)
}

/// The same, in other words.
pub(crate) fn refused_saying(e: &AdmitError, detail: String, sdp_field: &'static str) -> Refusal {
    match e {
        AdmitError::NoSuchFeed => Refusal::new(FEED_MISSING, detail).field("feed"),
        AdmitError::NoSuchLeg => Refusal::new(LEG_MISSING, detail).field("leg"),
        AdmitError::FeedExists => Refusal::new(FEED_EXISTS, detail).field("feed"),
        AdmitError::NoSuchRealm(_) => Refusal::new(REALM_UNSERVED, detail).field("realm"),
        AdmitError::BadSdp(_) => Refusal::new(SDP_INVALID, detail).field(sdp_field),
        AdmitError::NotAcceptable { alternatives, .. } => {
            Refusal::new(NOT_ACCEPTABLE, detail).field(sdp_field).alternatives(alternatives.clone())
        }
        AdmitError::NoSuchPublication => Refusal::new(PUBLICATION_MISSING, detail).field("publication"),
        AdmitError::Full(_) => Refusal::new(RELAY_FULL, detail).retry_after(5),
        AdmitError::LinkTest(LinkTestRefused::Operated(_)) => Refusal::new(LINK_TEST_OPERATED, detail).field("session"),
        AdmitError::LinkTest(LinkTestRefused::Busy) => Refusal::new(LINK_TEST_BUSY, detail).field("session"),
        AdmitError::LinkTest(LinkTestRefused::Unused) => Refusal::new(LINK_TESTS_UNUSED, detail).field("session"),
        AdmitError::LinkTest(LinkTestRefused::Failed(_)) => Refusal::new(INTERNAL, detail).field("session"),
        AdmitError::Unavailable => Refusal::new(RELAY_UNAVAILABLE, detail).retry_after(1),
    }
}
