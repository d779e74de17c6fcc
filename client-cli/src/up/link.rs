//! Measurements of the line to the relay in this process, as signaling asks for them.

use std::sync::Arc;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRefused};
use trocar_relay::link_test::Answering;
use trocar_signaling::LinkTests;

/// What answers them.
pub(super) struct Here {
    pub(super) answering: Arc<Answering>,
    /// The node's own realm: others are not measured.
    pub(super) realm: RealmId,
}

impl LinkTests for Here {
    fn grant(&self) -> Result<LinkTestGrant, LinkTestRefused> {
        self.answering.begin(&self.realm)
    }
}
