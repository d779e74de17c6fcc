//! Measurements of the line to relays, as signaling sees them: it lets network engineers begin one, and whatever answers it runs beside
//! the relay.

use crate::admission::Answer;
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::link_test::LinkTestGrant;

/// What answers measurements.
pub trait LinkTests: Send + Sync + 'static {
    /// Names of the relays that may be asked for; none where the only one is in this process.
    fn relays(&self) -> Vec<String>;

    /// Lets one begin, for somebody of that realm: at the relay of that name, or at the only one that answers.
    ///
    /// # Errors
    /// [`NoLinkTest`].
    fn begin(&self, relay: Option<String>, realm: RealmId) -> Answer<'_, Result<LinkTestGrant, NoLinkTest>>;
}

/// Why no measurement may begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLinkTest {
    /// There is no relay of that name.
    #[error("there is no relay {name:?}: {}", right(there))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// None was named.
    #[error("several relays answer measurements: name one of {}", .0.join(", "))]
    Several(Vec<String>),
    /// The relay lets none begin. Its name, where relays run apart.
    #[error("{}{why}", .relay.as_ref().map(|name| format!("relay {name}: ")).unwrap_or_default())]
    Refused {
        /// Which.
        relay: Option<String>,
        /// Why.
        why: AdmitError,
    },
}

/// Which names are right.
fn right(there: &[String]) -> String {
    if there.is_empty() {
        "this node's is in its own process and has no name, leave it out".to_owned()
    } else {
        format!("those here are {}", there.join(", "))
    }
}

impl NoLinkTest {
    /// The only relay, or those apart, do not know that name.
    pub(crate) fn unknown(name: &str, there: Vec<String>) -> Self {
        // It came from outside and is shown to people.
        Self::Unknown { name: name.chars().take(64).collect(), there }
    }
}
