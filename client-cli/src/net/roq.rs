//! The QUIC connection to the relay.

use super::path::PathSpec;
use anyhow::{Context, bail};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trocar_proto::session::api::RoqBinding;
use trocar_relay::quic::{self, Identity};

/// A handshake that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The local end of one path and what it needs to connect.
pub(crate) struct Dialer {
    path: PathSpec,
    name: String,
    /// Which of the relay's addresses is tried first: two paths begin at different ones.
    first: usize,
    config: quinn::ClientConfig,
    /// Bound when it is first used, and again where that failed: an interface may come later.
    endpoint: Mutex<Option<quinn::Endpoint>>,
}

impl Dialer {
    /// One dialer for each path, all with this identity.
    pub(crate) fn for_paths(identity: Identity, paths: &[PathSpec]) -> anyhow::Result<Vec<Arc<Self>>> {
        let config = quic::client_config(identity)?;
        let dialer = |(first, path): (usize, &PathSpec)| {
            let name = path.local.map_or_else(String::new, |l| l.to_string());
            Arc::new(Self { path: path.clone(), name, first, config: config.clone(), endpoint: Mutex::default() })
        };
        Ok(paths.iter().enumerate().map(dialer).collect())
    }

    /// Connects to where the binding says, or the path. The `attempt`s go through the relay's addresses.
    pub(crate) async fn connect(&self, to: &RoqBinding, attempt: usize) -> anyhow::Result<quinn::Connection> {
        let (remote, name) = self.remote(to, attempt)?;
        let endpoint = self.endpoint(remote.is_ipv6())?;
        let connecting = endpoint.connect_with(self.config.clone(), remote, name)?;
        let connection = match tokio::time::timeout(TIMEOUT, connecting).await {
            Ok(c) => c.with_context(|| self.describe(remote))?,
            Err(_) => bail!("{}: no answer within {} s", self.describe(remote), TIMEOUT.as_secs()),
        };
        connection.set_receive_window(trocar_relay::frames::receive_window(to.feed.max_bitrate.0, to.feed.budget_ms));
        Ok(connection)
    }

    /// How the path is called: its local address.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self, remote: SocketAddr) -> String {
        match self.path.local {
            Some(local) => format!("QUIC connection from {local} to {remote}"),
            None => format!("QUIC connection to {remote}"),
        }
    }

    /// The relay's address and TLS name: the path's own address, else one of those that signaling names, of the family of the
    /// local address. Another relay goes before other addresses of the first.
    fn remote<'a>(&self, to: &'a RoqBinding, attempt: usize) -> anyhow::Result<(SocketAddr, &'a str)> {
        if let Some(own) = &self.path.relay {
            return Ok((resolve(&own.to_string())?, &to.server_name));
        }
        let fits = |(a, _): &(SocketAddr, &str)| self.path.local.is_none_or(|l| l.is_ipv6() == a.is_ipv6());
        let mut all = Vec::new();
        let others = to.also.iter().map(|o| (&o.relay, o.server_name.as_str()));
        let alternates = to.relay_alternates.iter().map(|a| (a, to.server_name.as_str()));
        for (address, name) in std::iter::once((&to.relay, to.server_name.as_str())).chain(others).chain(alternates) {
            match resolve(address) {
                Ok(found) => all.push((found, name)),
                Err(error) if to.relay_alternates.is_empty() && to.also.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        let fitting: Vec<_> = all.iter().copied().filter(fits).collect();
        let chosen = self.first.wrapping_add(attempt).checked_rem(fitting.len()).and_then(|i| fitting.get(i)).copied();
        chosen.with_context(|| match self.path.local {
            Some(local) => format!("path {local}: the relay has no address of that family ({})", to.relay),
            None => format!("relay address {} leads nowhere", to.relay),
        })
    }

    fn endpoint(&self, v6: bool) -> anyhow::Result<quinn::Endpoint> {
        let mut bound = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*bound {
            return Ok(endpoint.clone());
        }
        let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = quic::bind_udp((self.path.local.unwrap_or(any), 0).into())?;
        let config = quinn::EndpointConfig::default();
        let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(bound.insert(endpoint).clone())
    }

    /// Waits until what was closed has been said to the other side.
    pub(crate) async fn finish(&self) {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(endpoint) = endpoint {
            let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
        }
    }
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut all = address.to_socket_addrs().with_context(|| format!("relay address {address}"))?;
    all.next().with_context(|| format!("relay address {address} leads nowhere"))
}
