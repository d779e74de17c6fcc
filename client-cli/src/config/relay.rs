//! What carries media: one relay in this process (`[relay]`), or some that run apart (`[[relay]]`).

use super::Relay;
use anyhow::bail;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use trocar_proto::session::ids::RealmId;

/// The one in this process, where none run apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Section {
    here: Relay,
    apart: Vec<Apart>,
}

/// What a relay is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    /// Publishers send to it.
    Feeds,
    /// Viewers fetch from it.
    Legs,
}

/// A relay in a process of its own, `trocar-relay`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Apart {
    /// Its name in figures and logs.
    pub(crate) name: String,
    /// Where its admission listens, `https://HOST:PORT`.
    pub(crate) url: String,
    /// Who signed its certificate; the local authority where left out. A `crl.pem` beside it counts.
    pub(crate) ca: Option<PathBuf>,
    /// Signaling's certificate towards it, role `signaling`, PEM; made by the local authority where left out.
    pub(crate) cert: Option<PathBuf>,
    /// Key of `cert`.
    pub(crate) key: Option<PathBuf>,
    /// Realms that it is to serve; all that it has listeners for where left out.
    #[serde(default)]
    pub(crate) realms: Vec<RealmId>,
    /// `feeds`, `legs` or both.
    #[serde(default = "both")]
    pub(crate) takes: Vec<Task>,
    /// Where its control rendezvous is reached, where that is another address than it listens at.
    pub(crate) control: Option<SocketAddr>,
}

fn both() -> Vec<Task> {
    vec![Task::Feeds, Task::Legs]
}

impl Section {
    /// Relays that run apart; where there are any, none runs here.
    pub(crate) fn apart(&self) -> &[Apart] {
        &self.apart
    }

    /// What the types do not say.
    pub(super) fn check_apart(&self) -> anyhow::Result<()> {
        for (i, r) in self.apart.iter().enumerate() {
            let is_name = RealmId::new(r.name.as_str()).is_ok();
            if !is_name {
                bail!("relay.name = {:?}: 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-' are right", r.name);
            }
            if self.apart.iter().skip(i + 1).any(|other| other.name == r.name) {
                bail!("relay.name = {}: each relay has a name of its own", r.name);
            }
            if !url::Url::parse(&r.url).is_ok_and(|u| u.scheme() == "https" && u.host().is_some() && u.path() == "/") {
                bail!("relay.url = {}: https://HOST:PORT is right", r.url);
            }
            if r.cert.is_some() != r.key.is_some() {
                bail!("relay.cert and relay.key of {}: either both or neither", r.name);
            }
            if r.takes.is_empty() {
                bail!("relay.takes of {} is empty: \"feeds\", \"legs\" or both are right", r.name);
            }
        }
        for (task, what) in [(Task::Feeds, "feeds"), (Task::Legs, "legs")] {
            if !self.apart.is_empty() && !self.apart.iter().any(|r| r.takes.contains(&task)) {
                bail!("relay.takes: no relay takes {what}");
            }
        }
        Ok(())
    }
}

impl Deref for Section {
    type Target = Relay;

    fn deref(&self) -> &Relay {
        &self.here
    }
}

impl DerefMut for Section {
    fn deref_mut(&mut self) -> &mut Relay {
        &mut self.here
    }
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TableOrTables;

        impl<'de> Visitor<'de> for TableOrTables {
            type Value = Section;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("[relay] or [[relay]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Section, A::Error> {
                let here = Relay::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Section { here, apart: Vec::new() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Section, A::Error> {
                let apart = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(Section { here: Relay::default(), apart })
            }
        }

        from.deserialize_any(TableOrTables)
    }
}
