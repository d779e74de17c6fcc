//! People of other hospitals' networks: by which listener they come, and what they may do in a session of this node. Nothing, unless the
//! configuration says so.
//!
//! A participant's realm is the one of the listener that its join came by, and stays it: whatever shows its token by another realm's
//! listener is refused, so that nobody is told addresses of a network that it is not in. What may be done across realms is cut out of
//! the role's row where tokens are made, at the join and at every refresh, and again wherever one is shown.

use crate::app::{App, wall_clock};
use crate::config::{ConfigError, TlsIdentity};
use crate::error::SessionError;
use crate::ice;
use crate::problem::{Refusal, TOKEN_REALM};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use trocar_proto::session::api::IceServer;
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::{ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::{Grade, Role, Verb};

/// Realms beside the node's own, at most.
const MAX_REALMS: usize = 16;

/// A listener for people of another realm.
#[derive(Clone)]
pub struct RealmDoor {
    /// The realm.
    pub realm: RealmId,
    /// Address of its TLS listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Addresses that clients of this realm reach it at, where they are others than the bound one.
    pub advertise: Vec<IpAddr>,
    /// Its certificate: one that names addresses of this realm alone.
    pub tls: TlsIdentity,
}

/// What people of one realm may do in sessions of another. What stands nowhere is denied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmPolicy {
    /// Whose people.
    pub from: RealmId,
    /// In whose sessions: the node's own realm.
    pub to: RealmId,
    /// What of that which their role lets them do anyway.
    pub verbs: Vec<RealmVerb>,
}

/// What can be let across realms. Inviting, managing and measuring cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RealmVerb {
    /// See and hear.
    View,
    /// Publish.
    Publish,
    /// Hold what the gate gives; without it the grade is observe.
    Operate,
}

/// Whose network a request came from: the realm of the listener. Put into each request by the accept loop.
#[derive(Debug, Clone)]
pub(crate) struct CameBy(pub(crate) Arc<RealmId>);

/// The policies of this node.
#[derive(Debug, Clone)]
pub(crate) struct Realms {
    own: RealmId,
    policies: Vec<RealmPolicy>,
}

/// Checks what the types do not.
pub(crate) fn check(own: &RealmId, doors: &[RealmDoor], policies: &[RealmPolicy]) -> Result<(), ConfigError> {
    let bad = |field, expected| Err(ConfigError { field, expected });
    if doors.len() > MAX_REALMS {
        return bad("realms", "at most 16");
    }
    let mut others = BTreeSet::new();
    if !doors.iter().all(|d| &d.realm != own && others.insert(&d.realm)) {
        return bad("realms.name", "another realm than the node's own, each once");
    }
    for policy in policies {
        // Whoever has one already is taken out.
        if &policy.to != own || !others.remove(&policy.from) {
            return bad("realm_policy", "from a realm that [[realms]] has, to the node's own, each pair once");
        }
        if policy.verbs.is_empty() {
            return bad(
                "realm_policy.verbs",
                "one or more of view, publish and operate; nothing is allowed without a policy",
            );
        }
    }
    Ok(())
}

impl Realms {
    pub(crate) fn new(own: RealmId, policies: Vec<RealmPolicy>) -> Self {
        Self { own, policies }
    }

    /// The node's own.
    pub(crate) const fn own(&self) -> &RealmId {
        &self.own
    }

    /// The realm that a request came by; the node's own where no listener of another brought it.
    pub(crate) fn came<'a>(&'a self, by: Option<&'a CameBy>) -> &'a RealmId {
        by.map_or(&self.own, |by| &*by.0)
    }

    /// The same, where it is not the node's own.
    pub(crate) fn foreign<'a>(&self, by: Option<&'a CameBy>) -> Option<&'a RealmId> {
        by.map(|by| &*by.0).filter(|realm| **realm != self.own)
    }

    fn policy(&self, realm: &RealmId) -> &[RealmVerb] {
        self.policies.iter().find(|p| &p.from == realm && p.to == self.own).map_or(&[], |p| &p.verbs)
    }

    /// What of `role` somebody of that realm may do here.
    pub(crate) fn verbs(&self, realm: &RealmId, role: Role) -> Vec<Verb> {
        if realm == &self.own {
            return role.verbs().to_vec();
        }
        let allowed = self.policy(realm);
        let crosses = |verb: &Verb| match verb {
            Verb::View => allowed.contains(&RealmVerb::View),
            Verb::Publish => allowed.contains(&RealmVerb::Publish),
            Verb::Invite | Verb::Manage | Verb::Measure => false,
        };
        role.verbs().iter().copied().filter(crosses).collect()
    }

    /// Takes from a token what its bearer's realm may not do here.
    pub(crate) fn narrow(&self, claims: &mut Claims) {
        let verbs = self.verbs(&claims.realm, claims.role);
        claims.verbs.retain(|v| verbs.contains(v));
        if !self.may_operate(&claims.realm) {
            claims.grade = Grade::Observe;
        }
    }

    /// Whether people of that realm may hold what the gate gives.
    pub(crate) fn may_operate(&self, realm: &RealmId) -> bool {
        realm == &self.own || self.policy(realm).contains(&RealmVerb::Operate)
    }
}

impl App {
    /// Whether somebody of that realm may do anything in the role. That it may not is recorded with the realm.
    pub(crate) fn admit_realm(&self, session: &SessionId, realm: &RealmId, role: Role) -> Result<(), SessionError> {
        if !self.realms.verbs(realm, role).is_empty() {
            return Ok(());
        }
        let (from, to) = (realm.clone(), self.realms.own.clone());
        let said = format!("no realm_policy from {from} to {to} lets the role {} do anything", role.name());
        self.record_denial("realm-denied", &format!("{said} in session {session}"));
        Err(SessionError::RealmDenied { from, to, role })
    }

    /// What is claimed, where the token came by the listener of its bearer's realm: less what the policies do not allow now.
    pub(crate) fn within_realm(&self, mut claims: Claims, by: Option<&CameBy>) -> Result<Claims, Refusal> {
        let came = self.realms.came(by);
        if &claims.realm != came {
            let detail = format!("the token is of realm {}, and this address is for realm {came}", claims.realm);
            return Err(Refusal::new(TOKEN_REALM, detail).field("realm"));
        }
        self.realms.narrow(&mut claims);
        if claims.verbs.is_empty() {
            self.admit_realm(&claims.session, &claims.realm, claims.role)?;
        }
        Ok(claims)
    }

    /// STUN and TURN servers for somebody of that realm: those that are configured are in the node's own network.
    pub(crate) fn ice_servers(&self, realm: &RealmId, who: &ParticipantId) -> Vec<IceServer> {
        if realm == &self.realms.own { ice::servers(&self.ice, wall_clock(), who) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests;
