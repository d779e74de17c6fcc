//! What a QUIC listener offers, as quinn finds out, to which one suite or one group is given at a time. QUIC has no TLS before 1.3 (RFC 9001
//! section 4.2), so no client can ask for that.

use anyhow::{Context as _, bail};
use quinn::ConnectionError;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use trocar_control::trust::Identity;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) suites: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) protocols: Vec<&'static str>,
    /// Whether a second connection of the same client may send data early.
    pub(super) early_data: bool,
    /// Whether nobody gets in without a certificate.
    pub(super) wants_certificate: bool,
    /// Certificates that it shows; they are good by the authority.
    pub(super) chain: usize,
}

const PROTOCOLS: [&str; 5] = ["roq-14", "trocar-control/1", "trocar-handover/1", "h3", "a protocol that nobody has"];
/// QUIC's code of an alert of TLS (RFC 9001 section 4.8).
const ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Who asks, whom.
pub(super) struct Listener<'a> {
    pub(super) name: &'static str,
    pub(super) at: SocketAddr,
    pub(super) protocol: &'static str,
    pub(super) authority: CertificateDer<'static>,
    pub(super) me: &'a Identity,
}

impl Listener<'_> {
    /// Tries all of it.
    pub(super) async fn scan(&self) -> anyhow::Result<Offer> {
        let all = aws_lc_rs::default_provider();
        let mut offer = Offer {
            suites: Vec::new(),
            groups: Vec::new(),
            protocols: Vec::new(),
            early_data: false,
            wants_certificate: false,
            chain: 0,
        };
        for suite in aws_lc_rs::ALL_CIPHER_SUITES.iter().filter(|s| s.tls13().is_some()) {
            let provider = CryptoProvider { cipher_suites: vec![*suite], ..all.clone() };
            if self.connects(self.config(provider, self.protocol, true)?).await? {
                offer.suites.push(format!("{:?}", suite.suite()));
            }
        }
        for group in aws_lc_rs::ALL_KX_GROUPS {
            let provider = CryptoProvider { kx_groups: vec![*group], ..all.clone() };
            if self.connects(self.config(provider, self.protocol, true)?).await? {
                offer.groups.push(format!("{:?}", group.name()));
            }
        }
        for protocol in PROTOCOLS {
            if self.connects(self.config(all.clone(), protocol, true)?).await? {
                offer.protocols.push(protocol);
            }
        }
        offer.wants_certificate = !self.connects(self.config(all.clone(), self.protocol, false)?).await?;
        (offer.chain, offer.early_data) = self.twice(self.config(all, self.protocol, true)?).await?;
        Ok(offer)
    }

    fn config(&self, provider: CryptoProvider, protocol: &str, shows: bool) -> anyhow::Result<quinn::ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = if shows {
            config.with_client_auth_cert(self.me.chain.clone(), self.me.key.clone_key())?
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.enable_early_data = true;
        // Packets before the keys are there are always protected by this one.
        let initial = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().and_then(|s| s.quic_suite());
        let config = QuicClientConfig::with_initial(Arc::new(config), initial.context("no suite for QUIC")?)?;
        Ok(quinn::ClientConfig::new(Arc::new(config)))
    }

    /// Whether the listener lets somebody in.
    async fn connects(&self, config: quinn::ClientConfig) -> anyhow::Result<bool> {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        let connected = async {
            let connection = endpoint.connect_with(config, self.at, "localhost")?.await?;
            settled(&connection).await?;
            connection.close(0_u32.into(), &[]);
            anyhow::Ok(())
        };
        let Err(error) = connected.await else { return Ok(true) };
        match error.downcast_ref::<ConnectionError>() {
            Some(ConnectionError::ConnectionClosed(c)) if ALERTS.contains(&u64::from(c.error_code)) => Ok(false),
            _ => bail!(error.context(format!("{} neither lets in nor refuses", self.name))),
        }
    }

    /// Connects twice: the certificates of the first, and whether the second could send data early.
    async fn twice(&self, config: quinn::ClientConfig) -> anyhow::Result<(usize, bool)> {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        endpoint.set_default_client_config(config);
        let first = endpoint.connect(self.at, "localhost")?.await?;
        let chain = first.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        settled(&first).await?;
        first.close(0_u32.into(), &[]);
        let early = match endpoint.connect(self.at, "localhost")?.into_0rtt() {
            Ok((second, accepted)) => {
                let accepted = accepted.await;
                second.close(0_u32.into(), &[]);
                accepted
            }
            Err(connecting) => {
                connecting.await?.close(0_u32.into(), &[]);
                false
            }
        };
        Ok((chain.context("no certificates")?.len(), early))
    }
}

/// Returns when the listener has taken the handshake as complete (`HANDSHAKE_DONE`), a certificate with it, or has refused it.
async fn settled(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    while connection.stats().frame_rx.handshake_done == 0 {
        // quinn tells nobody of that frame; it is looked for, and a refusal is waited for meanwhile.
        if let Ok(refused) = tokio::time::timeout(Duration::from_millis(2), connection.closed()).await {
            return Err(refused);
        }
    }
    Ok(())
}

/// A listener that takes one suite and early data and asks for no certificate, for as long as this lives.
pub(super) struct Careless {
    pub(super) at: SocketAddr,
    endpoint: quinn::Endpoint,
}

impl Careless {
    /// Starts one with this certificate. To be called on a runtime.
    pub(super) fn start(me: &Identity) -> anyhow::Result<Self> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|s| s.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        provider.kx_groups.retain(|g| g.name() == rustls::NamedGroup::secp384r1);
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(me.chain.clone(), me.key.clone_key())?;
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.max_early_data_size = u32::MAX;
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse()?)?;
        let (at, coming) = (endpoint.local_addr()?, endpoint.clone());
        tokio::spawn(async move {
            while let Some(incoming) = coming.accept().await {
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        connection.closed().await;
                    }
                });
            }
        });
        Ok(Self { at, endpoint })
    }
}

impl Drop for Careless {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), &[]);
    }
}
