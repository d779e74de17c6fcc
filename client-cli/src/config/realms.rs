//! `[[realms]]`: listeners for people of other hospitals' networks. What they may do, `[[realm_policy]]` says.

use super::{Config, check_advertised};
use anyhow::bail;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use trocar_proto::session::ids::RealmId;
use trocar_signaling::RealmVerb;

/// Listeners in another hospital's network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Realm {
    /// Name of that network.
    pub(crate) name: RealmId,
    /// HTTPS address of page and API there.
    pub(crate) listen: SocketAddr,
    /// Address for WebRTC there, of the relay in this process; left out: a free port at the address of `listen`.
    pub(crate) webrtc: Option<SocketAddr>,
    /// UDP address for QUIC there; the same.
    pub(crate) quic: Option<SocketAddr>,
    /// UDP address where stations of that realm come to the control rendezvous; the same.
    pub(crate) control: Option<SocketAddr>,
    /// Addresses that clients in that network reach this node at; the bound ones where left out.
    #[serde(default)]
    pub(crate) advertise: Vec<IpAddr>,
}

impl Realm {
    /// Address for WebRTC.
    pub(crate) fn webrtc(&self) -> SocketAddr {
        self.webrtc.unwrap_or_else(|| self.any_port())
    }

    /// Address for QUIC.
    pub(crate) fn quic(&self) -> SocketAddr {
        self.quic.unwrap_or_else(|| self.any_port())
    }

    /// Address of the control rendezvous.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control.unwrap_or_else(|| self.any_port())
    }

    fn any_port(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), 0)
    }

    /// Names and addresses that its servers are reached at; none of any other realm's.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let mut hosts = vec!["localhost".to_owned()];
        let all = self.listeners().map(|(_, at)| at.ip());
        hosts.extend(all.into_iter().chain(self.advertise.iter().copied()).map(|ip| ip.to_string()));
        hosts.sort();
        hosts.dedup();
        hosts
    }

    fn listeners(&self) -> [(&'static str, SocketAddr); 4] {
        [("listen", self.listen), ("webrtc", self.webrtc()), ("quic", self.quic()), ("control", self.control())]
    }
}

/// What the types do not say; signaling looks at names and policies. Whoever reaches a listener is of its realm: so none is on a wildcard
/// address, and no address is of two realms.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let is_apart = !config.relay.apart().is_empty();
    if config.realms.is_empty() {
        return Ok(());
    }
    let mut owners: BTreeMap<IpAddr, &RealmId> = BTreeMap::new();
    for (realm, key, at) in listeners(config) {
        if at.ip().is_unspecified() {
            bail!(
                "{key} = {at}: with [[realms]] each listener is on an address of its realm's network, none on a wildcard one"
            );
        }
        let owner = *owners.entry(at.ip().to_canonical()).or_insert(realm);
        if owner != realm {
            bail!("{key} = {at}: the address is of realm {owner} already; each realm has addresses of its own");
        }
    }
    for realm in &config.realms {
        let name = &realm.name;
        if is_apart && (realm.webrtc.is_some() || realm.quic.is_some() || realm.control.is_some()) {
            bail!(
                "realms.webrtc, quic and control of {name}: relays apart have listeners of their own, leave them out"
            );
        }
        check_advertised(&format!("realms.advertise of {name}"), &realm.advertise)?;
    }
    if let Some(p) = config.realm_policy.iter().find(|p| is_apart && p.verbs.contains(&RealmVerb::Operate)) {
        bail!(
            "realm_policy.verbs from {}: stations of other realms come to the relay in this process alone, leave out operate",
            p.from
        );
    }
    Ok(())
}

/// Realm, key and address of all listeners that people come to.
fn listeners(config: &Config) -> Vec<(&RealmId, String, SocketAddr)> {
    let own = |key: &str, at| (&config.realm, key.to_owned(), at);
    let mut all = vec![own("signaling.listen", config.signaling.listen)];
    if config.relay.apart().is_empty() {
        let r = &config.relay;
        all.extend([own("relay.webrtc", r.webrtc), own("relay.quic", r.quic), own("relay.control", r.control)]);
    }
    for realm in &config.realms {
        let of_realm = |(key, at)| (&realm.name, format!("realms.{key} of {}", realm.name), at);
        all.extend(realm.listeners().map(of_realm));
    }
    all
}
