//! The QUIC connection to the relay.

use anyhow::{Context, bail};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;
use trocar_proto::session::api::RoqBinding;
use trocar_relay::quic::{self, Identity};

/// A handshake that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A local endpoint and what it needs to connect.
pub(crate) struct Dialer {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Dialer {
    /// Binds a socket and reads the identity into TLS.
    pub(crate) fn new(identity: Identity, towards: &RoqBinding) -> anyhow::Result<Self> {
        let remote = resolve(&towards.relay)?;
        let any: SocketAddr = if remote.is_ipv6() { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
        let socket = quic::bind_udp(any)?;
        let config = quinn::EndpointConfig::default();
        let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(Self { endpoint, config: quic::client_config(identity)? })
    }

    /// Connects to where the binding says.
    pub(crate) async fn connect(&self, to: &RoqBinding) -> anyhow::Result<quinn::Connection> {
        let remote = resolve(&to.relay)?;
        let connecting = self.endpoint.connect_with(self.config.clone(), remote, &to.server_name)?;
        match tokio::time::timeout(TIMEOUT, connecting).await {
            Ok(c) => c.with_context(|| format!("QUIC connection to {remote}")),
            Err(_) => bail!("QUIC connection to {remote}: no answer within {} s", TIMEOUT.as_secs()),
        }
    }

    /// Waits until what was closed has been said to the other side.
    pub(crate) async fn finish(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut all = address.to_socket_addrs().with_context(|| format!("relay address {address}"))?;
    all.next().with_context(|| format!("relay address {address} leads nowhere"))
}
