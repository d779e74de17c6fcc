//! The HTTP API, route by route.

mod feeds;
mod legs;
mod operate;
mod sessions;
mod whep;

use crate::app::App;
use crate::problem::{INTERNAL, METHOD, NOT_FOUND, Refusal};
use crate::{events, guard, page};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trocar_proto::session::ids::{FeedId, LegId, ParticipantId, SessionId};

/// Names in a path under a session.
#[derive(Debug, Deserialize)]
pub(crate) struct SessionPath {
    pub(crate) session: SessionId,
}

/// Names in a path under a feed.
#[derive(Debug, Deserialize)]
struct FeedPath {
    session: SessionId,
    feed: FeedId,
}

/// Names in a path of a leg.
#[derive(Debug, Deserialize)]
struct LegPath {
    session: SessionId,
    leg: LegId,
}

/// Names in a path of a participant.
#[derive(Debug, Deserialize)]
struct ParticipantPath {
    session: SessionId,
    participant: ParticipantId,
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/join", post(sessions::join))
        .route("/v1/token", post(sessions::token))
        .route("/v1/sessions/{session}", get(sessions::show).delete(sessions::close))
        .route("/v1/sessions/{session}/invitations", post(sessions::invite))
        .route("/v1/sessions/{session}/participants/{participant}", delete(sessions::remove_participant))
        .route("/v1/sessions/{session}/events", get(events::open))
        .route("/v1/sessions/{session}/feeds", get(feeds::list).post(feeds::announce))
        .route("/v1/sessions/{session}/feeds/{feed}", get(feeds::show).delete(feeds::remove))
        .route("/v1/sessions/{session}/feeds/{feed}/legs", post(legs::open))
        .route("/v1/sessions/{session}/legs/{leg}", delete(legs::remove))
        .route("/v1/sessions/{session}/feeds/{feed}/whep", post(whep::open).options(whep::preflight))
        .route("/v1/sessions/{session}/whep/{leg}", patch(whep::patch).delete(whep::remove).options(whep::preflight))
        .route("/healthz", get(operate::healthz))
        .route("/readyz", get(operate::readyz))
        .route("/metrics", get(operate::metrics))
        .merge(page::routes())
        .fallback(|| async { Refusal::new(NOT_FOUND, "no route has this path") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(METHOD, "see Allow for the methods of this path").field("method")
        })
        .layer(DefaultBodyLimit::max(app.limits.body_bytes))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::watch))
        .with_state(app)
}

/// An answer with a JSON body.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, axum::Json(value)).into_response()
}

/// Runs work that changes state on both sides to its end, even when the client goes away in the middle: a dropped future
/// would leave a reservation behind.
async fn to_the_end<T, F>(work: F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Refusal>> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "a request's task ended early");
            Err(Refusal::new(INTERNAL, "the request was not carried out"))
        }
    }
}
