//! A door for QUIC beside the responder, so that it can be tried whether QUIC gets through. Its certificate comes in the acceptance.

use crate::measure::message::QuicDoor;
use anyhow::Context as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::time::Duration;

/// The name in the certificate.
pub const NAME: &str = "trocar-link";
/// A connection that lasts longer is closed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time. Loss policy: one more is refused.
const CONNECTIONS_MAX: usize = 16;

/// Opens the door at this address or, where that is taken, beside it; to be called on a runtime.
///
/// # Errors
/// Where there is no port, or no certificate can be made.
pub fn open(at: SocketAddr) -> anyhow::Result<(quinn::Endpoint, QuicDoor)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("certificate for QUIC")?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key)?;
    let any = SocketAddr::new(at.ip(), 0);
    let endpoint = quinn::Endpoint::server(config.clone(), at).or_else(|_| quinn::Endpoint::server(config, any))?;
    let port = endpoint.local_addr()?.port();
    Ok((endpoint, QuicDoor { port, certificate: hex::encode(certificate) }))
}

/// Takes connections until the endpoint closes. Nobody gets more than came from there before it has shown a token (RFC 9000 section
/// 8.1.2), and nothing is said over a connection.
pub async fn serve(endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // It could be retried, or it is gone: either is well.
            let _ = incoming.retry();
        } else if endpoint.open_connections() > CONNECTIONS_MAX {
            incoming.refuse();
        } else if let Ok(connecting) = incoming.accept() {
            tokio::spawn(async move {
                if let Ok(connection) = connecting.await {
                    let _ = tokio::time::timeout(TIMEOUT, connection.closed()).await;
                }
            });
        }
    }
}
