//! Joining, tokens, sessions, invitations, participants.

use super::{ParticipantPath, SessionPath, json, to_the_end};
use crate::app::{App, Shown};
use crate::break_glass::{Asked, Who};
use crate::guard::{self, Bearer, Peer};
use crate::input::{self, Names};
use crate::name::{MAX_NAME, NAME_EXPECTED, shown};
use crate::problem::{FIELD_INVALID, Refusal};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::api::{IceServer, Invitation, InvitationRequest, JoinRequest, SessionInfo, TokenGrant};
use trocar_proto::session::break_glass::{BreakGlass, REASON_LEN};
use trocar_proto::session::role::Verb;

/// Life of an invitation where the request leaves it out: a day, in seconds.
const DEFAULT_TTL_S: u64 = 86_400;

/// `POST /v1/join`: redeem an invitation.
#[utoipa::path(
    post, path = "/v1/join", operation_id = "join", tag = "sessions", request_body = JoinRequest,
    responses(
        (status = 200, description = "A participant and its first token", body = TokenGrant),
        (status = 401, description = "identity-needed, second-factor-needed: show an identity of /v1/login as a bearer"),
        (status = 403, description = "invitation-invalid, device-refused, realm-denied, break-glass-off, break-glass-role"),
        (status = 409, description = "break-glass-unneeded"),
        (status = 429, description = "too-many-requests"),
    )
)]
pub(super) async fn join(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let (from, realm) = (Peer::ip_of(request.extensions()), app.realms.came(request.extensions().get()).clone());
    guard::take_join(&app, request.extensions())?;
    let person = guard::person(&app, request.headers())?;
    let body: JoinRequest = input::json(&app, request).await?;
    let cleaned = |text: &'_ Option<String>, field: &str| match text.as_deref().map(|t| shown(t, MAX_NAME)) {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_owned())),
        Some(None) => Err(Refusal::new(FIELD_INVALID, NAME_EXPECTED).field(field)),
    };
    let (name, organisation) = (cleaned(&body.name, "name")?, cleaned(&body.organisation, "organisation")?);
    let as_shown = Shown { name: name.as_deref(), organisation: organisation.as_deref() };
    let emergency = body.break_glass.as_ref().map(reason_of).transpose()?.map(|reason| Asked { reason, from });
    let device = match body.device {
        Some(proof) => Some(app.device(proof, (&body.invitation, body.cnf), (&realm, from)).await?),
        None => None,
    };
    let who = Who { person: person.as_ref(), device: device.as_ref(), emergency, realm: Some(&realm) };
    let grant = app.join_as(&body.invitation, as_shown, body.cnf, who).await?;
    Ok(json(StatusCode::OK, &grant))
}

/// Why somebody comes in by break-glass, where that was said and meant.
fn reason_of(asked: &BreakGlass) -> Result<&str, Refusal> {
    let reason = shown(&asked.reason, *REASON_LEN.end()).filter(|r| r.chars().count() >= *REASON_LEN.start());
    let expected = "why there is no time for a login: 3 to 200 characters, no control characters";
    let reason = reason.ok_or_else(|| Refusal::new(FIELD_INVALID, expected).field("break_glass.reason"))?;
    if asked.confirm {
        return Ok(reason);
    }
    let expected = "true: everybody in the session is told, it is recorded, and it will be reviewed";
    Err(Refusal::new(FIELD_INVALID, expected).field("break_glass.confirm"))
}

/// `POST /v1/token`: a fresh token for the bearer of a good one.
#[utoipa::path(
    post, path = "/v1/token", operation_id = "refreshToken", tag = "sessions", security(("token" = [])),
    responses((status = 200, description = "A fresh token for the same participant", body = TokenGrant))
)]
pub(super) async fn token(State(app): State<Arc<App>>, bearer: Bearer) -> Result<Response, Refusal> {
    let grant = app.exchange(bearer.claims)?;
    Ok(json(StatusCode::OK, &grant))
}

/// `GET /v1/sessions/{session}`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}", operation_id = "showSession", tag = "sessions", params(SessionPath), security(("token" = [])),
    responses((status = 200, description = "The session as it is now", body = SessionInfo))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    let info = app.live().session_info(&path.session)?;
    Ok(json(StatusCode::OK, &info))
}

/// `DELETE /v1/sessions/{session}`: close it for good.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}", operation_id = "closeSession", tag = "sessions", params(SessionPath),
    security(("token" = [])),
    responses((status = 204, description = "Closed for good"))
)]
pub(super) async fn close(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<StatusCode, Refusal> {
    bearer.may(Verb::Manage, &path.session)?;
    to_the_end(async move { Ok(app.close_session(&path.session, Some(&bearer.claims.sub)).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/sessions/{session}/invitations`.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/invitations", operation_id = "invite", tag = "sessions", params(SessionPath),
    request_body = InvitationRequest, security(("token" = [])),
    responses((status = 201, description = "The link and its secret", body = Invitation))
)]
pub(super) async fn invite(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::Invite, &path.session)?;
    let body: InvitationRequest = input::json(&app, request).await?;
    // Whoever may not manage the session must not gain it by inviting themselves into another role.
    if body.role.verbs().contains(&Verb::Manage) && !bearer.claims.allows(Verb::Manage) {
        return Err(Refusal::verb(Verb::Manage).field("role"));
    }
    let ttl_s = body.ttl_s.unwrap_or(DEFAULT_TTL_S);
    let invitation = app.invite(&path.session, body.role, ttl_s, Some(&bearer.claims.sub)).await?;
    Ok(json(StatusCode::CREATED, &invitation))
}

/// `DELETE /v1/sessions/{session}/participants/{participant}`: leave, or remove somebody.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/participants/{participant}", operation_id = "removeParticipant",
    tag = "sessions", params(ParticipantPath), security(("token" = [])),
    responses((status = 204, description = "Removed, or left"))
)]
pub(super) async fn remove_participant(
    State(app): State<Arc<App>>,
    Names(path): Names<ParticipantPath>,
    bearer: Bearer,
) -> Result<StatusCode, Refusal> {
    bearer.for_session(&path.session)?;
    if bearer.claims.sub != path.participant {
        bearer.may(Verb::Manage, &path.session)?;
    }
    to_the_end(
        async move { Ok(app.remove_participant(&path.session, &path.participant, Some(&bearer.claims.sub)).await?) },
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/sessions/{session}/ice-servers`: STUN and TURN servers, with credentials that end within the hour.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/ice-servers", operation_id = "iceServers", tag = "webrtc", params(SessionPath),
    security(("token" = [])),
    responses((status = 200, description = "STUN and TURN servers", body = Vec<IceServer>))
)]
pub(super) async fn ice_servers(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    Ok(json(StatusCode::OK, &app.ice_servers(&bearer.claims.realm, &bearer.claims.sub)))
}
