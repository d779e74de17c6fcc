//! `/metrics` and `/healthz`, plain HTTP for a Prometheus beside the relay.

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use trocar_relay::Relay;

/// Connections at a time. Loss policy: one more is closed at once.
const CONNECTIONS: usize = 16;
/// A connection lasts at most so long: a scrape is quick.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Longest wait for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves figures; where.
pub(crate) async fn serve(address: SocketAddr, relay: Relay) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("metrics.listen = {address}"))?;
    let bound = listener.local_addr()?;
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "ok\n" })).with_state(relay);
    tokio::spawn(accept(listener, router));
    Ok(bound)
}

async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Mostly "too many open files".
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                TowerToHyperService::new(router.clone()).call(request.map(Body::new))
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // What did not end by then has no answer to wait for.
            let _ = timeout(CONNECTION_TIME, served).await;
            drop(place);
        });
    }
}

async fn metrics(State(relay): State<Relay>) -> Response {
    match relay.snapshot().await {
        Some(figures) => {
            let text = format!("{}# EOF\n", figures.render().trim_end_matches("# EOF\n"));
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
