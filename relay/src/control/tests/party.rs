//! A raw client, and certificates for it.

use super::super::frame;
use super::SOON;
use crate::quic::{Identity, SteadyWindow};
use quinn::crypto::rustls::QuicClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::timeout;
use trocar_control::trust::cert_hash;
use trocar_proto::control::{ALPN, FromRelay, Index, PartyKind, ToRelay};
use trocar_proto::session::ids::{CertHash, SessionId};
use trocar_testpki::{Authority, Leaf};

/// An authority of realm `north`.
pub(super) struct Pki {
    ca: Authority,
}

impl Pki {
    pub(super) fn new() -> Self {
        Self { ca: Authority::new() }
    }

    pub(super) fn identity(&self, role: &str, name: &str) -> Identity {
        self.named(&format!("trocar://north/{role}/{name}"))
    }

    pub(super) fn named(&self, uri: &str) -> Identity {
        let own = self.ca.issue(&Leaf::device(uri).at("localhost"));
        Identity { key: own.key(), chain: vec![own.der], trust: vec![self.ca.der()] }
    }
}

pub(super) fn copy(identity: &Identity) -> Identity {
    Identity { chain: identity.chain.clone(), key: identity.key.clone_key(), trust: identity.trust.clone() }
}

/// A connection, and its rendezvous stream once there is one.
pub(super) struct Raw {
    pub(super) connection: quinn::Connection,
    pub(super) hash: CertHash,
    pub(super) stream: Option<(quinn::SendStream, quinn::RecvStream)>,
    index: Option<Index>,
    _endpoint: quinn::Endpoint,
}

impl Raw {
    pub(super) async fn dial(relay: SocketAddr, identity: Identity) -> Self {
        Self::try_dial(relay, identity).await.unwrap()
    }

    pub(super) async fn try_dial(relay: SocketAddr, identity: Identity) -> Result<Self, quinn::ConnectionError> {
        let hash = cert_hash(&identity.chain[0]);
        let mut roots = rustls::RootCertStore::empty();
        identity.trust.iter().for_each(|c| roots.add(c.clone()).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain, identity.key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.congestion_controller_factory(Arc::new(SteadyWindow)).stream_receive_window(65_536_u32.into());
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = timeout(SOON, endpoint.connect_with(config, relay, "localhost").unwrap()).await.unwrap()?;
        Ok(Self { connection, hash, stream: None, index: None, _endpoint: endpoint })
    }

    /// The token that the tests' check takes from this certificate.
    pub(super) fn token(&self, session: &str) -> Option<String> {
        Some(format!("token:{session}:{}", self.hash))
    }

    pub(super) fn index(&self) -> Index {
        self.index.unwrap()
    }

    /// Says CONNECT and is taken.
    pub(super) async fn join(&mut self, session: &str, kind: PartyKind) {
        let token = if kind == PartyKind::Station { self.token(session) } else { None };
        self.say_connect(session, kind, token).await;
        match self.heard().await {
            FromRelay::Connected { index } => self.index = Some(index),
            other => panic!("{other:?}"),
        }
    }

    /// Says CONNECT and is not taken; why. The connection is closed with the same words.
    pub(super) async fn refused(&mut self, session: &str, kind: PartyKind, token: Option<String>) -> String {
        self.say_connect(session, kind, token).await;
        let told = match self.heard().await {
            FromRelay::Refused { reason } => reason,
            other => panic!("{other:?}"),
        };
        // Only now is the stream let go, so that the words had to come before the end.
        assert_eq!(self.closed().await, told);
        told
    }

    async fn say_connect(&mut self, session: &str, kind: PartyKind, token: Option<String>) {
        let stream = self.connection.open_bi().await.unwrap();
        self.stream = Some(stream);
        self.say(&ToRelay::Connect { session: SessionId::new(session).unwrap(), kind, token }).await;
    }

    pub(super) async fn say(&mut self, message: &ToRelay) {
        frame::write(&mut self.stream.as_mut().unwrap().0, message).await.unwrap();
    }

    pub(super) async fn say_bytes(&mut self, bytes: &[u8]) {
        if self.stream.is_none() {
            self.stream = Some(self.connection.open_bi().await.unwrap());
        }
        self.stream.as_mut().unwrap().0.write_all(bytes).await.unwrap();
    }

    /// The next frame that is no probe.
    pub(super) async fn heard(&mut self) -> FromRelay {
        loop {
            let next = self.heard_any().await;
            if !matches!(next, FromRelay::Probe { .. }) {
                return next;
            }
        }
    }

    pub(super) async fn heard_any(&mut self) -> FromRelay {
        let stream = &mut self.stream.as_mut().unwrap().1;
        timeout(SOON, frame::read(stream)).await.expect("a frame came").unwrap()
    }

    /// Waits until the relay closes the connection; why.
    pub(super) async fn closed(&self) -> String {
        match timeout(SOON, self.connection.closed()).await.expect("it is closed") {
            quinn::ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
            other => panic!("{other}"),
        }
    }
}
