//! The server as a whole: listeners, TLS, connection limits, configuration that is refused.

use super::*;
use crate::{ConfigError, Server, ServerHandle, StartError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::ids::FeedId;

/// A server on loopback ports, with a session.
pub(super) struct Running {
    pub(super) handle: ServerHandle,
    pub(super) relay: Arc<FakeRelay>,
    pub(super) session: SessionId,
    relay_events: mpsc::Sender<RelayEvent>,
    certificate: Vec<u8>,
}

impl Running {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Self::serve(config, None).await
    }

    /// With that way to gates.
    pub(super) async fn with_gates(dialer: Arc<dyn crate::control::Dialer>) -> Self {
        Self::serve(config(), Some(dialer)).await
    }

    async fn serve(config: Config, dialer: Option<Arc<dyn crate::control::Dialer>>) -> Self {
        let relay = Arc::new(FakeRelay::default());
        let (relay_events, events) = mpsc::channel(64);
        let certificate = config.tls.cert_chain_pem.clone();
        let handle = match dialer {
            None => Server::start(config, relay.clone(), events).await,
            some => Server::start_with(config, relay.clone(), events, some).await,
        };
        let handle = handle.unwrap();
        let session = handle.create_session("Cholecystectomy", None).await.unwrap();
        Self { handle, relay, session, relay_events, certificate }
    }

    pub(super) async fn join(&self, role: Role) -> TokenGrant {
        let invitation = self.handle.invite(&self.session, role, Duration::from_secs(3600)).await.unwrap();
        self.redeem(&invitation.invitation).await
    }

    pub(super) async fn redeem(&self, invitation: &str) -> TokenGrant {
        self.redeem_with(invitation, &"07".repeat(32)).await
    }

    /// With a token that is bound to that certificate.
    pub(super) async fn redeem_with(&self, invitation: &str, cnf: &str) -> TokenGrant {
        let body = json!({"invitation": invitation, "cnf": cnf});
        let (status, text) = self.post("/v1/join", "", &body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(super) async fn publish(&self, grant: &TokenGrant, feed: &str) {
        let path = format!("/v1/sessions/{}/feeds", self.session);
        let (status, text) = self.post(&path, &grant.token, &descriptor(feed)).await;
        assert_eq!(status, 201, "{text}");
    }

    pub(super) async fn open_leg(&self, grant: &TokenGrant, feed: &str) -> LegId {
        let path = format!("/v1/sessions/{}/feeds/{feed}/legs", self.session);
        let (status, text) = self.post(&path, &grant.token, &json!({})).await;
        assert_eq!(status, 201, "{text}");
        let binding: Value = serde_json::from_str(&text).unwrap();
        LegId::new(binding["leg"].as_str().unwrap()).unwrap()
    }

    pub(super) fn key(&self, feed: &str) -> FeedKey {
        FeedKey { session: self.session.clone(), feed: FeedId::new(feed).unwrap() }
    }

    pub(super) async fn relay_says(&self, event: RelayEvent) {
        self.relay_events.send(event).await.unwrap();
    }

    /// The value of one figure, named with all of its labels and the space after them.
    pub(super) async fn figure(&self, name: &str) -> String {
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let text = talk(self.handle.http_addr().unwrap(), request).await;
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
    }

    /// One request over the loopback listener, on a connection of its own: status and body.
    async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let text = talk(self.handle.http_addr().unwrap(), request.as_bytes()).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0), body.to_owned())
    }

    /// A TLS client that trusts the server's certificate and nothing else.
    fn connector(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// Sends bytes and reads until the other side closes.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("the server did not close");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn an_event_socket_opens_over_tls() {
    let world = Running::new().await;
    let grant = world.join(Role::Expert).await;
    let addr = world.handle.https_addr();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = world.connector(&[&rustls::version::TLS13]).connect(name, stream).await.unwrap();
    let url = format!("wss://localhost:{}/v1/sessions/{}/events", addr.port(), world.session);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", axum::http::HeaderValue::from_static("trocar.v1"));
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    use futures_util::{SinkExt as _, StreamExt as _};
    let hello = json!({"type": "hello", "token": grant.token}).to_string();
    socket.send(tokio_tungstenite::tungstenite::Message::Text(hello.into())).await.unwrap();
    let welcome = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(welcome.contains("\"welcome\""));
}

#[tokio::test]
async fn older_tls_is_refused() {
    let world = Running::new().await;
    let stream = TcpStream::connect(world.handle.https_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    assert!(world.connector(&[&rustls::version::TLS12]).connect(name, stream).await.is_err());
}

#[tokio::test]
async fn tls_1_2_is_spoken_where_it_is_asked_for_and_1_3_still() {
    let world = Running::with(|c| c.tls12 = true).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = TcpStream::connect(world.handle.https_addr()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = world.connector(&[version]).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn slow_and_silent_clients_are_closed() {
    let world = Running::with(|c| c.limits.header_timeout = Duration::from_millis(200)).await;
    for addr in [world.handle.http_addr().unwrap(), world.handle.https_addr()] {
        for start in ["", "GET / HT"] {
            let text = talk(addr, start.as_bytes()).await;
            assert!(!text.contains("200 OK"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_huge_header_is_refused() {
    let world = Running::new().await;
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
    let mut stream = TcpStream::connect(world.handle.http_addr().unwrap()).await.unwrap();
    let _ = stream.write_all(&request.as_bytes()[..40_000]).await;
    let mut answer = [0; 64];
    let n = timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer[..n]));
}

#[tokio::test]
async fn connections_are_bounded_per_peer_and_given_back() {
    let world = Running::with(|c| c.limits.connections_loopback = 2).await;
    let addr = world.handle.http_addr().unwrap();
    let get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let open = async || {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut answer = [0; 12];
        let served = stream.write_all(get).await.is_ok() && stream.read_exact(&mut answer).await.is_ok();
        (stream, served)
    };
    let (one, served_one) = open().await;
    let (_two, served_two) = open().await;
    assert!(served_one && served_two);
    assert!(!open().await.1, "a third connection was served");
    drop(one);
    timeout(Duration::from_secs(5), async { while !open().await.1 {} }).await.expect("the place was not given back");
}

#[tokio::test]
async fn figures_are_shown_to_the_same_machine() {
    let world = Running::new().await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text = talk(world.handle.http_addr().unwrap(), request).await;
    assert!(text.contains("trocar_signaling_connections 1") && text.contains("relay_feeds 7"), "{text}");
}

#[tokio::test]
async fn links_lead_to_where_the_page_is() {
    let world = Running::new().await;
    let invitation = world.handle.invite(&world.session, Role::Expert, Duration::from_secs(60)).await.unwrap();
    let base = format!("http://{}", world.handle.http_addr().unwrap());
    assert_eq!(world.handle.public_url(), base);
    assert_eq!(invitation.link, format!("{base}/#invitation={}", invitation.invitation));
    let world = Running::with(|c| c.public_url = Some("https://trocar.example/".into())).await;
    assert_eq!(world.handle.public_url(), "https://trocar.example");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let start = async |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        let (_, events) = mpsc::channel(1);
        Server::start(config, Arc::new(FakeRelay::default()), events).await.err().expect("it started")
    };
    let field = |e: StartError| match e {
        StartError::Config(ConfigError { field, .. }) => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(start(|c| c.loopback_http = Some("0.0.0.0:0".parse().unwrap())).await), "loopback_http");
    assert_eq!(field(start(|c| c.issuer = String::new()).await), "issuer");
    assert_eq!(field(start(|c| c.public_url = Some("trocar.example".into())).await), "public_url");
    assert_eq!(field(start(|c| c.origins = vec!["https://x.example/page".into()]).await), "origins");
    assert!(matches!(start(|c| c.token_key_pkcs8 = vec![1]).await, StartError::TokenKey(_)));
    assert!(matches!(start(|c| c.tls.cert_chain_pem = vec![]).await, StartError::Tls(_)));
    assert!(matches!(start(|c| c.tls.key_pem = b"x".to_vec()).await, StartError::Tls(_)));
}

#[tokio::test]
async fn bodies_that_drip_are_bounded_too() {
    let world = Running::with(|c| c.limits.body_timeout = Duration::from_millis(100)).await;
    let request =
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let text = talk(world.handle.http_addr().unwrap(), request).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let world = Running::with(|c| {
        c.limits.write_stall = Duration::from_millis(200);
        // Far away, so that it is not this one that ends the connection.
        c.limits.header_timeout = Duration::from_secs(60);
    })
    .await;
    let (mut reader, mut writer) = TcpStream::connect(world.handle.http_addr().unwrap()).await.unwrap().into_split();
    let asking = tokio::spawn(async move {
        for _ in 0..10_000 {
            if writer.write_all(b"GET /app.js HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(5), reader.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection was still open");
    asking.abort();
}
