//! Legs by RTP over QUIC, and ending legs of either kind.

use super::{FeedPath, LegPath, json, to_the_end};
use crate::app::{App, wall_clock};
use crate::guard::Bearer;
use crate::input::{self, Names};
use crate::live::{Closing, LegKind};
use crate::problem::{FIELD_INVALID, Refusal, refused_by_relay};
use crate::secret;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;
use trocar_proto::session::admission::{AdmitError, FeedKey, LegGrant};
use trocar_proto::session::api::{LegRequest, MAX_PATHS, RoqBinding};
use trocar_proto::session::ids::{CertHash, FeedId, LegId};
use trocar_proto::session::role::Verb;

/// `POST /v1/sessions/{session}/feeds/{feed}/legs`: fetch a feed by RTP over QUIC.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/feeds/{feed}/legs", operation_id = "openLeg", tag = "feeds", params(FeedPath),
    request_body = Option<LegRequest>, security(("token" = [])),
    responses(
        (status = 201, description = "Where to fetch it", body = RoqBinding,
         headers(("Location" = String, description = "Address of the leg"))),
        (status = 403, description = "consent-missing: this node asks for the patient's consent"),
        (status = 404, description = "feed-missing"),
        (status = 400, description = "field-invalid: `mode` or `paths`"),
    )
)]
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Names(path): Names<FeedPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::View, &path.session)?;
    let cnf = bearer.cnf()?;
    let asked: LegRequest = input::json_or_default(&app, request).await?;
    if !(1..=MAX_PATHS).contains(&usize::from(asked.paths)) {
        return Err(Refusal::new(FIELD_INVALID, "1 or 2 connections").field("paths"));
    }
    let key = FeedKey { session: path.session.clone(), feed: path.feed };
    let reserved = app.live().reserve_leg(app.now(), secret::leg_id()?, &key, &bearer.claims.sub)?;
    let grant = LegGrant { roq: asked, ..reserved };
    let location = format!("/v1/sessions/{}/legs/{}", path.session, grant.leg);
    let task = app.clone();
    let binding = to_the_end(async move { ask_relay(&task, grant, cnf).await }).await?;
    let mut response = json(StatusCode::CREATED, &binding);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Body of `PATCH …/legs/{leg}`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct LegChange {
    /// What the leg is to carry: another view, or another simulcast layer, of the source that it carries.
    feed: FeedId,
}

/// `PATCH /v1/sessions/{session}/legs/{leg}`: a WHEP leg goes on with another view or layer of the same source, from its
/// next key frame on; until then with what it carries. The event `switched` says when. Its owner's alone.
#[utoipa::path(
    patch, path = "/v1/sessions/{session}/legs/{leg}", operation_id = "switchLeg", tag = "feeds", params(LegPath),
    request_body = LegChange, security(("token" = [])),
    responses(
        (status = 202, description = "It goes on with that feed when its key frame comes"),
        (status = 404, description = "leg-missing, feed-missing"),
        (status = 406, description = "not-acceptable"),
    )
)]
pub(super) async fn switch(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    bearer: Bearer,
    request: Request,
) -> Result<StatusCode, Refusal> {
    bearer.may(Verb::View, &path.session)?;
    let LegChange { feed } = input::json(&app, request).await?;
    let key = FeedKey { session: path.session, feed };
    app.live().check_switch(&path.leg, &key, &bearer.claims.sub)?;
    to_the_end(async move {
        let answer = app.ask(app.admission.switch_leg(&path.leg, key)).await;
        answer.map_err(|e| refused_by_relay(&e, "feed"))
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /v1/sessions/{session}/legs/{leg}`: by its owner, or by whoever manages the session.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/legs/{leg}", operation_id = "removeLeg", tag = "feeds", params(LegPath), security(("token" = [])),
    responses((status = 204, description = "Ended"), (status = 404, description = "leg-missing"))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    bearer: Bearer,
) -> Result<StatusCode, Refusal> {
    bearer.for_session(&path.session)?;
    let any = bearer.claims.allows(Verb::Manage);
    let closings = app.live().remove_leg(&path.session, &path.leg, &bearer.claims.sub, any)?;
    to_the_end(async move {
        app.close(closings).await;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn ask_relay(app: &App, grant: LegGrant, cnf: CertHash) -> Result<RoqBinding, Refusal> {
    let (leg, key) = (grant.leg.clone(), grant.feed.clone());
    match app.ask(app.admission.open_roq_leg(grant, cnf)).await {
        Ok(binding) => {
            let committed = {
                let mut live = app.live();
                live.commit_leg(wall_clock(), &leg, LegKind::Roq).and_then(|()| live.leg_binding(&leg, &key, &binding))
            };
            match committed {
                Ok(answer) => settle(app, leg).await.map(|()| answer),
                Err(e) => {
                    take_back(app, leg).await;
                    Err(e.into())
                }
            }
        }
        Err(e) => Err(give_up(app, leg, &e, "body").await),
    }
}

/// Nobody sees a picture before the record of it is on disk; where that cannot be had, the leg ends.
pub(super) async fn settle(app: &App, leg: LegId) -> Result<(), Refusal> {
    let Err(error) = app.settled().await else { return Ok(()) };
    tracing::error!(%error, "a view was refused because it could not be recorded");
    take_back(app, leg).await;
    Err(error.into())
}

/// Takes back a reserved leg that the relay did not open.
pub(super) async fn give_up(app: &App, leg: LegId, e: &AdmitError, sdp_field: &'static str) -> Refusal {
    if *e == AdmitError::Unavailable {
        // It may have been opened after the time was up.
        take_back(app, leg).await;
    } else {
        app.live().abandon_leg(&leg);
    }
    refused_by_relay(e, sdp_field)
}

/// Closes at the relay what it may have opened, then takes the reservation back.
pub(super) async fn take_back(app: &App, leg: LegId) {
    app.close(vec![Closing::Leg(leg.clone())]).await;
    app.live().abandon_leg(&leg);
}
