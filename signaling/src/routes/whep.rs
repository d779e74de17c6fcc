//! WHEP (draft-ietf-wish-whep, with the session resource of RFC 9725): a browser fetches a feed, or the voices of the
//! session, with one POST, trickles candidates and restarts ICE by PATCH, and hangs up with DELETE.

use super::legs::{give_up, settle, take_back};
use super::link_tests::check_named;
use super::offer::Offer;
use super::resource::{
    Created, SDP, SDP_FRAGMENT, check_if_match, created, endpoint_options, patched, resource_options,
};
use super::{FeedPath, LegPath, SessionPath, to_the_end};
use crate::admission::Answer;
use crate::app::{App, wall_clock};
use crate::guard::{Caller, Entry};
use crate::input::{self, Names};
use crate::live::LegKind;
use crate::problem::{FIELD_INVALID, Refusal, refused_by_relay};
use crate::secret;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::admission::{AdmitError, FeedKey, WebrtcAnswer};
use trocar_proto::session::ids::{LegId, ParticipantId, SessionId};
use trocar_proto::session::role::Verb;

/// What others see of a participant that is known by an invitation alone.
const GUEST: &str = "WHEP client";

/// `POST /v1/sessions/{session}/feeds/{feed}/whep`: SDP offer in, SDP answer and the resource's address out.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/feeds/{feed}/whep", operation_id = "watchFeed", tag = "webrtc", params(FeedPath),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer"), security(("token" = []), ("invitation" = [])),
    responses(
        (status = 201, description = "SDP answer", body = String, content_type = "application/sdp", headers(
            ("Location" = String, description = "Address of the resource"),
            ("ETag" = String, description = "The ICE session, for If-Match"),
            ("Accept-Patch" = String, description = "application/trickle-ice-sdpfrag"),
            ("Link" = String, description = "One for each URL of an ICE server, rel=\"ice-server\""),
        )),
        (status = 403, description = "consent-missing: this node asks for the patient's consent"),
        (status = 404, description = "feed-missing"),
        (status = 406, description = "not-acceptable, with alternatives"),
    )
)]
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Names(path): Names<FeedPath>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let entry = caller.enter(&app, &path.session, Verb::View)?;
    let offer = input::text(&app, request, SDP).await?;
    let key = FeedKey { session: path.session, feed: path.feed };
    to_the_end(async move {
        // Before a guest is let in for it.
        app.live().feed_info(&key)?;
        let owner = entry.participant(&app, GUEST).await?;
        let opened = open_feed(&app, &key, offer, owner.clone()).await;
        entry.settle(&app, &owner, &opened).await;
        created(&app, entry.realm(), opened?)
    })
    .await
}

/// `POST /v1/sessions/{session}/voices/whep`: the same for everybody's voices but the listener's own.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/voices/whep", operation_id = "hearVoices", tag = "webrtc",
    params(SessionPath, ("relay" = Option<String>, Query, description = "At which relay, for an engineer who measures the line to it; as signaling chooses where left out")),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer"), security(("token" = []), ("invitation" = [])),
    responses(
        (status = 201, description = "SDP answer", body = String, content_type = "application/sdp", headers(
            ("Location" = String, description = "Address of the resource"),
            ("ETag" = String, description = "The ICE session, for If-Match"),
            ("Accept-Patch" = String, description = "application/trickle-ice-sdpfrag"),
            ("Link" = String, description = "One for each URL of an ICE server, rel=\"ice-server\""),
        )),
        (status = 400, description = "field-invalid: no such relay"),
        (status = 403, description = "verb-missing: a relay is named by engineers alone"),
        (status = 406, description = "not-acceptable"),
        (status = 422, description = "sdp-unprocessable"),
    )
)]
pub(super) async fn open_voices(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let entry = caller.enter(&app, &path.session, Verb::View)?;
    let relay = relay_of(&app, &entry, request.uri())?;
    let offer = input::text(&app, request, SDP).await?;
    Offer::look(&offer)?.check_voices()?;
    to_the_end(async move {
        let owner = entry.participant(&app, GUEST).await?;
        let opened = open_voices_leg(&app, &path.session, offer, (owner.clone(), relay)).await;
        entry.settle(&app, &owner, &opened).await;
        created(&app, entry.realm(), opened?)
    })
    .await
}

/// `PATCH /v1/sessions/{session}/whep/{leg}`: candidates (204), or an ICE restart (200 with the relay's fragment and the
/// new entity tag). `If-Match` is the current tag, or `*` for a restart (RFC 9725 sections 4.3.2 and 4.3.3).
#[utoipa::path(
    patch, path = "/v1/sessions/{session}/whep/{leg}", operation_id = "patchWhep", tag = "webrtc",
    params(LegPath, ("If-Match" = Option<String>, Header, description = "The current entity tag, or * for an ICE restart")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag", description = "SDP fragment (RFC 8840)"), security(("token" = []), ("invitation" = [])),
    responses(
        (status = 200, description = "The relay's fragment after an ICE restart", body = String,
         content_type = "application/trickle-ice-sdpfrag",
         headers(("ETag" = String, description = "The new ICE session"))),
        (status = 204, description = "Candidates taken"),
        (status = 404, description = "leg-missing"),
        (status = 412, description = "if-match-failed"),
        (status = 428, description = "if-match-missing"),
    )
)]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let owner = caller.owner_of_leg(&app, &path.session, &path.leg)?;
    let current = app.live().ice_session(&path.session, &path.leg, &owner)?;
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
    patched(restarted)
}

/// `DELETE /v1/sessions/{session}/whep/{leg}`: hang up. The owner's alone: to others it does not exist.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/whep/{leg}", operation_id = "endWhep", tag = "webrtc", params(LegPath), security(("token" = []), ("invitation" = [])),
    responses((status = 200, description = "Hung up"), (status = 404, description = "leg-missing"))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names(path): Names<LegPath>,
    caller: Caller,
) -> Result<StatusCode, Refusal> {
    let owner = caller.owner_of_leg(&app, &path.session, &path.leg)?;
    let closings = {
        let mut live = app.live();
        live.ice_session(&path.session, &path.leg, &owner)?;
        live.remove_leg(&path.session, &path.leg, &owner, false)?
    };
    to_the_end(async move {
        app.close(closings).await;
        caller.leave(&app, &path.session, &owner).await;
        Ok(())
    })
    .await?;
    Ok(StatusCode::OK)
}

/// `OPTIONS` of a feed's endpoint.
#[utoipa::path(
    options, path = "/v1/sessions/{session}/feeds/{feed}/whep", operation_id = "watchFeedOptions", tag = "webrtc", params(FeedPath),
    responses((status = 204, description = "What is taken here, and CORS by policy", headers(
        ("Allow" = String, description = "Methods"),
        ("Accept-Post" = String, description = "Media type"),
    )))
)]
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request) -> Response {
    endpoint_options(&app, &request)
}

/// `OPTIONS` of the endpoint of the voices.
#[utoipa::path(
    options, path = "/v1/sessions/{session}/voices/whep", operation_id = "hearVoicesOptions", tag = "webrtc", params(SessionPath),
    responses((status = 204, description = "What is taken here, and CORS by policy", headers(
        ("Allow" = String, description = "Methods"),
        ("Accept-Post" = String, description = "Media type"),
    )))
)]
pub(super) async fn voices_endpoint(State(app): State<Arc<App>>, request: Request) -> Response {
    endpoint_options(&app, &request)
}

/// `OPTIONS` of a leg.
#[utoipa::path(
    options, path = "/v1/sessions/{session}/whep/{leg}", operation_id = "whepOptions", tag = "webrtc", params(LegPath),
    responses((status = 204, description = "What is taken here, and CORS by policy", headers(
        ("Allow" = String, description = "Methods"),
        ("Accept-Patch" = String, description = "Media type"),
    )))
)]
pub(super) async fn resource(request: Request) -> Response {
    resource_options(&request)
}

/// The relay that the address names, for those who measure the line to it.
fn relay_of(app: &App, entry: &Entry, uri: &Uri) -> Result<Option<String>, Refusal> {
    let bad = |expected: &str| Refusal::new(FIELD_INVALID, expected).field("relay");
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| bad("KEY=VALUE pairs joined by &, percent-encoded UTF-8"))?;
    let mut named = pairs.0.into_iter().filter(|(key, _)| key == "relay").map(|(_, name)| name);
    let relay = named.next();
    if named.next().is_some() {
        return Err(bad("one relay is right"));
    }
    if relay.is_some() && !app.realms.verbs(entry.realm(), entry.role()).contains(&Verb::Measure) {
        return Err(Refusal::verb(Verb::Measure));
    }
    check_named(app, relay.as_deref())?;
    Ok(relay)
}

async fn open_feed(app: &App, key: &FeedKey, offer: String, owner: ParticipantId) -> Result<Created, Refusal> {
    let leg = secret::leg_id()?;
    let grant = app.live().reserve_leg(app.now(), leg.clone(), key, &owner)?;
    let answer = commit(app, leg.clone(), app.admission.open_webrtc_leg(grant, offer)).await?;
    Ok(resource_of(&key.session, &leg, answer, owner))
}

async fn open_voices_leg(
    app: &App,
    session: &SessionId,
    offer: String,
    (owner, relay): (ParticipantId, Option<String>),
) -> Result<Created, Refusal> {
    let leg = secret::leg_id()?;
    let grant = app.live().reserve_voices(app.now(), leg.clone(), session, &owner, relay)?;
    let answer = commit(app, leg.clone(), app.admission.open_voices(grant, offer)).await?;
    Ok(resource_of(session, &leg, answer, owner))
}

fn resource_of(session: &SessionId, leg: &LegId, answer: WebrtcAnswer, owner: ParticipantId) -> Created {
    let location = format!("/v1/sessions/{session}/whep/{leg}");
    Created { sdp: answer.sdp, ice_session: answer.ice_session, location, owner }
}

/// Opens a reserved leg at the relay. Whatever goes wrong, neither side keeps half of it.
async fn commit(
    app: &App,
    leg: LegId,
    opening: Answer<'_, Result<WebrtcAnswer, AdmitError>>,
) -> Result<WebrtcAnswer, Refusal> {
    match app.ask(opening).await {
        Ok(answer) => {
            let kind = LegKind::Whep { ice_session: answer.ice_session.clone() };
            let committed = app.live().commit_leg(wall_clock(), &leg, kind);
            if let Err(e) = committed {
                take_back(app, leg).await;
                return Err(e.into());
            }
            settle(app, leg).await?;
            Ok(answer)
        }
        Err(e) => Err(give_up(app, leg, &e, "body").await),
    }
}
