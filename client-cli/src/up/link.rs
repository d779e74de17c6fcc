//! Measurements of the line to the relay in this process, as signaling asks for them.

use std::sync::Arc;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::link_test::LinkTestGrant;
use trocar_relay::link_test::Answering;
use trocar_signaling::{Answer, LinkTests, NoLinkTest};

/// What answers them.
pub(super) struct Here {
    pub(super) answering: Arc<Answering>,
    /// The node's own realm: the listeners of others are not measured.
    pub(super) realm: RealmId,
}

impl LinkTests for Here {
    fn relays(&self) -> Vec<String> {
        Vec::new()
    }

    fn begin(&self, relay: Option<String>, _: RealmId) -> Answer<'_, Result<LinkTestGrant, NoLinkTest>> {
        let begun = match relay {
            Some(name) => Err(NoLinkTest::Unknown { name, there: Vec::new() }),
            None => self.answering.begin(&self.realm).map_err(|e| NoLinkTest::Refused { relay: None, why: e.into() }),
        };
        Box::pin(std::future::ready(begun))
    }
}
