//! What the screen shows at one moment.

use std::time::Duration;
use trocar_proto::handover::message::Status;
use trocar_proto::handover::paths::{Figures, Protection};
use trocar_proto::handover::station::{Phase, Senses};
use trocar_proto::handover::types::GrantedSet;
use trocar_proto::units::Micros;

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) set: GrantedSet,
    /// The step of the operation that local declared.
    pub(super) step: String,
    pub(super) until: Micros,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathView {
    /// Something came by it lately.
    pub(super) live: bool,
    /// To the relay and back.
    pub(super) rtt: Option<Duration>,
    pub(super) figures: Figures,
}

/// All of it; made by the core, read by the screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The station's clock.
    pub(super) at: Micros,
    pub(super) gate: Option<String>,
    /// Each path that the command line asks for.
    pub(super) paths: Vec<PathView>,
    pub(super) protection: Protection,
    pub(super) phase: Phase,
    /// "You have control" may be said.
    pub(super) control: bool,
    /// It sends nothing, since no BEACON comes.
    pub(super) silent: bool,
    /// STATUS says REMOTE with this station.
    pub(super) mine: bool,
    /// None while control is unknown.
    pub(super) status: Option<Status>,
    pub(super) offer: Option<Offer>,
    pub(super) senses: Senses,
    /// The gate's newest refusal.
    pub(super) refused: Option<String>,
    pub(super) dropped: u64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            at: Micros(0),
            gate: None,
            paths: Vec::new(),
            protection: Protection::Single,
            phase: Phase::Observer,
            control: false,
            silent: false,
            mine: false,
            status: None,
            offer: None,
            senses: Senses::default(),
            refused: None,
            dropped: 0,
        }
    }
}
