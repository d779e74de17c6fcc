//! One POST for each thing that signaling may ask, the event stream, and figures.

#![allow(clippy::result_large_err, reason = "a refusal is an answer, made once and sent")]

use super::book::Book;
use super::problem::Refusal;
use super::server::{Asker, BODY_BYTES, BODY_TIMEOUT};
use crate::Relay;
use crate::link_test::Answering;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use trocar_proto::session::admission::{AdmitError, FeedGrant, FeedKey, LegGrant, PublicationGrant, VoicesGrant};
use trocar_proto::session::ids::{LegId, PublicationId};
use trocar_proto::session::link_test::{LinkTestBegin, LinkTestKeep, LinkTestRefused};
use trocar_proto::session::remote::{CascadeGrant, ForCertificate, LegShape, WithSdp};

/// What all requests share.
pub(super) struct Shared {
    pub(super) relay: Relay,
    pub(super) link_tests: Option<Arc<Answering>>,
    pub(super) book: Book,
}

/// Every route. Whoever asks has to be signaling.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/admission/{command}", post(command))
        .route("/v1/events", get(events))
        .route("/v1/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(only_signaling))
        .with_state(shared)
}

async fn only_signaling(request: Request, next: Next) -> Response {
    let refusal = match request.extensions().get::<Asker>().map(Asker::judge) {
        Some(Ok(())) => return next.run(request).await,
        Some(Err(why)) => why,
        None => "no certificate was shown".to_owned(),
    };
    tracing::warn!(reason = refusal, "admission refused");
    Refusal::new(StatusCode::FORBIDDEN, "not-signaling", "Only signaling is served here", refusal).into_response()
}

/// A command runs to its end even where the asker has gone: what it opened is in the book then.
async fn command(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response {
    let body = match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => {
            let (status, why) = (rejection.status(), rejection.body_text());
            return Refusal::new(status, "body", "The body cannot be read", why).into_response();
        }
        Err(_) => {
            let why = format!("it did not come within {} s", BODY_TIMEOUT.as_secs());
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, "body", "The body cannot be read", why).into_response();
        }
    };
    let carried = tokio::spawn(async move { shared.carry_out(&name, &body).await }).await;
    carried.unwrap_or_else(|_| Err(AdmitError::Unavailable.into())).into_response()
}

type Answered = Result<Response, Refusal>;

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        Refusal::new(StatusCode::BAD_REQUEST, "body", "The body is not what this command wants", e.to_string())
    })
}

fn json(value: &impl Serialize) -> Answered {
    Ok(Json(value).into_response())
}

impl Shared {
    async fn carry_out(&self, command: &str, body: &[u8]) -> Answered {
        match command {
            "open-feed" => self.open_feed(parse(body)?).await,
            "close-feed" => {
                let key: FeedKey = parse(body)?;
                self.relay.close_feed(key.clone()).await;
                self.book.forget_feed(&key);
                json(&())
            }
            "open-roq-leg" => self.open_roq_leg(parse(body)?).await,
            "open-webrtc-leg" => self.open_webrtc_leg(parse(body)?).await,
            "patch-webrtc-leg" => self.patch_webrtc_leg(parse(body)?).await,
            "switch-leg" => {
                let (leg, feed): (LegId, FeedKey) = parse(body)?;
                self.relay.switch_leg(leg, feed).await?;
                json(&())
            }
            "open-publication" => self.open_publication(parse(body)?).await,
            "patch-publication" => self.patch_publication(parse(body)?).await,
            "close-publication" => {
                let publication: PublicationId = parse(body)?;
                self.relay.close_publication(publication.clone()).await;
                self.book.forget_publication(&publication);
                json(&())
            }
            "open-voices" => self.open_voices(parse(body)?).await,
            "close-leg" => {
                let leg: LegId = parse(body)?;
                self.relay.close_leg(leg.clone()).await;
                self.book.forget_leg(&leg);
                json(&())
            }
            "open-cascade" => {
                let grant: CascadeGrant = parse(body)?;
                let key = grant.key.clone();
                self.relay.open_cascade(grant).await?;
                self.book.note_cascade(key);
                json(&())
            }
            "close-cascade" => {
                let key: FeedKey = parse(body)?;
                self.relay.close_feed(key.clone()).await;
                self.book.forget_cascade(&key);
                json(&())
            }
            "begin-link-test" => {
                let asked: LinkTestBegin = parse(body)?;
                let answering = self.link_tests.as_ref().ok_or(LinkTestRefused::Unused).map_err(AdmitError::from)?;
                if !answering.serves(&asked.realm) {
                    return Err(AdmitError::NoSuchRealm(asked.realm).into());
                }
                json(&answering.begin_kept(&asked).map_err(AdmitError::from)?)
            }
            "keep-link-test" => {
                let said: LinkTestKeep = parse(body)?;
                self.link_tests.iter().for_each(|answering| answering.keep(&said));
                json(&())
            }
            other => {
                let why = format!("{other:?} is no command");
                Err(Refusal::new(StatusCode::NOT_FOUND, "no-such-command", "No such command", why))
            }
        }
    }

    async fn open_feed(&self, grant: FeedGrant) -> Answered {
        self.book.ask_feed(&grant.key);
        match self.relay.open_feed(grant.clone()).await {
            Ok(binding) => {
                self.book.note_feed(grant, binding.clone());
                json(&binding)
            }
            Err(e) => {
                self.book.refused_feed(&grant.key);
                Err(e.into())
            }
        }
    }

    async fn open_roq_leg(&self, asked: ForCertificate) -> Answered {
        let ForCertificate { grant, cnf } = asked;
        self.book.ask(grant.leg.as_str());
        match self.relay.open_roq_leg(grant.clone(), cnf).await {
            Ok(binding) => {
                self.book.note_leg(LegShape::Roq(grant));
                json(&binding)
            }
            Err(e) => self.refuse(grant.leg.as_str(), e),
        }
    }

    async fn open_webrtc_leg(&self, asked: WithSdp<LegGrant>) -> Answered {
        let WithSdp { grant, sdp } = asked;
        self.book.ask(grant.leg.as_str());
        match self.relay.open_webrtc_leg(grant.clone(), sdp).await {
            Ok(answer) => {
                self.book.note_leg(LegShape::Webrtc(grant, answer.ice_session.clone()));
                json(&answer)
            }
            Err(e) => self.refuse(grant.leg.as_str(), e),
        }
    }

    async fn open_voices(&self, asked: WithSdp<VoicesGrant>) -> Answered {
        let WithSdp { grant, sdp } = asked;
        self.book.ask(grant.leg.as_str());
        match self.relay.open_voices(grant.clone(), sdp).await {
            Ok(answer) => {
                self.book.note_leg(LegShape::Voices(grant, answer.ice_session.clone()));
                json(&answer)
            }
            Err(e) => self.refuse(grant.leg.as_str(), e),
        }
    }

    async fn open_publication(&self, asked: WithSdp<PublicationGrant>) -> Answered {
        let WithSdp { grant, sdp } = asked;
        self.book.ask(grant.publication.as_str());
        match self.relay.open_publication(grant.clone(), sdp).await {
            Ok(answer) => {
                self.book.note_publication(grant, &answer);
                json(&answer)
            }
            Err(e) => self.refuse(grant.publication.as_str(), e),
        }
    }

    async fn patch_webrtc_leg(&self, asked: WithSdp<LegId>) -> Answered {
        let restarted = self.relay.patch_webrtc_leg(asked.grant.clone(), asked.sdp).await?;
        if let Some((_, session)) = &restarted {
            self.book.note_ice(&asked.grant, session);
        }
        json(&restarted)
    }

    async fn patch_publication(&self, asked: WithSdp<PublicationId>) -> Answered {
        let restarted = self.relay.patch_publication(asked.grant.clone(), asked.sdp).await?;
        if let Some((_, session)) = &restarted {
            self.book.note_publication_ice(&asked.grant, session);
        }
        json(&restarted)
    }

    fn refuse(&self, name: &str, e: AdmitError) -> Answered {
        self.book.refused(name);
        Err(e.into())
    }
}

/// `GET /v1/events`: one JSON object a line, the first with all that the relay has. Ends where the listener is too slow or
/// its certificate is taken back.
async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(asker) = request.extensions().get::<Asker>().cloned() else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let Some(lines) = shared.book.listen() else {
        let why = "as many event streams as are allowed are open";
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "listeners", "Too many listen", why).into_response();
    };
    let stream = futures_util::stream::unfold((lines, asker), |(mut lines, asker)| async move {
        let line = lines.recv().await?;
        asker.judge().ok()?;
        let mut text = serde_json::to_vec(&line).ok()?;
        text.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(text), (lines, asker)))
    });
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, ndjson)], Body::from_stream(stream)).into_response()
}

/// `GET /v1/metrics`: the relay's figures, Prometheus text.
async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.relay.snapshot().await {
        Some(figures) => {
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, text)], figures.render()).into_response()
        }
        None => Refusal::from(AdmitError::Unavailable).into_response(),
    }
}
