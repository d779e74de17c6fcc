//! The configuration file of `trocar up`: TOML, typed, and a key that nobody knows is refused by name.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use trocar_proto::session::ids::RealmId;

/// One node that is relay and signaling.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Name of the hospital network.
    pub(crate) realm: RealmId,
    /// Where keys, certificates and the database are kept.
    pub(crate) dir: PathBuf,
    /// What people see of the session that `trocar up` opens.
    pub(crate) session_title: String,
    /// Letting people in.
    pub(crate) signaling: Signaling,
    /// Carrying media.
    pub(crate) relay: Relay,
    /// What is said about running.
    pub(crate) log: Log,
}

/// The signaling part.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Signaling {
    /// HTTPS address of page and API.
    pub(crate) listen: SocketAddr,
    /// Plain HTTP for browsers on this machine only; must be a loopback address.
    pub(crate) loopback_http: Option<SocketAddr>,
    /// Base of invitation links, where clients reach this node by another name.
    pub(crate) public_url: Option<String>,
    /// Certificate chain and key, PEM; made by the local authority where left out.
    pub(crate) cert: Option<PathBuf>,
    /// Key of `cert`.
    pub(crate) key: Option<PathBuf>,
    /// Hours that the printed invitations stay good, 1 to 168.
    pub(crate) invitation_hours: u64,
    /// Whether /metrics answers to other machines as well.
    pub(crate) metrics_open: bool,
}

/// The relay part.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Relay {
    /// UDP address for WebRTC; port 0 takes a free one.
    pub(crate) webrtc: SocketAddr,
    /// UDP address for QUIC; port 0 takes a free one.
    pub(crate) quic: SocketAddr,
    /// Addresses that clients reach this node at; needed where a listener is on a wildcard address.
    pub(crate) advertise: Vec<IpAddr>,
    /// CPU that the worker is pinned to.
    pub(crate) pin: Option<usize>,
    /// Feeds at most.
    pub(crate) max_feeds: usize,
    /// Legs at most.
    pub(crate) max_legs: usize,
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

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: RealmId::default(),
            dir: PathBuf::from("var/trocar"),
            session_title: "Operating room".to_owned(),
            signaling: Signaling::default(),
            relay: Relay::default(),
            log: Log::default(),
        }
    }
}

impl Default for Signaling {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(LOOPBACK, 8443),
            loopback_http: Some(SocketAddr::new(LOOPBACK, 8080)),
            public_url: None,
            cert: None,
            key: None,
            invitation_hours: 24,
            metrics_open: false,
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        let limits = trocar_relay::worker::Limits::default();
        Self {
            webrtc: SocketAddr::new(LOOPBACK, 0),
            quic: SocketAddr::new(LOOPBACK, 0),
            advertise: Vec::new(),
            pin: None,
            max_feeds: limits.max_feeds,
            max_legs: limits.max_legs,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, and the line and key at fault.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// What the types do not say.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let s = &self.signaling;
        if let Some(a) = s.loopback_http
            && !a.ip().is_loopback()
        {
            bail!(
                "signaling.loopback_http = {a}: a loopback address is right, for plain HTTP never leaves the machine"
            );
        }
        if s.cert.is_some() != s.key.is_some() {
            bail!("signaling.cert and signaling.key: either both or neither");
        }
        if !(1..=168).contains(&s.invitation_hours) {
            bail!("signaling.invitation_hours = {}: 1 to 168 is right", s.invitation_hours);
        }
        let r = &self.relay;
        if r.advertise.is_empty() && (r.webrtc.ip().is_unspecified() || r.quic.ip().is_unspecified()) {
            bail!(
                "relay.advertise is empty: a listener on a wildcard address needs the addresses that clients reach it at"
            );
        }
        if let Some(a) = r.advertise.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
            bail!("relay.advertise has {a}: an address that clients can send to is right");
        }
        if !(1..=4_096).contains(&r.max_feeds) || !(1..=65_536).contains(&r.max_legs) {
            bail!("relay.max_feeds is 1 to 4096 and relay.max_legs is 1 to 65536");
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

    #[test]
    fn an_empty_file_is_the_default_and_the_shipped_one_is_right() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/trocar.toml");
        Config::read(&shipped).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, want) in [
            ("relm = 'x'", "unknown field `relm`"),
            ("[relay]\nwebrct = '1.2.3.4:5'", "unknown field `webrct`"),
            ("realm = 'a b'", "a realm is 1 to 64 characters"),
            ("[signaling]\nloopback_http = '0.0.0.0:80'", "signaling.loopback_http"),
            ("[signaling]\nlisten = 'here'", "listen"),
            ("[signaling]\ninvitation_hours = 0", "invitation_hours"),
            ("[relay]\nquic = '0.0.0.0:4443'", "relay.advertise"),
            ("[relay]\nadvertise = ['0.0.0.0']", "relay.advertise"),
            ("[relay]\nmax_legs = 0", "max_legs"),
            ("[signaling]\ncert = 'x'", "signaling.key"),
            ("[log]\nfilter = 'a=b=c'", "log.filter"),
        ] {
            let e = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }
}
