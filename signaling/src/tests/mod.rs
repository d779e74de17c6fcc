//! Signaling driven as its clients drive it: requests through the router, event sockets through real connections. The
//! relay is a stand-in that remembers what it was asked.

mod audit;
mod auth;
mod consent;
mod consultation;
mod control;
mod feeds;
mod gate;
mod gate_chains;
mod ice;
mod link_tests;
mod openapi;
mod owners;
mod presence;
mod renewal;
mod repository;
mod requests;
mod retention;
mod serving;
mod sockets;
mod store;
mod traces;
mod webhooks;
mod whep;
mod whip;
mod wish;

use crate::admission::{Admission, Answer};
use crate::app::{App, Shown, wall_clock};
use crate::config::{Config, Limits, StoreAt, TlsIdentity};
use crate::routes::router;
use crate::store::Store;
use crate::token::generate_token_key;
use crate::webhooks::Hooks;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt as _;
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FeedOutline, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::api::TokenGrant;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Transport};
use trocar_proto::session::ids::{CertHash, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::FlowId;

/// The store of a configuration, as the server opens it.
pub(super) fn open_store(config: &Config) -> Result<(Store, crate::store::Stored), crate::store::StoreError> {
    let signer = config.audit_key_pkcs8.as_deref().map(|k| crate::audit::Signer::new(k).unwrap());
    Store::open(&config.store, wall_clock(), signer, crate::audit::Offset::default())
}

/// A database as it is, whatever of it is in a log beside it.
pub(super) fn copy_store(from: &std::path::Path, to: &std::path::Path) {
    let copied = rusqlite::Connection::open(from).unwrap().execute("VACUUM INTO ?1", [to.to_str().unwrap()]);
    copied.unwrap();
}

/// A relay that says yes, or what it is told to say.
#[derive(Default)]
pub(super) struct FakeRelay {
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) voices: Mutex<Vec<VoicesGrant>>,
    /// For whom feeds were opened.
    pub(super) publishers: Mutex<Vec<ParticipantId>>,
    pub(super) refusal: Mutex<Option<AdmitError>>,
    pub(super) silent: Mutex<bool>,
    /// Closing waits until the test says so by `may_close`; that it waits, `closes` says.
    pub(super) holds_close: Mutex<bool>,
    pub(super) closes: tokio::sync::Notify,
    pub(super) may_close: tokio::sync::Notify,
    pub(super) not_ready: Mutex<bool>,
}

impl FakeRelay {
    fn note<T: Send + 'static>(&self, what: String, value: T) -> Answer<'_, Result<T, AdmitError>> {
        self.asked.lock().unwrap().push(what);
        let refusal = self.refusal.lock().unwrap().clone();
        let silent = *self.silent.lock().unwrap();
        Box::pin(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            refusal.map_or(Ok(value), Err)
        })
    }

    fn close(&self, what: String) -> Answer<'_, ()> {
        self.asked.lock().unwrap().push(what);
        let holds = *self.holds_close.lock().unwrap();
        Box::pin(async move {
            if holds {
                self.closes.notify_one();
                self.may_close.notified().await;
            }
        })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn binding() -> FlowBinding {
        FlowBinding {
            relay: "127.0.0.1:4433".into(),
            also: Vec::new(),
            relay_alternates: vec!["10.1.0.1:4433".into()],
            server_name: "relay".into(),
            rtp_flow_id: FlowId(2),
            rtcp_flow_id: FlowId(3),
        }
    }
}

impl Admission for FakeRelay {
    fn open_feed(&self, grant: FeedGrant) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        self.publishers.lock().unwrap().push(grant.publisher);
        self.note(format!("open_feed {} {}", grant.key.feed, grant.realm), Self::binding())
    }

    fn close_feed<'a>(&'a self, feed: &'a FeedKey) -> Answer<'a, ()> {
        self.close(format!("close_feed {}", feed.feed))
    }

    fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        self.note(format!("open_roq_leg {} {cnf}", grant.feed.feed), Self::binding())
    }

    fn open_webrtc_leg(&self, grant: LegGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        let answer = WebrtcAnswer { sdp: format!("answer to {sdp_offer}"), ice_session: "ice-1".into() };
        let companion = grant.companion.map(|c| format!(" with {}", c.feed)).unwrap_or_default();
        self.note(format!("open_webrtc_leg {}{companion}", grant.feed.feed), answer)
    }

    fn patch_webrtc_leg<'a>(
        &'a self,
        _leg: &'a LegId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        let restarted = sdp_fragment.contains("restart").then(|| ("a=ice-ufrag:new\r\n".into(), "ice-2".into()));
        self.note("patch_webrtc_leg".into(), restarted)
    }

    fn open_publication(
        &self,
        grant: PublicationGrant,
        sdp_offer: String,
    ) -> Answer<'_, Result<PublicationAnswer, AdmitError>> {
        // As the relay does where it reads one layer less than signaling did.
        let fewer = usize::from(sdp_offer.contains("one layer less"));
        let pictures = grant.video.iter().chain(grant.layers.iter().rev().skip(fewer).rev());
        let outlines = pictures.map(|o| (MediaKind::Video, o)).chain(grant.audio.iter().map(|o| (MediaKind::Audio, o)));
        let names: Vec<String> = outlines.clone().map(|(_, o)| o.feed.to_string()).collect();
        let taken = outlines.filter(|_| !sdp_offer.contains("nothing that fits"));
        let answer = PublicationAnswer {
            sdp: format!("answer to {sdp_offer}"),
            ice_session: "ice-1".into(),
            feeds: taken.map(|(kind, o)| described(kind, o)).collect(),
        };
        self.note(format!("open_publication {}", names.join(" ")), answer)
    }

    fn patch_publication<'a>(
        &'a self,
        _publication: &'a PublicationId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        let restarted = sdp_fragment.contains("restart").then(|| ("a=ice-ufrag:new\r\n".into(), "ice-2".into()));
        self.note("patch_publication".into(), restarted)
    }

    fn close_publication<'a>(&'a self, publication: &'a PublicationId) -> Answer<'a, ()> {
        self.close(format!("close_publication {publication}"))
    }

    fn open_voices(&self, grant: VoicesGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        let answer = WebrtcAnswer { sdp: format!("answer to {sdp_offer}"), ice_session: "ice-1".into() };
        let said = format!("open_voices {}", grant.session);
        self.voices.lock().unwrap().push(grant);
        self.note(said, answer)
    }

    fn switch_leg<'a>(&'a self, leg: &'a LegId, feed: FeedKey) -> Answer<'a, Result<(), AdmitError>> {
        self.note(format!("switch_leg {leg} to {}", feed.feed), ())
    }

    fn close_leg<'a>(&'a self, leg: &'a LegId) -> Answer<'a, ()> {
        self.close(format!("close_leg {leg}"))
    }

    fn metrics_text(&self) -> String {
        "# TYPE relay_feeds gauge\nrelay_feeds 7\n# EOF\n".into()
    }

    fn ready(&self) -> bool {
        !*self.not_ready.lock().unwrap()
    }
}

/// A feed as the relay describes what a WHIP client offered.
fn described(kind: MediaKind, outline: &FeedOutline) -> FeedDescriptor {
    let mut descriptor: FeedDescriptor = serde_json::from_value(descriptor(outline.feed.as_str())).unwrap();
    descriptor.kind = kind;
    descriptor.source.clone_from(&outline.source);
    descriptor.view.clone_from(&outline.view);
    descriptor.purpose = outline.purpose;
    descriptor.max_bitrate = outline.max_bitrate;
    descriptor.budget_ms = outline.budget_ms;
    descriptor.replay = outline.replay;
    descriptor.transport = Transport::Webrtc;
    descriptor
}

/// A configuration for one machine, with room for many quick requests.
pub(super) fn config() -> Config {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        loopback_http: Some("127.0.0.1:0".parse().unwrap()),
        admin_listen: None,
        tls: TlsIdentity {
            cert_chain_pem: certified.cert.pem().into_bytes(),
            key_pem: certified.signing_key.serialize_pem().into_bytes(),
        },
        token_key_pkcs8: generate_token_key().unwrap(),
        audit_key_pkcs8: Some(generate_token_key().unwrap()),
        audit_export: None,
        audit_retention: crate::audit::Retention::default(),
        consent_trust: None,
        device_trust: None,
        configured: "test".to_owned(),
        issuer: "signaling-1".into(),
        audiences: vec!["relay-1".into(), "gate-1".into()],
        public_url: None,
        origins: vec!["https://console.example".into()],
        realm: RealmId::new("north").unwrap(),
        realms: Vec::new(),
        realm_policies: Vec::new(),
        store: StoreAt::Memory,
        metrics_open: false,
        tls12: false,
        ice: crate::Ice::default(),
        webhooks: Vec::new(),
        control: None,
        traces: None,
        link_tests: None,
        identity: crate::IdentityConfig::default(),
        limits: Limits { grace: Duration::from_millis(200), ..Limits::default() },
    }
}

/// The application without listeners.
pub(super) struct World {
    pub(super) app: Arc<App>,
    pub(super) relay: Arc<FakeRelay>,
    pub(super) session: SessionId,
    router: Router,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The answer is this problem, and names this field.
    #[track_caller]
    pub(super) fn assert_problem(&self, status: u16, name: &str, field: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:trocar:problem:{name}"), "{json}");
        assert_eq!(json["status"], status);
        assert_eq!(json["field"], field, "{json}");
        assert!(json["title"].as_str().is_some_and(|t| !t.is_empty()));
        assert!(json["detail"].as_str().is_some_and(|t| !t.is_empty()), "{json}");
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(super) async fn with(config: Config) -> Self {
        let relay = Arc::new(FakeRelay::default());
        let store = open_store(&config).unwrap();
        let notary = config.consent_trust.as_deref().map(|d| crate::consent::Notary::open(d).unwrap());
        let known_by = config.public_url.clone().unwrap_or_else(|| "https://trocar.example".to_owned());
        let names = (known_by, config.origins.clone());
        let app = Arc::new(App::new(&config, relay.clone(), store, names, (Hooks::default(), notary)).unwrap());
        let session = app.create_session("Cholecystectomy, theatre 2").await.unwrap();
        let router = router(app.clone(), true);
        Self { app, relay, session, router }
    }

    /// Somebody in that role, with a certificate.
    pub(super) async fn join(&self, role: Role) -> TokenGrant {
        self.join_with(role, Some(CertHash([7; 32]))).await
    }

    pub(super) async fn join_with(&self, role: Role, cnf: Option<CertHash>) -> TokenGrant {
        let invitation = self.app.invite(&self.session, role, 3600, None).await.unwrap();
        self.app.join(&invitation.invitation, Shown::default(), cnf).await.unwrap()
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v1/sessions/{}{rest}", self.session)
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
    }

    /// Sends a request with a token and headers.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Reply {
        self.ask(Method::GET, path, Some(token), &[], "").await
    }

    pub(super) async fn delete(&self, path: &str, token: &str) -> Reply {
        self.ask(Method::DELETE, path, Some(token), &[], "").await
    }

    pub(super) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        self.post_text(path, token, body.to_string()).await
    }

    pub(super) async fn post_text(&self, path: &str, token: Option<&str>, body: String) -> Reply {
        self.ask(Method::POST, path, token, &[("Content-Type", "application/json")], body).await
    }

    /// Publishes a feed of that name.
    pub(super) async fn publish(&self, token: &str, feed: &str) -> Reply {
        self.post(&self.path("/feeds"), Some(token), &descriptor(feed)).await
    }
}

/// A descriptor that passes.
pub(super) fn descriptor(feed: &str) -> Value {
    json!({
        "feed": feed, "source": "tower-1", "view": "overview", "kind": "video", "purpose": "scope", "codec": "H264",
        "fmtp": "packetization-mode=1", "clock_rate": 90000, "payload_type": 96, "width": 3840, "height": 2160,
        "fps": 60.0, "max_bitrate": 40_000_000, "budget_ms": 100, "header_extensions": {"urn:x": 1},
        "transport": {"roq": {"mode": "datagram"}}
    })
}
