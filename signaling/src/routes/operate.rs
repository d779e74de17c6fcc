//! For whoever runs the server: is it alive, can it serve, figures.

use crate::app::App;
use crate::figures::without_eof;
use crate::guard::Peer;
use crate::problem::{METRICS_CLOSED, NOT_READY, Refusal};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The request came by the listener for operators.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnListener;

/// `GET /healthz`: the process answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "isAlive", tag = "operating",
    responses((status = 200, description = "The process answers", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: relay and store take work.
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "operating",
    responses(
        (status = 200, description = "Relay and store take work", body = String, content_type = "text/plain"),
        (status = 503, description = "not-ready"),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    if !app.admission.ready() {
        return Err(Refusal::new(NOT_READY, "the relay takes no feeds and legs now").field("relay").retry_after(1));
    }
    if let Err(e) = app.store.write(Vec::new()).await {
        return Err(Refusal::new(NOT_READY, e.to_string()).field("store").retry_after(1));
    }
    Ok("ready\n")
}

/// `GET /metrics`: signaling's figures, then the relay's. To this machine, or to anyone of its realm where so configured.
#[utoipa::path(
    get, path = "/metrics", operation_id = "figures", tag = "operating",
    responses(
        (status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text"),
        (status = 403, description = "metrics-closed"),
    )
)]
pub(super) async fn metrics(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let is_own = request.extensions().get::<OwnListener>().is_some();
    let is_open = app.metrics_open && app.realms.foreign(request.extensions().get()).is_none();
    if !is_own && !is_open && !Peer::is_same_machine(request.extensions()) {
        return Err(Refusal::new(METRICS_CLOSED, "ask from the same machine").field("address"));
    }
    // Gauges are of this moment, not of the last sweep.
    app.live().count();
    let relay = app.admission.metrics_text();
    let text = format!("{}{}# EOF\n", app.figures.render(), without_eof(&relay));
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
