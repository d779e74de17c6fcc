//! WHEP (draft-ietf-wish-whep, with the session resource of RFC 9725): a browser fetches a feed with one POST, trickles
//! candidates and restarts ICE by PATCH, and hangs up with DELETE.

use super::legs::give_up;
use super::{FeedPath, LegPath, to_the_end};
use crate::app::App;
use crate::guard::Bearer;
use crate::input::{self, Names};
use crate::live::{Closing, LegKind};
use crate::problem::{IF_MATCH_FAILED, IF_MATCH_MISSING, INTERNAL, Refusal, refused_by_relay};
use crate::secret;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, CONTENT_TYPE, ETAG, IF_MATCH,
    LOCATION,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use trocar_proto::session::admission::{FeedKey, LegGrant, WebrtcAnswer};
use trocar_proto::session::role::Verb;

const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// `POST /v1/sessions/{session}/feeds/{feed}/whep`: SDP offer in, SDP answer and the resource's address out.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Names(path): Names<FeedPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::View, &path.session)?;
    let offer = input::text(&app, request, SDP).await?;
    let key = FeedKey { session: path.session, feed: path.feed };
    let grant = app.live().reserve_leg(app.now(), secret::leg_id()?, &key, &bearer.claims.sub)?;
    let location = format!("/v1/sessions/{}/whep/{}", key.session, grant.leg);
    let answer = to_the_end(async move { ask_relay(&app, grant, offer).await }).await?;
    let mut response = (StatusCode::CREATED, answer.sdp).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, header(&location)?);
    headers.insert(ETAG, entity_tag(&answer.ice_session)?);
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    Ok(response)
}

/// `PATCH /v1/sessions/{session}/whep/{leg}`: candidates (204), or an ICE restart (200 with the relay's fragment and the
/// new entity tag). `If-Match` is the current tag, or `*` for a restart (RFC 9725 sections 4.3.2 and 4.3.3).
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    let current = app.live().ice_session(&path.session, &path.leg, &bearer.claims.sub)?;
    let precondition = request.headers().clone();
    let fragment = input::text(&app, request, SDP_FRAGMENT).await?;
    check_if_match(&precondition, &current)?;
    let restarted = to_the_end(async move {
        let answer = app.ask(app.admission.patch_webrtc_leg(&path.leg, fragment)).await;
        let restarted = answer.map_err(|e| refused_by_relay(&e, "body"))?;
        if let Some((_, ice_session)) = &restarted {
            app.live().restart_ice(&path.session, &path.leg, ice_session.clone())?;
        }
        Ok(restarted)
    })
    .await?;
    let Some((fragment, ice_session)) = restarted else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let mut response = (StatusCode::OK, fragment).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SDP_FRAGMENT));
    response.headers_mut().insert(ETAG, entity_tag(&ice_session)?);
    Ok(response)
}

/// `DELETE /v1/sessions/{session}/whep/{leg}`: hang up. The owner's alone: to others it does not exist.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    bearer: Bearer,
) -> Result<StatusCode, Refusal> {
    bearer.for_session(&path.session)?;
    let closings = {
        let mut live = app.live();
        live.ice_session(&path.session, &path.leg, &bearer.claims.sub)?;
        live.remove_leg(&path.session, &path.leg, &bearer.claims.sub, false)?
    };
    to_the_end(async move {
        app.close(closings).await;
        Ok(())
    })
    .await?;
    Ok(StatusCode::OK)
}

/// `OPTIONS` of both resources: what pages of other origins may send (CORS), and what is taken (RFC 9725 section 4.2).
pub(super) async fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, PATCH, DELETE, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Authorization, Content-Type, If-Match"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn ask_relay(app: &App, grant: LegGrant, offer: String) -> Result<WebrtcAnswer, Refusal> {
    let leg = grant.leg.clone();
    match app.ask(app.admission.open_webrtc_leg(grant, offer)).await {
        Ok(answer) => {
            let kind = LegKind::Whep { ice_session: answer.ice_session.clone() };
            let committed = app.live().commit_leg(&leg, kind);
            if let Err(e) = committed {
                app.close(vec![Closing::Leg(leg)]).await;
                return Err(e.into());
            }
            Ok(answer)
        }
        Err(e) => Err(give_up(app, leg, &e, "body").await),
    }
}

/// The precondition of a PATCH: 428 without `If-Match`, 412 where no tag is the current one (strong comparison, RFC 9110
/// section 13.1.1).
fn check_if_match(headers: &HeaderMap, ice_session: &str) -> Result<(), Refusal> {
    let current = format!("\"{ice_session}\"");
    let mut given = headers.get_all(IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        let detail = "send If-Match with the entity tag of the answer, or * for an ICE restart";
        return Err(Refusal::new(IF_MATCH_MISSING, detail).field("If-Match"));
    }
    let mut tags = given.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    if tags.any(|tag| tag == "*" || tag == current) {
        return Ok(());
    }
    Err(Refusal::new(IF_MATCH_FAILED, "the entity tag is not that of the current ICE session").field("If-Match"))
}

fn entity_tag(ice_session: &str) -> Result<HeaderValue, Refusal> {
    header(&format!("\"{ice_session}\""))
}

fn header(value: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(value).map_err(|_| Refusal::new(INTERNAL, "an answer of the relay cannot stand in a header"))
}
