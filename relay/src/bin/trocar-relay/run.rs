//! Putting a relay together from its configuration.

use crate::config::{Config, Control};
use crate::figures;
use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use trocar_control::token::{IssuerKey, TokenVerifier};
use trocar_control::trust::TrustList;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::role::Role;
use trocar_relay::control::{ControlListener, TokenCheck};
use trocar_relay::link_test::{Answering, watch_operated};
use trocar_relay::quic::Identity;
use trocar_relay::remote::{AdmissionListener, RemoteAdmission};
use trocar_relay::worker::{Limits, RealmListener};
use trocar_relay::{CertificateFiles, Relay, RelayConfig};

/// What scripts are told.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    admission: SocketAddr,
    listeners: Vec<Addresses>,
    control: Option<SocketAddr>,
    link_test: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Addresses {
    realm: RealmId,
    webrtc: SocketAddr,
    quic: SocketAddr,
}

/// Reads what the configuration names, without taking an address.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    let identity = trocar_control::trust::Identity::from_pem_files(&config.cert, &config.key)?;
    if identity.name().role != "relay" {
        bail!("{}: role relay is right, this is {}", config.cert.display(), identity.name().role);
    }
    TrustList::of_file(&config.trust)?;
    config.control.as_ref().map(tokens).transpose()?;
    Ok(())
}

/// Runs until it is told to stop.
pub(crate) async fn run(config: Config, json: bool) -> anyhow::Result<()> {
    check(&config)?;
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hung_up = signal(SignalKind::hangup())?;
    let (relay, events) = Relay::start(relay_config(&config)?)?;
    let (cert, key, trust) = (config.cert.clone(), config.key.clone(), config.trust.clone());
    relay.keep_certificates(CertificateFiles { cert, key, trust, realms: BTreeMap::new() })?;
    let operated = watch_operated(&relay);
    let answering = answering(&config, &relay, operated.clone())?;
    let admission = AdmissionListener {
        address: config.admission.listen,
        cert: config.cert.clone(),
        key: config.key.clone(),
        trust: config.trust.clone(),
        realms: config.listener.iter().map(|l| l.realm.clone()).collect(),
        link_tests: answering.clone(),
        operated,
    };
    let admission = RemoteAdmission::start(admission, relay.clone(), events).await?;
    let metrics = match config.metrics.listen {
        Some(address) => Some(figures::serve(address, relay.clone()).await?),
        None => None,
    };
    let link_test = answering.as_ref().map(|a| a.address());
    let listeners = relay.addresses().iter();
    let report = Report {
        name: admission.hello().name.clone(),
        admission: admission.address(),
        listeners: listeners.map(|a| Addresses { realm: a.realm.clone(), webrtc: a.webrtc, quic: a.quic }).collect(),
        control: relay.control_address(),
        link_test,
        metrics,
    };
    print(&report, json)?;
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            Some(()) = hung_up.recv() => relay.read_certificates_again(),
        }
    }
    tracing::info!("stopping");
    admission.shutdown().await;
    answering.iter().for_each(|a| a.stop());
    relay.shutdown().await;
    Ok(())
}

/// Answers measurements of the line, where the configuration asks for it.
fn answering(
    config: &Config,
    relay: &Relay,
    operated: watch::Receiver<bool>,
) -> anyhow::Result<Option<Arc<Answering>>> {
    let program = format!("trocar-relay {}", env!("CARGO_PKG_VERSION"));
    let listeners: Vec<_> = config.listener.iter().map(|l| (l.realm.clone(), l.advertise.clone())).collect();
    Answering::start(&config.link_test, program, &listeners, relay.addresses(), operated).context("link_test")
}

fn relay_config(config: &Config) -> anyhow::Result<RelayConfig> {
    let control = match &config.control {
        None => None,
        Some(control) => Some(ControlListener {
            realm: own_realm(config)?,
            address: control.listen,
            others: Vec::new(),
            identity: identity(config)?,
            tokens: tokens(control)?,
            limits: trocar_relay::control::Limits::default(),
        }),
    };
    let l = &config.limits;
    let limits = Limits {
        max_feeds: l.max_feeds,
        max_legs: l.max_legs,
        max_connections: l.max_connections,
        ..Limits::default()
    };
    let listeners = config.listener.iter().map(|l| RealmListener {
        realm: l.realm.clone(),
        webrtc: l.webrtc,
        quic: l.quic,
        advertise: l.advertise.clone(),
        server_name: l.server_name(),
        uplink: l.uplink.map(|u| u.0),
    });
    Ok(RelayConfig {
        listeners: listeners.collect(),
        identity: identity(config)?,
        workers: l.workers.unwrap_or_else(trocar_relay::default_workers),
        pin: l.pin,
        limits,
        control,
    })
}

fn own_realm(config: &Config) -> anyhow::Result<RealmId> {
    let identity = trocar_control::trust::Identity::from_pem_files(&config.cert, &config.key)?;
    Ok(identity.name().realm.clone())
}

fn identity(config: &Config) -> anyhow::Result<Identity> {
    let own = trocar_control::trust::Identity::from_pem_files(&config.cert, &config.key)?;
    Ok(Identity { chain: own.chain.clone(), key: own.key.clone_key(), trust: certificates(&config.trust)? })
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    all.with_context(|| format!("{}: certificates of authorities as PEM are right", file.display()))
}

/// Stations' tokens are judged by the issuer's key, as the gate does: nobody has to be asked.
fn tokens(control: &Control) -> anyhow::Result<TokenCheck> {
    let (issuer, key) = (control.issuer.clone(), IssuerKey::from_file(&control.issuer_key)?);
    Ok(Arc::new(move |token, session, certificate| {
        let verified = TokenVerifier::new(&issuer, &key, session.clone()).verify(token, certificate);
        let verified = verified.map_err(|e| e.to_string())?;
        if verified.role == Role::Expert {
            Ok(())
        } else {
            Err(format!("claim role is {}: an expert's token is right", verified.role.name()))
        }
    }))
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return crate::print(&format!("{}\n", serde_json::to_string(report)?));
    }
    let mut text = format!("Relay {} is up. Ctrl-C stops it.\n  admission  {}\n", report.name, report.admission);
    for l in &report.listeners {
        text.push_str(&format!("  realm {}  WebRTC {} QUIC {}\n", l.realm, l.webrtc, l.quic));
    }
    if let Some(control) = report.control {
        text.push_str(&format!("  control    {control}\n"));
    }
    if let Some(link_test) = report.link_test {
        text.push_str(&format!("  link test  {link_test}\n"));
    }
    if let Some(metrics) = report.metrics {
        text.push_str(&format!("  figures    http://{metrics}/metrics\n"));
    }
    crate::print(&text)
}
