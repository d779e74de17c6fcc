//! `trocar up`: relay and signaling in one process, with a local authority, a session and an invitation per role.

mod link;
mod media;
mod renewal;

use crate::admission::StationTokens;
use crate::ca::{Authority, IdentityFiles, OF_REALMS, Subject, Use, write_secret};
use crate::config::{Config, Realm, Webhook};
use crate::stop::Stop;
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use media::Media;
use renewal::Renewal;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trocar_control::token::GATE_AUDIENCE;
use trocar_proto::session::ids::SessionId;
use trocar_proto::session::role::Role;
use trocar_signaling::{LinkTests, RealmDoor, Server, ServerHandle, StoreAt, TlsIdentity};

/// Start relay and signaling in one process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpArgs {
    /// Configuration file (TOML); everything has a default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where keys, certificates and the database are kept.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address that other machines reach this one at: listens there, and puts it into links and candidates.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Port of the page; HTTPS takes the next one up, the control rendezvous the one after. 0 takes free ones.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Threads that carry media, 1 to 8; each takes the next port. One on one or two cores, else all cores but one.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Write addresses and invitations as KEY="value" lines, once everything is up. The file holds secrets.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl UpArgs {
    /// File and flags as one configuration; a flag goes before the file.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut c = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        if let Some(dir) = &self.dir {
            c.dir.clone_from(dir);
        }
        if let Some(port) = self.port {
            c.signaling.loopback_http = c.signaling.loopback_http.map(|a| SocketAddr::new(a.ip(), port));
            let https = if port == 0 { 0 } else { port.checked_add(1).context("--port is at most 65533")? };
            c.signaling.listen.set_port(https);
            if port == 0 {
                c.link_test.listen.set_port(0);
            }
            c.relay.control.set_port(if port == 0 {
                0
            } else {
                port.checked_add(2).context("--port is at most 65533")?
            });
        }
        if let Some(host) = self.host {
            if host.is_unspecified() {
                bail!("--host {host}: the address that other machines reach this one at is right");
            }
            c.signaling.listen.set_ip(host);
            c.relay.webrtc.set_ip(host);
            c.relay.quic.set_ip(host);
            c.relay.control.set_ip(host);
            c.link_test.listen.set_ip(host);
            c.relay.advertise = vec![host];
            if !host.is_loopback() {
                // Links lead to an address that other machines can open.
                c.signaling.loopback_http = None;
            }
        }
        c.relay.workers = self.workers.or(c.relay.workers);
        c.check()?;
        Ok(c)
    }
}

/// What scripts are told.
#[derive(Debug, Serialize)]
struct Report {
    page: String,
    https: String,
    metrics: String,
    session: SessionId,
    ca_file: PathBuf,
    device_cert: PathBuf,
    device_key: PathBuf,
    /// The relay in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<Addresses>,
    /// Listeners for people of other realms.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    realms: BTreeMap<String, RealmAddresses>,
    /// Relays that run apart: name, address of admission.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    relays: BTreeMap<String, String>,
    gate: Gate,
    invitations: BTreeMap<&'static str, String>,
    tokens: BTreeMap<&'static str, String>,
    ready_ms: u128,
}

#[derive(Debug, Serialize)]
struct RealmAddresses {
    https: String,
    /// Of the relay in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    webrtc: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Addresses {
    webrtc: SocketAddr,
    quic: SocketAddr,
    control: SocketAddr,
}

/// What the configuration of a gate has to name.
#[derive(Debug, Serialize)]
struct Gate {
    /// Directory with the trust list.
    trust: PathBuf,
    /// Issuer of tokens.
    issuer: String,
    /// The issuer's public key.
    issuer_key: PathBuf,
}

/// Runs until it is told to stop.
pub(crate) async fn run(args: UpArgs, config: Config) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let stop = Stop::on_signals()?;
    let authority = Authority::open_or_create(&config.dir, &config.realm)?;
    let stations = StationTokens::default();
    let (media, events) = Media::start(&config, &authority, &stations).await?;
    let answering = media.answering(&config)?;
    let link_tests = media.link_tests(&config, answering.as_ref());
    let server = start_signaling(&config, &authority, (&media, link_tests), events).await?;
    stations.ask(&server);
    let session = session(&server, &config).await?;
    let device = authority.identity("device", &subject(&config, "station", "device", &[]), Use::Device)?;
    let mut report = Report {
        page: page_url(&server),
        https: format!("https://{}/", server.https_addr()),
        metrics: metrics_url(&server),
        session: session.clone(),
        ca_file: std::path::absolute(authority.trust_file())?,
        device_cert: device.cert,
        device_key: device.key,
        relay: media.addresses()?,
        realms: realms(&server, &media),
        relays: config.relay.apart().iter().map(|r| (r.name.clone(), r.url.clone())).collect(),
        gate: for_gates(&config, &authority)?,
        invitations: BTreeMap::new(),
        tokens: BTreeMap::new(),
        ready_ms: 0,
    };
    for role in Role::all() {
        let ttl = Duration::from_secs(config.signaling.invitation_hours * 3_600);
        let invitation = server.invite(&session, role, ttl).await?;
        report.invitations.insert(role.name(), invitation.link);
        report.tokens.insert(role.name(), invitation.invitation);
    }
    report.ready_ms = began.elapsed().as_millis();
    if let Some(path) = &args.env_file {
        write_secret(path, env_lines(&report).as_bytes())?;
    }
    print(&args, &report)?;
    let renewal = Renewal::new(&config)?;
    tokio::select! {
        () = stop.requested() => {}
        () = renewal.run(&server, &media) => {}
    }
    tracing::info!("stopping");
    server.shutdown().await;
    if let Some(answering) = answering {
        answering.stop();
    }
    media.shutdown().await;
    Ok(())
}

fn realms(server: &ServerHandle, media: &Media) -> BTreeMap<String, RealmAddresses> {
    let all = server.realm_addrs().into_iter().map(|(realm, addr)| {
        let (webrtc, quic) = media.of_realm(&realm).unzip();
        let control = media.control_of_realm(&realm);
        (realm.to_string(), RealmAddresses { https: format!("https://{addr}/"), webrtc, quic, control })
    });
    all.collect()
}

fn subject<'a>(config: &'a Config, role: &'a str, name: &'a str, hosts: &'a [String]) -> Subject<'a> {
    Subject { realm: &config.realm, role, name, hosts }
}

/// Names and addresses that servers of this node are reached at.
fn hosts(config: &Config) -> Vec<String> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let bound = [config.signaling.listen.ip(), config.relay.quic.ip()];
    for ip in bound.iter().chain(&config.relay.advertise).filter(|ip| !ip.is_unspecified()) {
        hosts.push(ip.to_string());
    }
    let url = config.signaling.public_url.as_deref().and_then(|u| url::Url::parse(u).ok());
    hosts.extend(url.and_then(|u| u.host_str().map(ToOwned::to_owned)));
    hosts.sort();
    hosts.dedup();
    hosts
}

type Events = tokio::sync::mpsc::Receiver<trocar_proto::session::admission::RelayEvent>;

/// Where signaling itself finds the rendezvous: on this machine.
fn control_for_signaling(
    config: &Config,
    authority: &Authority,
    relay: SocketAddr,
    server_name: String,
) -> anyhow::Result<trocar_signaling::ControlConfig> {
    let subject = subject(config, "signaling", "signaling", &[]);
    let files = authority.identity("signaling-control", &subject, Use::Device)?;
    let mut relay = relay;
    if relay.ip().is_unspecified() {
        relay.set_ip(if relay.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let (cert, key, trust) = (files.cert, files.key, authority.trust_file());
    Ok(trocar_signaling::ControlConfig { relay, server_name, cert, key, trust })
}

fn issuer(config: &Config) -> String {
    format!("signaling.{}", config.realm)
}

/// Writes what the configuration of a gate names: a trust list, and the key that tokens are signed with.
fn for_gates(config: &Config, authority: &Authority) -> anyhow::Result<Gate> {
    let key = trocar_signaling::token_public_key(&token_key(&config.dir)?)?;
    let file = config.dir.join("token-key.pub");
    std::fs::write(&file, format!("{}\n", URL_SAFE_NO_PAD.encode(key)))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let trust = std::path::absolute(authority.trust_directory("gate-trust")?)?;
    Ok(Gate { trust, issuer: issuer(config), issuer_key: std::path::absolute(file)? })
}

/// The certificate of the HTTPS listener: the one that the configuration names, else one of the local authority.
fn https_files(config: &Config, authority: &Authority) -> anyhow::Result<IdentityFiles> {
    if let (Some(cert), Some(key)) = (&config.signaling.cert, &config.signaling.key) {
        return Ok(IdentityFiles { cert: cert.clone(), key: key.clone() });
    }
    let hosts = hosts(config);
    authority.identity("signaling", &subject(config, "signaling", "signaling", &hosts), Use::Server)
}

/// The certificate of the HTTPS listener for another realm: it names addresses of that realm alone.
fn realm_files(config: &Config, authority: &Authority, realm: &Realm) -> anyhow::Result<IdentityFiles> {
    let (file, hosts) = (format!("{}{}", OF_REALMS[0], realm.name), realm.hosts());
    authority.identity(&file, &subject(config, "signaling", "signaling", &hosts), Use::Server)
}

fn realm_door(config: &Config, authority: &Authority, realm: &Realm) -> anyhow::Result<RealmDoor> {
    let tls = tls_identity(&realm_files(config, authority, realm)?)?;
    Ok(RealmDoor { realm: realm.name.clone(), listen: realm.listen, advertise: realm.advertise.clone(), tls })
}

fn tls_identity(files: &IdentityFiles) -> anyhow::Result<TlsIdentity> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(TlsIdentity { cert_chain_pem: read(&files.cert)?, key_pem: read(&files.key)? })
}

async fn start_signaling(
    config: &Config,
    authority: &Authority,
    (media, link_tests): (&Media, Option<Arc<dyn LinkTests>>),
    events: Events,
) -> anyhow::Result<ServerHandle> {
    let files = https_files(config, authority)?;
    let control = media.control(config).map(|(relay, name)| control_for_signaling(config, authority, relay, name));
    let signaling = trocar_signaling::Config {
        listen: config.signaling.listen,
        loopback_http: config.signaling.loopback_http,
        admin_listen: config.admin.listen,
        tls: tls_identity(&files)?,
        tls12: config.signaling.tls12,
        token_key_pkcs8: token_key(&config.dir)?,
        audit_key_pkcs8: Some(audit_key(&config.dir)?),
        audit_export: config.audit.repository()?,
        audit_retention: config.audit.retention(),
        consent_trust: config.consent.trust.clone(),
        device_trust: Some(authority.trust_file()),
        configured: config.fingerprint(),
        issuer: issuer(config),
        audiences: vec![format!("relay.{}", config.realm), GATE_AUDIENCE.to_owned()],
        public_url: config.signaling.public_url.clone(),
        origins: config.signaling.origins.clone(),
        realm: config.realm.clone(),
        realms: config.realms.iter().map(|r| realm_door(config, authority, r)).collect::<anyhow::Result<_>>()?,
        realm_policies: config.realm_policy.clone(),
        store: StoreAt::File(config.dir.join("trocar.db")),
        metrics_open: config.signaling.metrics_open,
        ice: config.turn.load()?,
        webhooks: config.webhook.iter().map(Webhook::load).collect::<anyhow::Result<_>>()?,
        control: control.transpose()?,
        traces: config.traces.load(),
        link_tests,
        identity: config.identity.load()?,
        limits: config.limits.bounds().signaling,
    };
    Ok(Server::start(signaling, media.admission(), events).await?)
}

/// The session of this directory: the one that it had before, where it is still open, so that links from before a restart
/// and after it lead to the same place.
async fn session(server: &ServerHandle, config: &Config) -> anyhow::Result<SessionId> {
    let file = config.dir.join("session");
    if let Ok(id) = std::fs::read_to_string(&file).unwrap_or_default().trim().parse::<SessionId>() {
        // An invitation is what can tell: only an open session gives one.
        match server.invite(&id, Role::Observer, Duration::from_secs(60)).await {
            Ok(_) => return Ok(id),
            Err(error) => tracing::info!(%error, session = %id, "opening a new session"),
        }
    }
    let id = server.create_session(&config.session_title, config.session_patient.as_deref()).await?;
    write_secret(&file, id.as_str().as_bytes())?;
    Ok(id)
}

fn token_key(dir: &Path) -> anyhow::Result<Vec<u8>> {
    key_in(dir, "token.key")
}

/// The key that signs heads of the audit chain, and beside it `audit-key.pub`: 32 bytes in hex, for `trocar audit verify --key`.
fn audit_key(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let key = key_in(dir, "audit.key")?;
    let public = hex::encode(trocar_signaling::token_public_key(&key)?);
    write_secret(&dir.join("audit-key.pub"), format!("{public}\n").as_bytes())?;
    Ok(key)
}

/// An Ed25519 key in the directory, made where it is not there.
fn key_in(dir: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = dir.join(name);
    if path.exists() {
        return std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    }
    let key = trocar_signaling::generate_token_key()?;
    write_secret(&path, &key)?;
    Ok(key)
}

fn page_url(server: &ServerHandle) -> String {
    format!("{}/", server.public_url())
}

fn metrics_url(server: &ServerHandle) -> String {
    match server.admin_addr() {
        Some(at) if at.ip().is_loopback() => format!("http://{at}/metrics"),
        Some(at) => format!("https://{at}/metrics"),
        None => format!("{}metrics", page_url(server)),
    }
}

fn env_lines(r: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "TROCAR_{key}=\"{value}\"");
    };
    line("PAGE", &r.page);
    line("HTTPS", &r.https);
    line("METRICS", &r.metrics);
    line("CA", &r.ca_file.display().to_string());
    line("SESSION", r.session.as_str());
    if let Some(relay) = &r.relay {
        line("CONTROL", &relay.control.to_string());
    }
    line("GATE_TRUST", &r.gate.trust.display().to_string());
    line("TOKEN_ISSUER", &r.gate.issuer);
    line("TOKEN_KEY", &r.gate.issuer_key.display().to_string());
    for (role, link) in &r.invitations {
        line(&format!("INVITE_{}", role.to_uppercase()), link);
    }
    out
}

fn print(args: &UpArgs, r: &Report) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(r)?);
        return Ok(());
    }
    println!("Trocar is up after {} ms. Ctrl-C stops it.", r.ready_ms);
    println!("  page          {}", r.page);
    println!("  HTTPS         {} (authority: {})", r.https, r.ca_file.display());
    if let Some(relay) = &r.relay {
        println!("  relay         WebRTC {} QUIC {}", relay.webrtc, relay.quic);
        println!("  control       {} (gates and experts' stations)", relay.control);
    }
    for (name, url) in &r.relays {
        println!("  relay         {name} at {url}");
    }
    println!("  figures       {}", r.metrics);
    println!("Invitations, each good for whoever has the link:");
    for (role, link) in &r.invitations {
        println!("  {role:12}  {link}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> UpArgs {
        UpArgs { config: None, dir: None, host: None, port: None, workers: None, json: false, env_file: None }
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let c = UpArgs { port: Some(9_000), dir: Some("x".into()), ..args() }.config().unwrap();
        assert_eq!(c.signaling.loopback_http.unwrap().port(), 9_000);
        assert_eq!((c.signaling.listen.port(), c.relay.control.port()), (9_001, 9_002));
        assert_eq!(c.dir, PathBuf::from("x"));
        let free = UpArgs { port: Some(0), ..args() }.config().unwrap();
        assert_eq!((free.signaling.listen.port(), free.relay.control.port()), (0, 0));
        assert!(UpArgs { port: Some(65_534), ..args() }.config().is_err());
        assert_eq!(UpArgs { workers: Some(3), ..args() }.config().unwrap().relay.workers(), 3);
        assert!(UpArgs { workers: Some(0), ..args() }.config().is_err());
    }

    #[test]
    fn a_host_that_others_reach_is_listened_on_and_advertised() {
        let c = UpArgs { host: Some("192.0.2.7".parse().unwrap()), ..args() }.config().unwrap();
        assert_eq!(c.signaling.loopback_http, None);
        assert_eq!(c.relay.control.to_string(), "192.0.2.7:4434");
        assert_eq!(c.relay.advertise, vec!["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(UpArgs { host: Some("0.0.0.0".parse().unwrap()), ..args() }.config().is_err());
        assert!(hosts(&c).contains(&"192.0.2.7".to_owned()));
    }
}
