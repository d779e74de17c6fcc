//! Joining, tokens, sessions, invitations, participants.

use super::{ParticipantPath, SessionPath, json, to_the_end};
use crate::app::App;
use crate::guard::{Bearer, Peer};
use crate::input::{self, Names};
use crate::name::{MAX_NAME, NAME_EXPECTED, shown};
use crate::problem::{FIELD_INVALID, Refusal, TOO_MANY};
use crate::token::Bearing;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::api::{InvitationRequest, JoinRequest};
use trocar_proto::session::role::Verb;

/// Life of an invitation where the request leaves it out: a day, in seconds.
const DEFAULT_TTL_S: u64 = 86_400;

/// `POST /v1/join`: redeem an invitation.
pub(super) async fn join(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    app.take_join(peer).map_err(|seconds| {
        Refusal::new(TOO_MANY, "too many joins from this address").field("address").retry_after(seconds)
    })?;
    let body: JoinRequest = input::json(&app, request).await?;
    let name = match body.name.as_deref() {
        None => None,
        Some(name) => {
            Some(shown(name, MAX_NAME).ok_or_else(|| Refusal::new(FIELD_INVALID, NAME_EXPECTED).field("name"))?)
        }
    };
    let grant = app.join(&body.invitation, name, body.cnf).await?;
    Ok(json(StatusCode::OK, &grant))
}

/// `POST /v1/token`: a fresh token for the bearer of a good one.
pub(super) async fn token(State(app): State<Arc<App>>, bearer: Bearer) -> Result<Response, Refusal> {
    let claims = bearer.claims;
    let grant = app.grant(Bearing {
        session: claims.session,
        participant: claims.sub,
        realm: claims.realm,
        role: claims.role,
        cnf: claims.cnf.map(|c| c.x5t_s256),
    })?;
    Ok(json(StatusCode::OK, &grant))
}

/// `GET /v1/sessions/{session}`.
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
