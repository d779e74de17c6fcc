//! What the listeners of a whole site offer to whoever comes by: versions, suites, groups, signatures, protocols, tickets, early data and
//! certificates, tried one at a time by OpenSSL on TCP and by quinn on UDP. The control is a listener that offers what none of ours may.

mod dtls;
mod openssl;
mod quic;

use crate::runtime;
use anyhow::{Context as _, ensure};
use openssl::{Listener, Offer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use trocar_control::trust::Identity;
use trocar_media_tests::cluster::Cluster;
use trocar_media_tests::netns::Namespace;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::sink::door::Entrance;
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_media_tests::theatre::{Room, Setting};
use trocar_testpki::{Authority, Leaf};

const SUITES: [&str; 3] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
const HTTP: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Longer than a report and none.
const NO_REPORT: &[u8] = &[b'x'; 200];

/// What every listener of ours offers to devices, which have certificates.
fn to_devices(protocols: &[&'static str]) -> Offer {
    Offer {
        versions: vec!["TLS 1.3"],
        suites: SUITES.map(ToOwned::to_owned).to_vec(),
        groups: vec!["X25519", "P-256", "P-384"],
        signatures: vec!["ECDSA+SHA256"],
        protocols: protocols.to_vec(),
        tickets: 0,
        early_data: false,
        compression: false,
        renegotiation: false,
        wants_certificate: true,
        takes_weak_certificates: false,
        chain: 1,
        is_trusted: true,
        bits: 256,
    }
}

/// The same to people, who have browsers: these may resume a session, without early data.
fn to_people() -> Offer {
    Offer { wants_certificate: false, tickets: 2, ..to_devices(&["http/1.1"]) }
}

fn issue(stack: &Stack, role: &str, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let state = stack.dir.path().join("state");
    let out = Command::new(trocar()?).args(["ca", "issue", "--dir", path(&state)?, "--role", role, name]).output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok((state.join(format!("{name}.pem")), state.join(format!("{name}.key"))))
}

/// The address in a link.
fn address(link: &str) -> anyhow::Result<SocketAddr> {
    let rest = link.split_once("://").map_or(link, |(_, rest)| rest);
    Ok(rest.split('/').next().unwrap_or_default().parse()?)
}

/// A value of a configuration file.
fn configured(file: &Path, table: &str, key: &str) -> anyhow::Result<String> {
    let file: toml::Table = std::fs::read_to_string(file)?.parse()?;
    let found = file.get(table).and_then(|t| t.get(key)).and_then(toml::Value::as_str);
    Ok(found.with_context(|| format!("no {table}.{key}"))?.to_owned())
}

/// Everything that a site has.
struct Site {
    /// Page, relay and gate.
    room: Room,
    /// A relay of its own.
    cluster: Cluster,
    /// A page whose operators come from elsewhere.
    administered: Stack,
    _agent: Process,
    agent_at: SocketAddr,
    /// Has the address that operators come to.
    _elsewhere: Namespace,
}

impl Site {
    fn open() -> anyhow::Result<Self> {
        let room = Room::open(Setting::default())?;
        let cluster = Cluster::start(&[("north", &["feeds", "legs"])])?;
        let elsewhere = Namespace::new()?;
        let administered = Stack::start_with(&format!("[admin]\nlisten = \"{}:0\"\n", elsewhere.host()))?;
        let (link, ca) = (room.stack.invitation("local")?, room.stack.text("/ca_file")?);
        let words = ["load", "agent", "--listen", "127.0.0.1:0", "--invite", &link, "--ca", &ca];
        let mut agent = Process::trocar("trocar load agent", &words)?;
        let line = agent.line(PATIENCE, |l| l.starts_with("waiting at "))?;
        let agent_at = line.trim_start_matches("waiting at ").parse()?;
        Ok(Self { room, cluster, administered, _agent: agent, agent_at, _elsewhere: elsewhere })
    }

    /// All that listen for TLS on TCP, with what each should offer.
    fn listeners(&self) -> anyhow::Result<Vec<(Listener, Offer)>> {
        let (stack, cluster) = (&self.room.stack, &self.cluster.stack);
        let device = |name: &str| stack.dir.path().join("state").join(name);
        let camera = Some((device("device.pem"), device("device.key")));
        let relay = self.cluster.relays.first().context("no relay")?;
        let admission =
            relay.report.pointer("/admission").and_then(serde_json::Value::as_str).context("no admission")?;
        let frames = configured(&self.room.places.gate_config(), "frames", "listen")?;
        let all = [
            ("page and API", address(&stack.text("/https")?)?, stack, None, HTTP, to_people()),
            ("operators", address(&self.administered.text("/metrics")?)?, &self.administered, None, HTTP, to_people()),
            (
                "relay, admission",
                address(admission)?,
                cluster,
                Some(issue(cluster, "signaling", "scanner")?),
                HTTP,
                to_devices(&["http/1.1"]),
            ),
            ("gate, frames", frames.parse()?, stack, camera.clone(), NO_REPORT, to_devices(&["trocar-frames/1"])),
            // It speaks lines and knows no protocol by name.
            ("load agent", self.agent_at, stack, camera, b"no order\n", to_devices(&[])),
        ];
        all.into_iter()
            .map(|(name, at, of, certificate, last_words, offer)| {
                let (authority, dir) = (of.text("/ca_file")?.into(), tempfile::tempdir()?);
                Ok((Listener { name, at, authority, certificate, last_words, dir }, offer))
            })
            .collect()
    }
}

/// Scans all of them at a time; what each offers, in their order.
fn scan(listeners: &[(Listener, Offer)]) -> anyhow::Result<Vec<Offer>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = listeners.iter().map(|(listener, _)| scope.spawn(|| listener.scan())).collect();
        running.into_iter().map(|thread| thread.join().expect("a scan panicked")).collect()
    })
}

fn table(name: &str, found: &Offer) -> anyhow::Result<()> {
    let old = format!("{} suites before TLS 1.3", openssl::suites_offered()?);
    let is = |yes: bool| if yes { "yes" } else { "no" };
    let rows = [
        ("SSL 3.0 to TLS 1.3", found.versions.join(", ")),
        (old.as_str(), found.suites.iter().filter(|s| !s.starts_with("TLS_")).cloned().collect::<Vec<_>>().join(", ")),
        (
            "5 suites of TLS 1.3",
            found.suites.iter().filter(|s| s.starts_with("TLS_")).cloned().collect::<Vec<_>>().join(", "),
        ),
        ("10 groups", found.groups.join(", ")),
        ("15 signatures", found.signatures.join(", ")),
        ("ALPN", found.protocols.join(", ")),
        ("tickets", found.tickets.to_string()),
        ("early data", is(found.early_data).to_owned()),
        ("compression", is(found.compression).to_owned()),
        ("renegotiation", is(found.renegotiation).to_owned()),
        ("certificate of the client", if found.wants_certificate { "wanted" } else { "not asked for" }.to_owned()),
        ("own certificates", format!("{}, key of {} bit, trusted: {}", found.chain, found.bits, is(found.is_trusted))),
    ];
    for (tried, offered) in rows {
        println!("{name:<18} {tried:<28} {}", if offered.is_empty() { "-" } else { &offered });
    }
    Ok(())
}

#[test]
fn listeners_offer_tls_1_3_alone_with_its_strong_suites_and_nothing_that_is_old_or_early() -> anyhow::Result<()> {
    let site = Site::open()?;
    let listeners = site.listeners()?;
    for ((listener, wanted), found) in listeners.iter().zip(scan(&listeners)?) {
        table(listener.name, &found)?;
        ensure!(found == *wanted, "{}: {found:#?}, not {wanted:#?}", listener.name);
    }
    runtime().block_on(quic_offers_the_same(&site))
}

#[test]
fn where_tls_1_2_is_asked_for_it_comes_with_forward_secrecy_and_aead_alone() -> anyhow::Result<()> {
    let elsewhere = Namespace::new()?;
    let stack =
        Stack::start_with(&format!("[signaling]\ntls12 = true\n[admin]\nlisten = \"{}:0\"\n", elsewhere.host()))?;
    let older = ["AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-GCM-SHA256"].map(|s| format!("ECDHE-ECDSA-{s}"));
    let suites = older.into_iter().chain(SUITES.map(ToOwned::to_owned)).collect();
    let wanted = Offer { versions: vec!["TLS 1.2", "TLS 1.3"], suites, ..to_people() };
    let listeners = [("page and API", "/https"), ("operators", "/metrics")].map(|(name, at)| {
        let (at, authority) = (address(&stack.text(at)?)?, stack.text("/ca_file")?.into());
        let (certificate, dir) = (None, tempfile::tempdir()?);
        Ok((Listener { name, at, authority, certificate, last_words: HTTP, dir }, wanted.clone()))
    });
    let listeners: Vec<_> = listeners.into_iter().collect::<anyhow::Result<_>>()?;
    for ((listener, wanted), found) in listeners.iter().zip(scan(&listeners)?) {
        table(listener.name, &found)?;
        ensure!(found == *wanted, "{}: {found:#?}, not {wanted:#?}", listener.name);
        // RFC 7627 section 5.3: who does not know the extended master secret may be turned away.
        ensure!(openssl::hello(listener.at, 0x0303, true)? == Some(0), "TLS 1.2 by hand was refused");
        ensure!(openssl::hello(listener.at, 0x0303, false)?.is_none(), "without the extended master secret");
    }
    Ok(())
}

async fn quic_offers_the_same(site: &Site) -> anyhow::Result<()> {
    let stack = &site.room.stack;
    let state = stack.dir.path().join("state");
    let me = Identity::from_pem_files(&state.join("device.pem"), &state.join("device.key"))?;
    let authority = CertificateDer::from_pem_file(state.join("ca.pem"))?;
    for (name, at, protocol) in
        [("QUIC, media", "/relay/quic", "roq-14"), ("QUIC, control", "/relay/control", "trocar-control/1")]
    {
        let at = stack.text(at)?.parse()?;
        let found = quic::Listener { name, at, protocol, authority: authority.clone(), me: &me }.scan().await?;
        println!("{name:<18} {found:?}");
        let wanted = quic::Offer {
            suites: ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"]
                .map(ToOwned::to_owned)
                .to_vec(),
            groups: ["X25519", "secp256r1", "secp384r1", "X25519MLKEM768"].map(ToOwned::to_owned).to_vec(),
            protocols: vec![protocol],
            early_data: false,
            wants_certificate: true,
            chain: 1,
        };
        ensure!(found == wanted, "{name}: {found:#?}, not {wanted:#?}");
    }
    Ok(())
}

#[test]
fn the_media_port_offers_dtls_1_2_with_strong_suites_alone() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let client = Arc::new(dtls::Client::new(dtls::To::Relay(Entrance::of(&stack)?))?);
    let [gcm, cm] = dtls::PROFILES;
    let (for_browsers, for_encoders) =
        runtime().block_on(async { tokio::try_join!(client.scan(gcm), client.scan(cm)) })?;
    for (profile, found) in [(gcm, &for_browsers), (cm, &for_encoders)] {
        println!("media port, {profile}: {found:?}");
    }
    let wanted = dtls::Offer {
        versions: vec!["DTLS 1.2"],
        suites: ["AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-GCM-SHA256"]
            .map(|s| format!("ECDHE-ECDSA-{s}"))
            .to_vec(),
        groups: vec!["X25519", "P-256", "P-384"],
        signatures: vec!["ECDSA+SHA256"],
    };
    ensure!(for_browsers == wanted, "{gcm}: {for_browsers:#?}, not {wanted:#?}");
    let one = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()];
    let wanted = dtls::Offer { suites: one, ..wanted };
    ensure!(for_encoders == wanted, "{cm}: {for_encoders:#?}, not {wanted:#?}");
    Ok(())
}

#[test]
fn a_careless_listener_is_found_out() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Authority::new();
    let (file, key_file) =
        ca.issue(&Leaf::device("trocar://local/relay/careless").at("localhost")).write(dir.path(), "careless");
    let authority = dir.path().join("ca.pem");
    std::fs::write(&authority, ca.pem())?;
    let careless =
        openssl::Careless::start(&file, &key_file, &["-early_data", "-client_renegotiation", "-alpn", "h2"])?;
    let at = careless.at;
    let listener = Listener { name: "careless", at, authority, certificate: None, last_words: openssl::BYE, dir };
    let found = listener.scan()?;
    table(listener.name, &found)?;
    ensure!(found.versions == ["TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"], "{found:#?}");
    ensure!(found.suites.iter().any(|s| s == openssl::CBC), "{found:#?}");
    ensure!(found.groups.contains(&"X448") && found.signatures.contains(&"ECDSA+SHA1"), "{found:#?}");
    ensure!(found.protocols == ["h2"] && found.tickets == 2, "{found:#?}");
    ensure!(found.early_data && found.renegotiation && !found.wants_certificate, "{found:#?}");
    // What is said by hand is understood.
    ensure!(openssl::hello(at, 0x0301, true)? == Some(0), "a hello by hand was refused");
    ensure!(openssl::hello(at, 0x0303, false)? == Some(0), "OpenSSL wants the extended master secret");
    ensure!(openssl::hello(at, 0x0300, true)?.is_none(), "OpenSSL has SSL 3.0 again");

    let me = Identity::from_pem_files(&file, &key_file)?;
    runtime().block_on(async {
        let careless = quic::Careless::start(&me)?;
        let authority = ca.der();
        let listener = quic::Listener { name: "careless", at: careless.at, protocol: "h3", authority, me: &me };
        let found = listener.scan().await?;
        ensure!((found.suites.len(), found.groups.as_slice()) == (1, &["secp384r1".to_owned()][..]), "{found:?}");
        ensure!(found.protocols == ["h3"] && found.early_data && !found.wants_certificate, "{found:?}");
        let [_, cm] = dtls::PROFILES;
        let careless = openssl::Careless::start(&file, &key_file, &["-dtls", "-use_srtp", cm])?;
        let client = dtls::Client::new(dtls::To::Server(careless.at))?;
        let old = ["-dtls1", "-cipher", "ALL:@SECLEVEL=0"].map(ToOwned::to_owned);
        ensure!(client.ask(cm, old.to_vec()).await?.is_some(), "DTLS 1.0 was not found");
        ensure!(client.suites(cm).await? == [openssl::CBC], "a suite with CBC was not found");
        Ok(())
    })
}
