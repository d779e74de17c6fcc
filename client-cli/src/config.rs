//! The configuration file of `trocar up`: TOML, typed, and a key that nobody knows is refused by name.

mod audit;
mod identity;
mod limits;
mod realms;
mod relay;

pub(crate) use limits::Limits;
pub(crate) use realms::Realm;
pub(crate) use relay::{Apart, Task};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trocar_proto::session::ids::RealmId;
use trocar_relay::link_test::LinkTest;

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
    /// The patient whom that session is about, as `ASSIGNER|VALUE`: stands in the audit chain, and nobody in the session sees it.
    pub(crate) session_patient: Option<String>,
    /// The patient's consent to being seen by others.
    pub(crate) consent: Consent,
    /// What becomes of audit records.
    pub(crate) audit: audit::Audit,
    /// Letting people in.
    pub(crate) signaling: Signaling,
    /// What operators ask.
    pub(crate) admin: Admin,
    /// Who has to say who they are.
    pub(crate) identity: identity::Identity,
    /// Listeners for people of other realms.
    pub(crate) realms: Vec<Realm>,
    /// What they may do; nothing where it does not say so.
    pub(crate) realm_policy: Vec<trocar_signaling::RealmPolicy>,
    /// Carrying media: `[relay]` in this process, or `[[relay]]` for each one apart.
    pub(crate) relay: relay::Section,
    /// What is taken of anybody.
    pub(crate) limits: Limits,
    /// Answering measurements of the line to this node.
    pub(crate) link_test: LinkTest,
    /// STUN and TURN servers that browsers are told.
    pub(crate) turn: Turn,
    /// Systems that are called on events.
    pub(crate) webhook: Vec<Webhook>,
    /// Where traces of joins and handovers go.
    pub(crate) traces: Traces,
    /// What is said about running.
    pub(crate) log: Log,
}

/// The patient's consent to being seen by others.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Consent {
    /// Directory with the trust list of those who sign it: `ca.pem`, and `crl.pem` where there is one. With it nobody but the role local sees
    /// or hears anything of a session before a document that consents to it was handed in; left out, nothing is asked for.
    pub(crate) trust: Option<PathBuf>,
}

/// A listener for operators.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Its address. With it `/metrics`, `/healthz` and `/readyz` are answered there, to whoever reaches it, and nowhere else: by plain HTTP on a
    /// loopback address, else by HTTPS. Left out, they are answered beside the page.
    pub(crate) listen: Option<SocketAddr>,
}

/// The signaling part.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Signaling {
    /// HTTPS address of page and API.
    pub(crate) listen: SocketAddr,
    /// Plain HTTP for browsers on this machine only; must be a loopback address.
    pub(crate) loopback_http: Option<SocketAddr>,
    /// Origins of other pages that may use event sockets, WHIP and WHEP.
    pub(crate) origins: Vec<String>,
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
    /// Whether HTTPS takes TLS 1.2 as well.
    pub(crate) tls12: bool,
}

/// The relay part.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Relay {
    /// Address for WebRTC by UDP and TCP, of the first worker; port 0 takes free ones.
    pub(crate) webrtc: SocketAddr,
    /// UDP address for QUIC, of the first worker; port 0 takes free ones.
    pub(crate) quic: SocketAddr,
    /// UDP address of the control rendezvous; port 0 takes a free one.
    pub(crate) control: SocketAddr,
    /// Addresses that clients reach this node at; needed where a listener is on a wildcard address.
    pub(crate) advertise: Vec<IpAddr>,
    /// Threads that carry media, each with the next port; left out: one on one or two cores, else all cores but one.
    pub(crate) workers: Option<usize>,
    /// CPU that the first worker is pinned to, and the next ones for the others.
    pub(crate) pin: Option<usize>,
    /// Feeds at most.
    pub(crate) max_feeds: usize,
    /// Legs at most.
    pub(crate) max_legs: usize,
    /// What the line towards viewers takes, such as "150M": legs that do not fit are refused. Left out: not counted.
    pub(crate) uplink: Option<trocar_relay::uplink::UplinkRate>,
}

/// STUN and TURN servers for WebRTC clients behind firewalls, such as coturn with `use-auth-secret`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Turn {
    /// `stun:` URIs.
    pub(crate) stun: Vec<String>,
    /// `turn:` and `turns:` URIs.
    pub(crate) urls: Vec<String>,
    /// The TURN server's `static-auth-secret`; others may not read the file.
    pub(crate) secret_file: Option<PathBuf>,
    /// Seconds that a credential is good for, 60 to 3600.
    pub(crate) lifetime_s: u64,
}

/// A system that is called on events (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Where.
    pub(crate) url: String,
    /// The key of the signatures, `whsec_` and base64; others may not read the file.
    pub(crate) secret_file: PathBuf,
    /// Which events; all where left out.
    #[serde(default)]
    pub(crate) events: Vec<String>,
}

/// Traces for OpenTelemetry, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Traces {
    /// Base of the collector's address; nothing is sent where left out.
    pub(crate) endpoint: Option<String>,
    /// What this node is called there.
    pub(crate) service_name: String,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, service_name: "trocar".to_owned() }
    }
}

impl Traces {
    /// As signaling takes it.
    pub(crate) fn load(&self) -> Option<trocar_signaling::TracesConfig> {
        let endpoint = self.endpoint.clone()?;
        Some(trocar_signaling::TracesConfig { endpoint, service_name: self.service_name.clone() })
    }
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

impl Config {
    /// The first 64 bits of SHA-256 over all values, in hex: tells in the audit chain whether a configuration was changed.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{self:?}").as_bytes());
        hex::encode(digest.as_ref().get(..8).unwrap_or_default())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: RealmId::default(),
            dir: PathBuf::from("var/trocar"),
            session_title: "Operating room".to_owned(),
            session_patient: None,
            consent: Consent::default(),
            audit: audit::Audit::default(),
            signaling: Signaling::default(),
            admin: Admin::default(),
            identity: identity::Identity::default(),
            realms: Vec::new(),
            realm_policy: Vec::new(),
            relay: relay::Section::default(),
            limits: Limits::default(),
            link_test: LinkTest::default(),
            turn: Turn::default(),
            webhook: Vec::new(),
            traces: Traces::default(),
            log: Log::default(),
        }
    }
}

impl Default for Signaling {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(LOOPBACK, 8443),
            loopback_http: Some(SocketAddr::new(LOOPBACK, 8080)),
            origins: Vec::new(),
            public_url: None,
            cert: None,
            key: None,
            invitation_hours: 24,
            metrics_open: false,
            tls12: false,
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        let limits = trocar_relay::worker::Limits::default();
        Self {
            webrtc: SocketAddr::new(LOOPBACK, 0),
            quic: SocketAddr::new(LOOPBACK, 0),
            control: SocketAddr::new(LOOPBACK, 4434),
            advertise: Vec::new(),
            workers: None,
            pin: None,
            max_feeds: limits.max_feeds,
            max_legs: limits.max_legs,
            uplink: None,
        }
    }
}

impl Relay {
    /// How many threads carry media.
    pub(crate) fn workers(&self) -> usize {
        self.workers.unwrap_or_else(trocar_relay::default_workers)
    }

    /// Each worker has the port after the one before: the ranges must not meet.
    fn check_workers(&self) -> anyhow::Result<()> {
        let workers = self.workers();
        if !(1..=trocar_relay::MAX_WORKERS).contains(&workers) {
            bail!("relay.workers = {workers}: 1 to {} is right", trocar_relay::MAX_WORKERS);
        }
        let all = [("webrtc", self.webrtc, workers), ("quic", self.quic, workers), ("control", self.control, 1)];
        let taken = all.map(|(name, at, n)| (name, at, usize::from(at.port())..usize::from(at.port()) + n));
        for (i, (name, at, ports)) in taken.iter().enumerate().filter(|(_, (_, at, _))| at.port() != 0) {
            if ports.end > 65_536 {
                bail!("relay.{name} = {at}: {workers} workers need as many ports from there on, up to 65535");
            }
            // One port alone that is taken twice is told by the kernel, and may be meant on different addresses.
            let meets = |(_, other, others): &&(&str, SocketAddr, std::ops::Range<usize>)| {
                other.port() != 0 && other.ip() == at.ip() && ports.start < others.end && others.start < ports.end
            };
            if let Some((other, ..)) = taken.iter().skip(i + 1).find(meets) {
                bail!(
                    "relay.{name} and relay.{other}: {workers} workers take as many ports each, one after the other; \
                       ports that far apart are right"
                );
            }
        }
        Ok(())
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self { stun: Vec::new(), urls: Vec::new(), secret_file: None, lifetime_s: 3_600 }
    }
}

impl Turn {
    /// With the secret read.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn load(&self) -> anyhow::Result<trocar_signaling::Ice> {
        let turn = match &self.secret_file {
            None => None,
            Some(path) => Some(trocar_signaling::Turn {
                urls: self.urls.clone(),
                secret: read_secret(path).context("turn.secret_file")?.into_bytes(),
                lifetime: Duration::from_secs(self.lifetime_s),
            }),
        };
        Ok(trocar_signaling::Ice { stun: self.stun.clone(), turn })
    }
}

impl Webhook {
    /// With the secret read.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn load(&self) -> anyhow::Result<trocar_signaling::Webhook> {
        let text = read_secret(&self.secret_file).context("webhook.secret_file")?;
        let secret = text.strip_prefix("whsec_").and_then(|t| STANDARD.decode(t).ok());
        let secret = secret.with_context(|| {
            let file = self.secret_file.display();
            format!("webhook.secret_file: {file}: whsec_ and the base64 of 24 to 64 random bytes is right")
        })?;
        Ok(trocar_signaling::Webhook { url: self.url.clone(), secret, events: self.events.clone() })
    }
}

/// That nobody but owner and group has rights in a file.
fn check_secret(path: &Path, found: &std::fs::Metadata) -> anyhow::Result<()> {
    let (name, mode) = (path.display(), found.permissions().mode());
    if mode & 0o007 != 0 {
        bail!("{name} has mode {:o}: nobody but owner and group may have rights in it (chmod o= {name})", mode & 0o777);
    }
    Ok(())
}

/// One line from a file that others may not read.
fn read_secret(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    check_secret(path, &file.metadata().with_context(|| format!("cannot read {name}"))?)?;
    let mut text = String::new();
    file.by_ref().take(4_096).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    let line = text.trim();
    if line.is_empty() || line.lines().count() != 1 {
        bail!("{name}: one line with the secret is right");
    }
    Ok(line.to_owned())
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
        r.check_apart()?;
        if r.advertise.is_empty() && (r.webrtc.ip().is_unspecified() || r.quic.ip().is_unspecified()) {
            bail!(
                "relay.advertise is empty: a listener on a wildcard address needs the addresses that clients reach it at"
            );
        }
        check_advertised("relay.advertise", &r.advertise)?;
        r.check_workers()?;
        realms::check(self)?;
        self.limits.check()?;
        self.identity.check()?;
        self.traces.load().map_or(Ok(()), |t| t.check())?;
        self.link_test.check(("relay.advertise", !r.advertise.is_empty()))?;
        if self.link_test.enabled && !r.apart().is_empty() {
            bail!("link_test.enabled: the relays run apart; [link_test] in the configuration of each of them is right");
        }
        self.audit.check()?;
        if !(1..=4_096).contains(&r.max_feeds) || !(1..=65_536).contains(&r.max_legs) {
            bail!("relay.max_feeds is 1 to 4096 and relay.max_legs is 1 to 65536");
        }
        let t = &self.turn;
        if t.urls.is_empty() != t.secret_file.is_none() {
            bail!("turn.urls and turn.secret_file: either both or neither");
        }
        if !(60..=3_600).contains(&t.lifetime_s) {
            bail!("turn.lifetime_s = {}: 60 to 3600 is right", t.lifetime_s);
        }
        if let Err(e) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            bail!("log.filter = {:?}: {e}", self.log.filter);
        }
        Ok(())
    }
}

/// Whether clients can send to each of the addresses that `key` has.
fn check_advertised(key: &str, addresses: &[IpAddr]) -> anyhow::Result<()> {
    match addresses.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
        Some(a) => bail!("{key} has {a}: an address that clients can send to is right"),
        None => Ok(()),
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
        let cluster = shipped.with_file_name("cluster").join("trocar.toml");
        assert_eq!(Config::read(&cluster).unwrap().relay.apart().len(), 2);
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
            ("[[relay]]\nname = 'a'", "missing field `url`"),
            ("[[relay]]\nname = 'a'\nurl = 'http://x'", "relay.url"),
            ("[[relay]]\nname = 'a'\nurl = 'https://x'\nurk = 1", "unknown field `urk`"),
            ("[[relay]]\nname = 'a'\nurl = 'https://x'\ntakes = ['fees']", "unknown variant `fees`"),
            ("[[relay]]\nname = 'a'\nurl = 'https://x'\ncert = 'c'", "relay.key"),
            ("[[relay]]\nname = 'a'\nurl = 'https://x'\n[[relay]]\nname = 'a'\nurl = 'https://y'", "relay.name = a"),
            ("relay = 3", "[relay] or [[relay]]"),
            ("[relay]\nworkers = 0", "relay.workers = 0"),
            ("[relay]\nworkers = 9", "relay.workers = 9"),
            ("[relay]\nworkers = 2\nwebrtc = '127.0.0.1:5000'\nquic = '127.0.0.1:5001'", "relay.webrtc and relay.quic"),
            ("[relay]\nworkers = 4\nquic = '127.0.0.1:4431'", "relay.quic and relay.control"),
            ("[relay]\nworkers = 3\nwebrtc = '127.0.0.1:65534'", "relay.webrtc = 127.0.0.1:65534"),
            ("[limits]\nconnections = 1", "limits.connections = 1"),
            ("[signaling]\ncert = 'x'", "signaling.key"),
            ("[identity]\nrequired = 'sometimes'", "unknown variant `sometimes`"),
            ("[identity]\nlogin_minutes = 4", "identity.login_minutes = 4"),
            ("[identity]\nstep_up_minutes = 61", "identity.step_up_minutes = 61"),
            ("[[realms]]\nname = 'south'", "missing field `listen`"),
            ("[[realms]]\nname = 'south'\nlisten = '0.0.0.0:8443'", "realms.listen of south = 0.0.0.0:8443"),
            ("[[realms]]\nname = 'south'\nlisten = '127.0.0.1:8444'", "127.0.0.1:8444: the address is of realm local"),
            ("[signaling]\nlisten = '0.0.0.0:8443'\n[[realms]]\nname = 's'\nlisten = '10.0.0.1:1'", "signaling.listen"),
            ("[[realms]]\nname = 's'\nlisten = '10.0.0.1:1'\nadvertise = ['224.0.0.1']", "realms.advertise of s"),
            ("[[realm_policy]]\nfrom = 'south'\nto = 'local'\nverbs = ['invite']", "unknown variant `invite`"),
            ("[log]\nfilter = 'a=b=c'", "log.filter"),
            ("[turn]\nurls = ['turn:t.example']", "turn.secret_file"),
            ("[turn]\nlifetime_s = 86400", "turn.lifetime_s"),
            ("[traces]\nendpoint = 'http://otel.example:4318'", "traces.endpoint"),
            ("[link_test]\nmax_rate = '200'", "50M"),
            ("[link_test]\nmax_seconds = 5", "link_test.max_seconds = 5"),
            ("[link_test]\nenabled = true\nlisten = '0.0.0.0:4436'", "relay.advertise"),
            ("[link_test]\nenabled = true\n[[relay]]\nname = 'a'\nurl = 'https://x'", "link_test.enabled"),
            ("[turn]\nsecret = 'x'", "unknown field `secret`"),
            ("[[webhook]]\nurl = 'https://x.example'", "secret_file"),
            ("[[webhook]]\nurl = 'https://x.example'\nsecret_file = 'x'\nretries = 3", "unknown field `retries`"),
        ] {
            let e = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hook.secret");
        let webhook = Webhook { url: "https://x.example".into(), secret_file: file.clone(), events: vec![] };
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = format!("{:#}", webhook.load().err().expect("a secret for everybody was taken"));
        assert!(open.contains("webhook.secret_file") && open.contains("chmod o="), "{open}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(webhook.load().unwrap().secret.len(), 24);
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!", "a\nb"] {
            std::fs::write(&file, bad).unwrap();
            assert!(webhook.load().is_err(), "{bad:?} was taken");
        }
        let turn = Turn { urls: vec!["turn:t".into()], secret_file: Some(file.clone()), ..Turn::default() };
        std::fs::write(&file, "north-and-south-16\n").unwrap();
        assert_eq!(turn.load().unwrap().turn.unwrap().secret, b"north-and-south-16");
    }
}
