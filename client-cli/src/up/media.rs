//! What carries media: a relay in this process, or those that run apart.

use super::{Addresses, Events, hosts, subject};
use crate::admission::{InProcess, StationTokens};
use crate::ca::{Authority, OF_REALMS, Use};
use crate::config::{Apart, Config, Task};
use crate::net::tls::{read_chain, read_key};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use trocar_proto::session::ids::RealmId;
use trocar_relay::control::ControlListener;
use trocar_relay::link_test::{Answering, watch_operated};
use trocar_relay::quic::Identity;
use trocar_relay::worker::{Limits, RealmListener};
use trocar_relay::{CertificateFiles, Relay, RelayConfig};
use trocar_signaling::{Admission, LinkTests, RelayAt, Relays};

/// So long the page waits for relays that run apart: what they kept is then known before anybody comes.
const PATIENCE: Duration = Duration::from_secs(2);

/// What carries media.
#[allow(clippy::large_enum_variant, reason = "one at a time, and a box would be one more thing to read past")]
pub(super) enum Media {
    /// A relay in this process.
    Here(Relay, Arc<InProcess>),
    /// Relays in processes of their own.
    Apart(Arc<Relays>),
}

impl Media {
    /// Starts the relay, or begins to listen to those that run apart.
    pub(super) async fn start(
        config: &Config,
        authority: &Authority,
        stations: &StationTokens,
    ) -> anyhow::Result<(Self, Events)> {
        if config.relay.apart().is_empty() {
            let (relay, events) = start_relay(config, authority, stations)?;
            let admission = Arc::new(InProcess::new(relay.clone()));
            return Ok((Self::Here(relay, admission), events));
        }
        let relays = config.relay.apart().iter().map(|r| relay_at(config, authority, r));
        let (relays, events) = Relays::start(relays.collect::<anyhow::Result<_>>()?, PATIENCE).await?;
        Ok((Self::Apart(relays), events))
    }

    /// As signaling asks it.
    pub(super) fn admission(&self) -> Arc<dyn Admission> {
        match self {
            Self::Here(_, admission) => Arc::<InProcess>::clone(admission),
            Self::Apart(relays) => Arc::<Relays>::clone(relays),
        }
    }

    /// Where the relay in this process is.
    pub(super) fn addresses(&self) -> anyhow::Result<Option<Addresses>> {
        let Self::Here(relay, _) = self else { return Ok(None) };
        let a = relay.addresses().first().context("the relay has no listener")?;
        let control = relay.control_address().context("the relay has no control rendezvous")?;
        Ok(Some(Addresses { webrtc: a.webrtc, quic: a.quic, control }))
    }

    /// Where the relay in this process is for people of another realm: WebRTC and QUIC.
    pub(super) fn of_realm(&self, realm: &RealmId) -> Option<(SocketAddr, SocketAddr)> {
        let Self::Here(relay, _) = self else { return None };
        relay.addresses().iter().find(|a| &a.realm == realm).map(|a| (a.webrtc, a.quic))
    }

    /// Where stations of another realm find the rendezvous of the relay in this process.
    pub(super) fn control_of_realm(&self, realm: &RealmId) -> Option<SocketAddr> {
        let Self::Here(relay, _) = self else { return None };
        relay.control_of_realms().iter().find(|(own, _)| own == realm).map(|(_, address)| *address)
    }

    /// Where signaling finds the rendezvous, and the name of its certificate.
    pub(super) fn control(&self, config: &Config) -> Option<(SocketAddr, String)> {
        match self {
            Self::Here(_, admission) => Some((admission.control_address()?, "localhost".to_owned())),
            Self::Apart(relays) => {
                let named = config.relay.apart().iter().find_map(|r| r.control);
                let told = || relays.control_address().filter(|a| !a.ip().is_unspecified());
                let address = named.or_else(told)?;
                Some((address, address.ip().to_string()))
            }
        }
    }

    /// What answers measurements of the line for signaling: `answering` beside the relay in this process, or the relays apart.
    pub(super) fn link_tests(&self, config: &Config, answering: Option<&Arc<Answering>>) -> Option<Arc<dyn LinkTests>> {
        match self {
            Self::Here(..) => {
                let answering = Arc::clone(answering?);
                Some(Arc::new(super::link::Here { answering, realm: config.realm.clone() }))
            }
            Self::Apart(relays) => Some(Arc::<Relays>::clone(relays)),
        }
    }

    /// Answers measurements of the line beside the relay in this process, where the configuration asks for it.
    pub(super) fn answering(&self, config: &Config) -> anyhow::Result<Option<Arc<Answering>>> {
        let Self::Here(relay, _) = self else { return Ok(None) };
        let program = format!("trocar {} relay", env!("CARGO_PKG_VERSION"));
        let listeners = [(config.realm.clone(), config.relay.advertise.clone())];
        Answering::start(&config.link_test, program, &listeners, relay.addresses(), watch_operated(relay))
            .context("link_test")
    }

    /// The files of the relay in this process are read again, changed or not. Those apart look at their own.
    pub(super) fn read_certificates_again(&self) {
        if let Self::Here(relay, _) = self {
            relay.read_certificates_again();
        }
    }

    /// Stops the relay in this process. Those apart go on.
    pub(super) async fn shutdown(&self) {
        if let Self::Here(relay, _) = self {
            relay.shutdown().await;
        }
    }
}

fn relay_at(config: &Config, authority: &Authority, apart: &Apart) -> anyhow::Result<RelayAt> {
    let (cert, key) = match (&apart.cert, &apart.key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ => {
            let subject = subject(config, "signaling", "signaling", &[]);
            let files = authority.identity("signaling-control", &subject, Use::Device)?;
            (files.cert, files.key)
        }
    };
    Ok(RelayAt {
        name: apart.name.clone(),
        url: apart.url.clone(),
        cert,
        key,
        ca: apart.ca.clone().unwrap_or_else(|| authority.trust_file()),
        realms: apart.realms.clone(),
        takes_feeds: apart.takes.contains(&Task::Feeds),
        takes_legs: apart.takes.contains(&Task::Legs),
    })
}

fn start_relay(config: &Config, authority: &Authority, stations: &StationTokens) -> anyhow::Result<(Relay, Events)> {
    let files = relay_files(config, authority)?;
    let identity = || -> anyhow::Result<Identity> {
        let (chain, key) = (read_chain(&files.cert)?, read_key(&files.key)?);
        Ok(Identity { chain, key, trust: read_chain(&files.trust)? })
    };
    let bounds = config.limits.bounds();
    let control = ControlListener {
        realm: config.realm.clone(),
        address: config.relay.control,
        others: config.realms.iter().map(|r| (r.name.clone(), r.control())).collect(),
        identity: identity()?,
        tokens: stations.check(),
        limits: bounds.control.clone(),
    };
    let listener = RealmListener {
        realm: config.realm.clone(),
        webrtc: config.relay.webrtc,
        quic: config.relay.quic,
        advertise: config.relay.advertise.clone(),
        server_name: "localhost".to_owned(),
        uplink: config.relay.uplink.map(|u| u.0),
    };
    let others = config.realms.iter().map(|r| RealmListener {
        realm: r.name.clone(),
        webrtc: r.webrtc(),
        quic: r.quic(),
        advertise: r.advertise.clone(),
        server_name: "localhost".to_owned(),
        uplink: None,
    });
    let limits = Limits { max_feeds: config.relay.max_feeds, max_legs: config.relay.max_legs, ..bounds.worker };
    let (relay, events) = Relay::start(RelayConfig {
        listeners: std::iter::once(listener).chain(others).collect(),
        identity: identity()?,
        workers: config.relay.workers(),
        pin: config.relay.pin,
        limits,
        control: Some(control),
    })?;
    relay.keep_certificates(files)?;
    Ok((relay, events))
}

/// The certificates of the relay in this process. Where there are several realms, each listener's names addresses of its own realm alone,
/// and the one for all names none.
pub(super) fn relay_files(config: &Config, authority: &Authority) -> anyhow::Result<CertificateFiles> {
    let made = |file: &str, hosts: &[String]| {
        authority.identity(file, &subject(config, "relay", "relay", hosts), Use::Server).map(|f| (f.cert, f.key))
    };
    let (own, trust) = (made("relay", &hosts(config))?, authority.trust_file());
    if config.realms.is_empty() {
        return Ok(CertificateFiles { cert: own.0, key: own.1, trust, realms: BTreeMap::new() });
    }
    let (cert, key) = made("relay-any", &["localhost".to_owned()])?;
    let mut realms = BTreeMap::from([(config.realm.clone(), own)]);
    for realm in &config.realms {
        realms.insert(realm.name.clone(), made(&format!("{}{}", OF_REALMS[1], realm.name), &realm.hosts())?);
    }
    Ok(CertificateFiles { cert, key, trust, realms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Realm;
    use std::path::Path;
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    /// Names and addresses of the certificate in that file.
    fn hosts_of(file: &Path) -> Vec<String> {
        let chain = read_chain(file).unwrap();
        let (_, cert) = X509Certificate::from_der(&chain[0]).unwrap();
        let names = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
        let host = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(b) => <[u8; 4]>::try_from(*b).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            _ => None,
        };
        names.iter().filter_map(host).collect()
    }

    #[test]
    fn each_realms_certificate_names_addresses_of_that_realm_and_the_one_for_all_none() {
        let dir = tempfile::tempdir().unwrap();
        let south = Realm {
            name: RealmId::new("south").unwrap(),
            listen: "192.168.1.2:8443".parse().unwrap(),
            webrtc: None,
            quic: None,
            control: None,
            advertise: vec!["10.9.9.9".parse().unwrap()],
        };
        let mut config = Config { dir: dir.path().to_owned(), ..Config::default() };
        let authority = Authority::open_or_create(&config.dir, &config.realm).unwrap();
        let alone = relay_files(&config, &authority).unwrap();
        assert!(alone.realms.is_empty(), "a node of one realm has one certificate");
        assert_eq!(hosts_of(&alone.cert), ["127.0.0.1", "localhost"]);

        let name = south.name.clone();
        config.realms = vec![south];
        let files = relay_files(&config, &authority).unwrap();
        assert_eq!(hosts_of(&files.cert), ["localhost"]);
        assert_eq!(hosts_of(&files.realms[&config.realm].0), ["127.0.0.1", "localhost"]);
        assert_eq!(hosts_of(&files.realms[&name].0), ["10.9.9.9", "192.168.1.2", "localhost"]);
        assert_eq!(relay_files(&config, &authority).unwrap().realms, files.realms, "they stay while they fit");
    }
}
