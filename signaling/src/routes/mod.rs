//! The HTTP API, route by route.

mod consent;
mod feeds;
mod legs;
mod link_tests;
mod login;
mod offer;
mod openapi;
mod operate;
mod passkeys;
mod resource;
mod sessions;
mod whep;
mod whip;

use crate::app::App;
use crate::problem::{INTERNAL, METHOD, NOT_FOUND, Refusal};
use crate::{events, guard, page};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trocar_proto::session::ids::{FeedId, LegId, ParticipantId, PublicationId, SessionId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Names in a path under a session.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SessionPath {
    /// The session.
    #[param(inline)]
    pub(crate) session: SessionId,
}

/// Names in a path under a feed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct FeedPath {
    /// The session.
    #[param(inline)]
    session: SessionId,
    /// The feed.
    #[param(inline)]
    feed: FeedId,
}

/// Names in a path of a leg.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct LegPath {
    /// The session.
    #[param(inline)]
    session: SessionId,
    /// The leg.
    #[param(inline)]
    leg: LegId,
}

/// Names in a path of a publication.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct PublicationPath {
    /// The session.
    #[param(inline)]
    session: SessionId,
    /// The publication.
    #[param(inline)]
    publication: PublicationId,
}

/// Names in a path of a participant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ParticipantPath {
    /// The session.
    #[param(inline)]
    session: SessionId,
    /// The participant.
    #[param(inline)]
    participant: ParticipantId,
}

/// All routes of the API: what is here is in the document, and the other way round.
fn api() -> OpenApiRouter<Arc<App>> {
    api_with(operating())
}

fn api_with(operating: OpenApiRouter<Arc<App>>) -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::preface())
        .routes(routes!(sessions::join))
        .routes(routes!(sessions::token))
        .routes(routes!(login::login))
        .routes(routes!(login::begin))
        .routes(routes!(login::finish))
        .routes(routes!(login::logout))
        .routes(routes!(passkeys::begin_login))
        .routes(routes!(passkeys::finish_login))
        .routes(routes!(passkeys::begin))
        .routes(routes!(passkeys::finish))
        .routes(routes!(sessions::show, sessions::close))
        .routes(routes!(sessions::invite))
        .routes(routes!(consent::show, consent::put))
        .routes(routes!(sessions::remove_participant))
        .routes(routes!(sessions::ice_servers))
        .routes(routes!(link_tests::begin))
        .routes(routes!(events::open))
        .routes(routes!(feeds::list, feeds::announce))
        .routes(routes!(feeds::show, feeds::remove))
        .routes(routes!(legs::open))
        .routes(routes!(legs::switch, legs::remove))
        .routes(routes!(whep::open, whep::endpoint))
        .routes(routes!(whep::open_voices, whep::voices_endpoint))
        .routes(routes!(whep::patch, whep::remove, whep::resource))
        .routes(routes!(whip::open, whip::endpoint))
        .routes(routes!(whip::patch, whip::remove, whip::resource))
        .merge(operating)
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::viewer))
}

/// What whoever runs the server asks.
fn operating() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(operate::healthz))
        .routes(routes!(operate::readyz))
        .routes(routes!(operate::metrics))
}

/// The API and the page; with what operators ask, where that has no listener of its own.
pub(crate) fn router(app: Arc<App>, with_operating: bool) -> Router {
    let api = if with_operating { api() } else { api_with(OpenApiRouter::new()) };
    layered(Router::from(api).merge(page::routes()), app)
}

/// What operators ask, and nothing else. Whoever reaches that listener is told.
pub(crate) fn admin_router(app: Arc<App>) -> Router {
    layered(Router::from(operating()).layer(axum::Extension(operate::OwnListener)), app)
}

fn layered(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(|| async { Refusal::new(NOT_FOUND, "no route has this path") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(METHOD, "see Allow for the methods of this path").field("method")
        })
        .layer(DefaultBodyLimit::max(app.limits.body_bytes))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::watch))
        .with_state(app)
}

/// Looks at an offer as WHIP and WHEP do, for the fuzz targets.
pub(crate) fn look_at_offer(text: &str) {
    if let Ok(offer) = offer::Offer::look(text) {
        let _ = (offer.sends().is_ok(), offer.check_voices().is_ok(), offer.layers());
    }
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
