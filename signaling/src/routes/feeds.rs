//! Feeds: announce, look, end.

use super::{FeedPath, SessionPath, json, to_the_end};
use crate::app::App;
use crate::guard::Bearer;
use crate::input::{self, Names};
use crate::live::{Announced, Closing, FeedOffer, FeedTicket, feed_path};
use crate::problem::{FIELD_INVALID, Refusal, refused_by_relay};
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::admission::{AdmitError, FeedGrant, FeedKey};
use trocar_proto::session::api::{FeedInfo, RoqBinding};
use trocar_proto::session::feed::{FeedDescriptor, Transport};
use trocar_proto::session::role::Verb;

/// `GET /v1/sessions/{session}/feeds`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/feeds", operation_id = "listFeeds", tag = "feeds", params(SessionPath), security(("token" = [])),
    responses((status = 200, description = "What is published", body = Vec<FeedInfo>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    let feeds = app.live().feed_infos(&path.session)?;
    Ok(json(StatusCode::OK, &feeds))
}

/// `GET /v1/sessions/{session}/feeds/{feed}`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/feeds/{feed}", operation_id = "showFeed", tag = "feeds", params(FeedPath), security(("token" = [])),
    responses(
        (status = 200, description = "The feed as it is now", body = FeedInfo),
        (status = 404, description = "feed-missing"),
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Names(path): Names<FeedPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    let feed = app.live().feed_info(&FeedKey { session: path.session, feed: path.feed })?;
    Ok(json(StatusCode::OK, &feed))
}

/// `POST /v1/sessions/{session}/feeds`: announce a feed that is sent by RTP over QUIC. 201, or 200 where the same device
/// has come back for a feed that it left behind.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/feeds", operation_id = "announceFeed", tag = "feeds", params(SessionPath),
    request_body = FeedDescriptor, security(("token" = [])),
    responses(
        (status = 200, description = "The same device has come back for its feed", body = RoqBinding,
         headers(("Location" = String, description = "Address of the feed"))),
        (status = 201, description = "Announced; where to send it", body = RoqBinding,
         headers(("Location" = String, description = "Address of the feed"))),
        (status = 409, description = "feed-exists"),
    )
)]
pub(super) async fn announce(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::Publish, &path.session)?;
    let cnf = bearer.cnf()?;
    let descriptor: FeedDescriptor = input::json(&app, request).await?;
    check(&descriptor)?;
    let location = feed_path(&path.session, &descriptor.feed);
    let offer = FeedOffer { session: path.session, publisher: bearer.claims.sub, cnf, descriptor };
    let reserved = app.live().reserve_feed(app.now(), crate::app::wall_clock(), offer)?;
    let (status, binding) = match reserved {
        Announced::Resumed(binding) => (StatusCode::OK, binding),
        Announced::New(ticket, grant, first) => {
            let app = app.clone();
            let opened = to_the_end(async move {
                app.close(first).await;
                ask_relay(&app, ticket, grant).await
            });
            (StatusCode::CREATED, opened.await?)
        }
    };
    let mut response = json(status, &binding);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /v1/sessions/{session}/feeds/{feed}`: by its publisher, or by whoever manages the session.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/feeds/{feed}", operation_id = "removeFeed", tag = "feeds", params(FeedPath), security(("token" = [])),
    responses((status = 204, description = "Ended"), (status = 404, description = "feed-missing"))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names(path): Names<FeedPath>,
    bearer: Bearer,
) -> Result<StatusCode, Refusal> {
    bearer.for_session(&path.session)?;
    let key = FeedKey { session: path.session, feed: path.feed };
    let closings = {
        let mut live = app.live();
        if live.feed_info(&key)?.publisher != bearer.claims.sub {
            bearer.may(Verb::Manage, &key.session)?;
        }
        live.remove_feed(&key)?
    };
    to_the_end(async move {
        app.close(closings).await;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(descriptor: &FeedDescriptor) -> Result<(), Refusal> {
    descriptor.check().map_err(|e| Refusal::new(FIELD_INVALID, e.expected).field(e.field))?;
    match &descriptor.transport {
        Transport::Webrtc => {
            let detail = "feeds are announced here with {\"roq\": {\"mode\": \"datagram\" or \"stream\"}}";
            Err(Refusal::new(FIELD_INVALID, detail).field("transport"))
        }
        Transport::Roq { rtp_flow_id: None, rtcp_flow_id: None, .. } => Ok(()),
        Transport::Roq { rtp_flow_id, .. } => {
            let field = if rtp_flow_id.is_some() { "transport.roq.rtp_flow_id" } else { "transport.roq.rtcp_flow_id" };
            Err(Refusal::new(FIELD_INVALID, "the relay gives the flow ids out: leave them out").field(field))
        }
    }
}

/// Opens a reserved feed at the relay. Whatever goes wrong, neither side keeps half of it.
async fn ask_relay(app: &App, ticket: FeedTicket, grant: FeedGrant) -> Result<RoqBinding, Refusal> {
    match app.ask(app.admission.open_feed(grant)).await {
        Ok(binding) => {
            let committed = app.live().commit_feed(&ticket, binding);
            match committed {
                Ok(answer) => Ok(answer),
                Err(e) => {
                    take_back(app, &ticket).await;
                    Err(e.into())
                }
            }
        }
        // It may have been opened after the time was up.
        Err(e @ AdmitError::Unavailable) => {
            take_back(app, &ticket).await;
            Err(refused_by_relay(&e, "descriptor"))
        }
        Err(e) => {
            app.live().abandon_feed(&ticket);
            Err(refused_by_relay(&e, "descriptor"))
        }
    }
}

/// The name is free only once the relay has closed what it may have opened: a late command would close the next feed.
async fn take_back(app: &App, ticket: &FeedTicket) {
    app.close(vec![Closing::Feed(ticket.key.clone())]).await;
    app.live().abandon_feed(ticket);
}
