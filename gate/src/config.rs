//! The gate's configuration file: TOML, typed, and a key that nobody knows is refused by name. `configs/gate.toml` shows every key.

mod timers;

use crate::console::{ConsoleConfig, ConsoleError};
use crate::device::DeviceConfig;
use crate::frames::{FramesConfig, MAX_LAG};
use crate::net::{MAX_RELAYS, NetConfig, RelayAddress};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use timers::{TimerError, Timers};
use trocar_control::audit::Hash;
use trocar_control::audit::record::Patient;
use trocar_control::trust::CertName;
use trocar_proto::handover;
use trocar_proto::session::ids::SessionId;

/// Patients of one session at most.
const MOST_PATIENTS: usize = 8;
/// Longest name of a patient's number or its assigner, in bytes.
const LONGEST_PATIENT: usize = 256;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a key is missing, unknown or of another type.
    #[error("{}{}: {what}", place(.key, .line), said(.text))]
    Form {
        /// The section or key; empty where it is not known.
        key: String,
        /// Which line, from 1.
        line: Option<usize>,
        /// What is written there.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// A value that cannot be.
    #[error("{key} = {value}: {rule}")]
    Value {
        /// The key.
        key: String,
        /// What it has.
        value: String,
        /// What would be right.
        rule: String,
    },
    /// A timer or threshold.
    #[error(transparent)]
    Timer(#[from] TimerError),
    /// The console.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// As the others, with the file's name.
    #[error("{}: {source}", file.display())]
    In {
        /// Which file.
        file: PathBuf,
        /// What is wrong in it.
        source: Box<ConfigError>,
    },
}

fn place(key: &str, line: &Option<usize>) -> String {
    match (line, key) {
        (Some(line), "" | ".") => format!("line {line}"),
        (Some(line), key) => format!("line {line}, {key}"),
        (None, key) => key.to_owned(),
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// What one gate is and does.
#[derive(Debug, Clone)]
pub struct Config {
    /// The session.
    pub session: Session,
    /// This gate's certificate.
    pub identity: Files,
    /// Who is trusted.
    pub trust: Trust,
    /// Control addresses of the relays.
    pub relays: Vec<RelayAddress>,
    /// Where epochs and the audit chain are kept.
    pub store: PathBuf,
    /// What moves.
    pub device: DeviceConfig,
    /// Where publishers report frames. Without it there is no frame proof, and camera and instruments are refused (HO-R-007).
    pub frames: Option<FramesConfig>,
    /// Screens and hardware inputs.
    pub console: ConsoleConfig,
    /// The consent document, which is watched. Without it nothing is consented to.
    pub consent: Option<PathBuf>,
    /// Every timer and threshold.
    pub timers: handover::config::Config,
    /// What is said about running.
    pub log: Log,
    /// SHA-256 of what is in effect, for the audit chain: the file's values in the order of their names, and every timer. What the file leaves
    /// out otherwise is decided by the program's version, which stands in each record too.
    pub hash: Hash,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Tokens, consent and offers are for this one only.
    pub id: SessionId,
    /// Whom it is about, as the hospitals' systems name them; for the audit chain.
    #[serde(default)]
    pub patient: Vec<Patient>,
}

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Certificate chain, PEM, leaf first: `trocar://REALM/gate/NAME`.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// `[trust]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Directory with `ca.pem` and, where something was revoked, `crl.pem`.
    pub dir: PathBuf,
    /// Whose session tokens count: claim `iss`.
    pub issuer: String,
    /// That issuer's Ed25519 public key.
    pub issuer_key: PathBuf,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Filter as in `RUST_LOG`, which goes before it.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    session: Session,
    identity: Files,
    trust: Trust,
    #[serde(default)]
    relay: Vec<Relay>,
    store: Store,
    device: DeviceConfig,
    frames: Option<Frames>,
    #[serde(default)]
    console: ConsoleConfig,
    consent: Option<Consent>,
    #[serde(default)]
    timers: Timers,
    #[serde(default)]
    log: Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relay {
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    dir: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frames {
    listen: SocketAddr,
    #[serde(default)]
    publishers: Vec<String>,
    max_lag_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    file: PathBuf,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, and the line or the key at fault with its value and what would be right.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.to_path_buf();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: file.clone(), source })?;
        Self::parse(&text).map_err(|e| ConfigError::In { file, source: Box::new(e) })
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// As [`Config::read`], without a file's name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|e| form(text, String::new(), &e))?;
        let document = toml::Deserializer::parse(text).map_err(|e| form(text, String::new(), &e))?;
        let written: Written =
            serde_path_to_error::deserialize(document).map_err(|e| form(text, e.path().to_string(), e.inner()))?;
        let timers = written.timers.resolve()?;
        let hash = hash_of(&table, &timers);
        let config = Self {
            relays: relays(&written.relay)?,
            frames: written.frames.map(frames).transpose()?,
            session: written.session,
            identity: written.identity,
            trust: written.trust,
            store: written.store.dir,
            device: written.device,
            console: written.console,
            consent: written.consent.map(|c| c.file),
            timers,
            log: written.log,
            hash,
        };
        config.check()?;
        Ok(config)
    }

    /// What the network side wants to know.
    #[must_use]
    pub fn net(&self) -> NetConfig {
        NetConfig {
            relays: self.relays.clone(),
            certificate: self.identity.cert.clone(),
            key: self.identity.key.clone(),
            trust: self.trust.dir.clone(),
            issuer: self.trust.issuer.clone(),
            issuer_key: self.trust.issuer_key.clone(),
            session: self.session.id.clone(),
        }
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), ConfigError> {
        let patients = &self.session.patient;
        if patients.len() > MOST_PATIENTS {
            let rule = format!("at most {MOST_PATIENTS} is right");
            return Err(wrong("session.patient", format!("{} of them", patients.len()), rule));
        }
        let is_wrong = |t: &str| t.is_empty() || t.len() > LONGEST_PATIENT || t.chars().any(char::is_control);
        for (n, patient) in patients.iter().enumerate() {
            for (key, text) in [("assigner", &patient.assigner), ("value", &patient.value)] {
                if is_wrong(text) {
                    let rule = format!("1 to {LONGEST_PATIENT} bytes without control characters are right");
                    return Err(wrong(&format!("session.patient[{n}].{key}"), format!("{text:?}"), rule));
                }
            }
        }
        if self.trust.issuer.is_empty() {
            return Err(wrong("trust.issuer", "\"\"", "the name in the tokens' claim iss is right"));
        }
        if let Err(e) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            return Err(wrong("log.filter", format!("{:?}", self.log.filter), e.to_string()));
        }
        self.console.check()?;
        Ok(())
    }
}

/// Timers and thresholds that have another value than their default: key, value and default, as a file would have them.
pub(crate) fn changed_timers(timers: &handover::config::Config) -> Vec<(&'static str, String, String)> {
    timers::changed(timers)
}

fn wrong(key: &str, value: impl Into<String>, rule: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value: value.into(), rule: rule.into() }
}

fn relays(written: &[Relay]) -> Result<Vec<RelayAddress>, ConfigError> {
    if !(1..=MAX_RELAYS).contains(&written.len()) {
        return Err(wrong("[[relay]]", format!("{} of them", written.len()), format!("1 to {MAX_RELAYS} are right")));
    }
    let mut out: Vec<RelayAddress> = Vec::with_capacity(written.len());
    for (n, relay) in written.iter().enumerate() {
        let key = format!("relay[{n}].address");
        let address = relay.address.parse().map_err(|e| wrong(&key, format!("{:?}", relay.address), format!("{e}")));
        let address: RelayAddress = address?;
        if out.contains(&address) {
            return Err(wrong(&key, format!("{:?}", relay.address), "each relay once is right"));
        }
        out.push(address);
    }
    Ok(out)
}

fn frames(written: Frames) -> Result<FramesConfig, ConfigError> {
    let lag = written.max_lag_ms.map_or(MAX_LAG, Duration::from_millis);
    if lag.is_zero() || lag > Duration::from_secs(1) {
        return Err(wrong("frames.max_lag_ms", lag.as_millis().to_string(), "1 to 1000 is right"));
    }
    let name = |(n, text): (usize, &String)| {
        let key = format!("frames.publishers[{n}]");
        text.parse::<CertName>().map_err(|_| wrong(&key, format!("{text:?}"), "trocar://REALM/station/NAME is right"))
    };
    if written.publishers.is_empty() {
        // Experts' stations have certificates of the same role: whoever could report frames could make a frozen picture look fresh.
        let rule = "the names of those that publish are right, such as [\"trocar://REALM/station/NAME\"]";
        return Err(wrong("frames.publishers", "[]".to_owned(), rule));
    }
    let publishers = written.publishers.iter().enumerate().map(name).collect::<Result<_, _>>()?;
    Ok(FramesConfig { listen: written.listen, publishers, max_lag: lag })
}

/// An error of the parser, with the line that it is about.
fn form(text: &str, key: String, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map(|span| span.start);
    let line = at.and_then(|at| text.get(..at)).map(|before| before.matches('\n').count() + 1);
    let is_section = |text: &str| text.starts_with('[');
    let words =
        line.and_then(|n| text.lines().nth(n - 1)).map(str::trim).filter(|t| !is_section(t)).unwrap_or_default();
    let what = error.message().trim().replace('\n', ", ");
    ConfigError::Form { key, line, text: words.to_owned(), what }
}

/// The same for the same values, however the file orders them and whatever it comments.
fn hash_of(table: &toml::Table, timers: &handover::config::Config) -> Hash {
    let mut text = String::new();
    write_value(&toml::Value::Table(table.clone()), &mut text);
    // Every field by its name, microseconds: the derived form says all of them.
    text.push_str(&format!("\n{timers:?}"));
    Hash::of(text.as_bytes())
}

fn write_value(value: &toml::Value, out: &mut String) {
    match value {
        toml::Value::Table(table) => {
            let mut members: Vec<_> = table.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                out.push_str(&format!("{name:?}:"));
                write_value(value, out);
                out.push(',');
            }
            out.push('}');
        }
        toml::Value::Array(items) => {
            out.push('[');
            for item in items {
                write_value(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
