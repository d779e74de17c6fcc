//! What generator and native viewers share: joining a session over the API, and a QUIC connection to the relay.

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use trocar_control::trust::cert_hash;
use trocar_proto::session::api::{RoqBinding, TokenGrant};
use trocar_relay::quic::{self, Identity};

/// Somebody who has joined.
pub struct Participant {
    http: reqwest::Client,
    base: String,
    grant: TokenGrant,
}

/// The device's certificates, beside the trust list.
///
/// # Errors
/// Where a file cannot be read.
pub fn identity(ca: &Path) -> anyhow::Result<Identity> {
    let chain = |p: &Path| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_file_iter(p)?.collect::<Result<_, _>>()?)
    };
    Ok(Identity {
        chain: chain(&ca.with_file_name("device.pem"))?,
        key: PrivateKeyDer::from_pem_file(ca.with_file_name("device.key"))?,
        trust: chain(ca)?,
    })
}

impl Participant {
    /// Redeems an invitation, bound to the device's certificate where there is one.
    ///
    /// # Errors
    /// Where signaling refuses.
    pub async fn join(base: &str, invitation: &str, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let http = crate::http_client()?;
        let leaf = identity.and_then(|i| i.chain.first());
        let body = json!({ "invitation": invitation, "name": "Bench", "cnf": leaf.map(|l| cert_hash(l)) });
        let grant = http.post(format!("{base}v1/join")).json(&body).send().await?.error_for_status()?.json().await?;
        Ok(Self { http, base: base.to_owned(), grant })
    }

    /// Posts to a path of the session.
    ///
    /// # Errors
    /// Where signaling refuses, in its words.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        let url = format!("{}v1/sessions/{}/{path}", self.base, self.grant.session);
        let mut request = self.http.post(&url).bearer_auth(&self.grant.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status.is_success(), "{url}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))
    }

    /// Posts an SDP offer for a feed; the answer.
    ///
    /// # Errors
    /// Where signaling refuses, in its words.
    pub async fn whep(&self, feed: &str, offer: String) -> anyhow::Result<String> {
        self.offer(&format!("feeds/{feed}/whep"), offer).await
    }

    /// Posts an SDP offer to publish a feed of that rate in bits per second; the answer.
    ///
    /// # Errors
    /// Where signaling refuses, in its words.
    pub async fn whip(&self, feed: &str, bits: u64, offer: String) -> anyhow::Result<String> {
        self.offer(&format!("whip?feed={feed}&purpose=scope&max_bitrate={bits}"), offer).await
    }

    async fn offer(&self, path: &str, offer: String) -> anyhow::Result<String> {
        let url = format!("{}v1/sessions/{}/{path}", self.base, self.grant.session);
        let request = self.http.post(&url).bearer_auth(&self.grant.token).header("Content-Type", "application/sdp");
        let response = request.body(offer).send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status.is_success(), "{url}: {text}");
        Ok(text)
    }
}

/// Connects to where a binding says, from a socket of its own. The endpoint must live as long as the connection.
///
/// # Errors
/// Where the relay does not answer.
pub async fn connect(identity: Identity, to: &RoqBinding) -> anyhow::Result<(quinn::Endpoint, quinn::Connection)> {
    let remote = to.relay.to_socket_addrs()?.next().context("relay address")?;
    let socket = quic::bind_udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    let config = quinn::EndpointConfig::default();
    let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
    let connection = endpoint.connect_with(quic::client_config(identity)?, remote, &to.server_name)?.await?;
    Ok((endpoint, connection))
}
