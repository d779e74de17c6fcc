//! The configuration file of a relay that runs apart: TOML, typed, and a key that nobody knows is refused by name.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use trocar_proto::session::ids::RealmId;
use trocar_relay::link_test::LinkTest;

/// One relay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Certificate chain, PEM; the leaf's name is `trocar://REALM/relay/NAME`, and NAME is the relay's name.
    pub(crate) cert: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// Authorities that signed signaling, other relays, publishers and viewers; a `crl.pem` beside it counts.
    pub(crate) trust: PathBuf,
    /// Where signaling asks.
    pub(crate) admission: Admission,
    /// One for each realm that is served.
    pub(crate) listener: Vec<Listener>,
    /// Where gates and experts' stations meet; none where another relay has that.
    pub(crate) control: Option<Control>,
    /// Answering measurements of the line to this relay.
    #[serde(default)]
    pub(crate) link_test: LinkTest,
    /// Bounds.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Figures for Prometheus.
    #[serde(default)]
    pub(crate) metrics: Metrics,
    /// What is said about running.
    #[serde(default)]
    pub(crate) log: Log,
}

/// Where signaling asks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admission {
    /// TCP address; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
}

/// A realm's sockets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// The realm.
    pub(crate) realm: RealmId,
    /// UDP and TCP address for WebRTC; port 0 takes a free one.
    pub(crate) webrtc: SocketAddr,
    /// UDP address for QUIC; port 0 takes a free one.
    pub(crate) quic: SocketAddr,
    /// Addresses that clients of this realm reach it at; needed where a listener is on a wildcard address.
    #[serde(default)]
    pub(crate) advertise: Vec<IpAddr>,
    /// A name or address of the certificate, which native clients check; the first address that clients reach it at where
    /// left out.
    pub(crate) server_name: Option<String>,
    /// What the line towards this realm's viewers takes, such as "150M": legs that do not fit are refused.
    pub(crate) uplink: Option<trocar_relay::uplink::UplinkRate>,
}

impl Listener {
    /// What native clients check.
    pub(crate) fn server_name(&self) -> String {
        let address = self.advertise.first().copied().unwrap_or(self.quic.ip());
        self.server_name.clone().unwrap_or_else(|| address.to_string())
    }
}

/// The control rendezvous.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    /// UDP address; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Who signs stations' tokens, `iss`.
    pub(crate) issuer: String,
    /// The issuer's public key: PEM, or `token-key.pub` as `trocar up` writes it.
    pub(crate) issuer_key: PathBuf,
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Media workers; none takes what fits the machine.
    pub(crate) workers: Option<usize>,
    /// CPU that the first worker is pinned to.
    pub(crate) pin: Option<usize>,
    /// Feeds at most.
    pub(crate) max_feeds: usize,
    /// Legs at most.
    pub(crate) max_legs: usize,
    /// QUIC connections at most.
    pub(crate) max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let l = trocar_relay::worker::Limits::default();
        let (max_feeds, max_legs, max_connections) = (l.max_feeds, l.max_legs, l.max_connections);
        Self { workers: None, pin: None, max_feeds, max_legs, max_connections }
    }
}

/// Figures for Prometheus, plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// TCP address of `/metrics` and `/healthz`; not served where left out. Signaling has the figures too.
    pub(crate) listen: Option<SocketAddr>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// Filter as in `RUST_LOG`, which goes before it.
    pub(crate) filter: String,
    /// JSON lines instead of text.
    pub(crate) json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}

impl Config {
    /// Reads and checks a file. Paths in it count from its folder.
    ///
    /// # Errors
    /// Names the file, and the line and key at fault.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for file in [&mut config.cert, &mut config.key, &mut config.trust]
            .into_iter()
            .chain(config.control.as_mut().map(|c| &mut c.issuer_key))
        {
            *file = folder.join(&file);
        }
        Ok(config)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// What the types do not say.
    fn check(&self) -> anyhow::Result<()> {
        if self.listener.is_empty() {
            bail!("listener is missing: one [[listener]] for each realm is right");
        }
        for (i, l) in self.listener.iter().enumerate() {
            if self.listener.iter().skip(i + 1).any(|other| other.realm == l.realm) {
                bail!("listener.realm = {}: a realm has one listener", l.realm);
            }
            if l.advertise.is_empty() && (l.webrtc.ip().is_unspecified() || l.quic.ip().is_unspecified()) {
                bail!(
                    "listener.advertise of realm {} is empty: a listener on a wildcard address needs the addresses that clients reach it at",
                    l.realm
                );
            }
            if let Some(a) = l.advertise.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
                bail!("listener.advertise has {a}: an address that clients can send to is right");
            }
        }
        self.link_test.check(("listener.advertise", self.listener.iter().all(|l| !l.advertise.is_empty())))?;
        let l = &self.limits;
        if !(1..=4_096).contains(&l.max_feeds) || !(1..=65_536).contains(&l.max_legs) {
            bail!("limits.max_feeds is 1 to 4096 and limits.max_legs is 1 to 65536");
        }
        if !(1..=65_536).contains(&l.max_connections) {
            bail!("limits.max_connections = {}: 1 to 65536 is right", l.max_connections);
        }
        if l.workers.is_some_and(|n| !(1..=trocar_relay::MAX_WORKERS).contains(&n)) {
            bail!("limits.workers: 1 to {} is right", trocar_relay::MAX_WORKERS);
        }
        if let Err(e) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            bail!("log.filter = {:?}: {e}", self.log.filter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "cert = 'a'\nkey = 'b'\ntrust = 'c'\n[admission]\nlisten = '127.0.0.1:0'\n";
    const REALM: &str = "[[listener]]\nrealm = 'r'\nwebrtc = '127.0.0.1:0'\nquic = '127.0.0.1:0'\n";

    #[test]
    fn the_shipped_file_is_right_and_shows_the_defaults() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/cluster/relay.toml");
        let config = Config::read(&shipped).unwrap();
        assert_eq!((config.limits, config.log, config.link_test), Default::default());
        assert!(config.cert.is_absolute() || config.cert.starts_with(shipped.parent().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(Config::parse(&format!("{LEAST}{REALM}")).unwrap().listener[0].server_name(), "127.0.0.1");
        for (text, want) in [
            (String::new(), "missing field `cert`"),
            (LEAST.to_owned(), "listener"),
            (format!("nam = 'x'\n{LEAST}{REALM}"), "unknown field `nam`"),
            (format!("{LEAST}lissen = 3\n{REALM}"), "unknown field `lissen`"),
            (format!("{LEAST}{REALM}{REALM}"), "listener.realm = r"),
            (format!("{LEAST}{}", REALM.replace("'127.0.0.1:0'\nq", "'0.0.0.0:0'\nq")), "listener.advertise"),
            (format!("{LEAST}{REALM}advertise = ['224.0.0.1']"), "224.0.0.1"),
            (format!("{LEAST}{REALM}[limits]\nmax_legs = 0"), "limits.max_legs"),
            (format!("{LEAST}{REALM}[limits]\nworkers = 0"), "limits.workers"),
            (format!("{LEAST}{REALM}[control]\nlisten = '127.0.0.1:0'\nissuer = 'x'"), "missing field `issuer_key`"),
            (format!("{LEAST}{REALM}[link_test]\nmax_rate = '200'"), "50M"),
            (format!("{LEAST}{REALM}[link_test]\nmax_seconds = 5"), "link_test.max_seconds = 5"),
            (
                format!("{LEAST}{REALM}[link_test]\nenabled = true\nlisten = '0.0.0.0:4436'"),
                "listener.advertise has to name",
            ),
            (format!("{LEAST}{REALM}[link_test]\nenable = true"), "unknown field `enable`"),
            (format!("{LEAST}{REALM}[log]\nfilter = 'a=b=c'"), "log.filter"),
        ] {
            let e = format!("{:#}", Config::parse(&text).expect_err(&text));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }
}
