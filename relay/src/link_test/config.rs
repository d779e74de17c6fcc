//! `[link_test]` of a configuration, of `trocar up` and of a relay that runs apart: answering measurements of the line.

use anyhow::bail;
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use trocar_link::measure::PORT;

/// Answering `trocar link test`. Off unless it is asked for: a measurement fills the line of a relay that may carry an operation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkTest {
    /// Whether measurements are answered.
    pub enabled: bool,
    /// Address, UDP and TCP; QUIC and a second UDP port take the next two. Port 0 takes free ones.
    pub listen: SocketAddr,
    /// Highest rate that is sent or taken, such as "200M".
    #[serde(deserialize_with = "rate")]
    pub max_rate: f64,
    /// Longest measurement in seconds, 10 to 900.
    pub max_seconds: u64,
    /// Whether one may run while an expert operates.
    pub while_operating: bool,
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
    /// What the types do not say. `named` is the key that has the addresses that clients reach the relay at, and whether it has any.
    ///
    /// # Errors
    /// Names the key and says what would be right.
    pub fn check(&self, (named, is_given): (&str, bool)) -> anyhow::Result<()> {
        if !(10..=900).contains(&self.max_seconds) {
            bail!("link_test.max_seconds = {}: 10 to 900 is right", self.max_seconds);
        }
        if self.enabled && !is_given && self.listen.ip().is_unspecified() {
            bail!("link_test.listen = {}: {named} has to name the addresses that clients reach it at", self.listen);
        }
        Ok(())
    }
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    trocar_link::rate::mbit_s(&text).map_err(serde::de::Error::custom)
}
