//! Measurements of the line to this node, as signaling sees them: it lets network engineers begin one, and whatever answers it runs
//! beside.

use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRefused};

/// What answers measurements.
pub trait LinkTests: Send + Sync + 'static {
    /// Lets one begin. Quick and not blocking.
    ///
    /// # Errors
    /// [`LinkTestRefused`].
    fn grant(&self) -> Result<LinkTestGrant, LinkTestRefused>;
}
