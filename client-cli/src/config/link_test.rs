//! `[link_test]` of the configuration: answering measurements of the line to this node.

use anyhow::bail;
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use trocar_link::measure::PORT;

/// Answering `trocar link test`. Off unless it is asked for: a measurement fills the line of a node that may carry an operation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LinkTest {
    /// Whether measurements are answered.
    pub(crate) enabled: bool,
    /// Address, UDP and TCP; QUIC and a second UDP port take the next two. Port 0 takes free ones.
    pub(crate) listen: SocketAddr,
    /// Highest rate that is sent or taken, such as "200M".
    #[serde(deserialize_with = "rate")]
    pub(crate) max_rate: f64,
    /// Longest measurement in seconds, 10 to 900.
    pub(crate) max_seconds: u64,
    /// Whether one may run while an expert operates.
    pub(crate) while_operating: bool,
}

impl Default for LinkTest {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
            max_rate: 200.0,
            max_seconds: 120,
            while_operating: false,
        }
    }
}

impl LinkTest {
    /// What the types do not say. `has_relay` is whether the relay is in this process, `advertise` where clients reach it.
    pub(super) fn check(&self, has_relay: bool, advertise: &[IpAddr]) -> anyhow::Result<()> {
        if !(10..=900).contains(&self.max_seconds) {
            bail!("link_test.max_seconds = {}: 10 to 900 is right", self.max_seconds);
        }
        if self.enabled && !has_relay {
            bail!(
                "link_test.enabled: the relays run apart from this process; `trocar link serve --key-file` beside each of them is right"
            );
        }
        if self.enabled && advertise.is_empty() && self.listen.ip().is_unspecified() {
            bail!(
                "link_test.listen = {}: relay.advertise has to name the addresses that clients reach it at",
                self.listen
            );
        }
        Ok(())
    }
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    trocar_link::rate::mbit_s(&text).map_err(serde::de::Error::custom)
}
