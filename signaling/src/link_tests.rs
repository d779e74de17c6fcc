//! Measurements of the line to this node, as signaling sees them: it lets network engineers begin one, and whatever answers it runs
//! beside.

use trocar_proto::session::link_test::LinkTestGrant;

/// What answers measurements.
pub trait LinkTests: Send + Sync + 'static {
    /// Lets one begin. Quick and not blocking.
    ///
    /// # Errors
    /// [`LinkTestRefused`].
    fn grant(&self) -> Result<LinkTestGrant, LinkTestRefused>;
}

/// Why no measurement may begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkTestRefused {
    /// An expert operates, or a gate holds: a measurement fills the line.
    #[error(
        "{0}: a measurement fills the line. Measure before or after; link_test.while_operating in the node's configuration allows it all the same"
    )]
    Operated(String),
    /// One runs.
    #[error("another measurement runs: this node takes one at a time")]
    Busy,
    /// It cannot be had now.
    #[error("{0}")]
    Failed(String),
}
