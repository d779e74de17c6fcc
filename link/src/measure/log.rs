//! What came of a flow, packet by packet, at the end that receives it.

use super::Stamp;
use super::schedule::FlowSpec;

/// One packet or copy that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number.
    pub seq: u32,
    /// Whether a bit of it was turned.
    pub damaged: bool,
    /// DSCP × 4 + ECN as it came.
    pub tos: u8,
    /// When it was sent, by the sender's clock.
    pub sent: Stamp,
    /// When it came, by ours.
    pub arrived: Stamp,
}

/// Everything that came of one flow, in the order in which it came.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is sent.
    pub spec: FlowSpec,
    arrivals: Vec<Arrival>,
    most: usize,
    /// Arrivals beyond twice what is sent: not kept, and a reason to believe nothing of this flow.
    pub overflow: u64,
}

impl Log {
    /// An empty one.
    #[must_use]
    pub fn new(spec: FlowSpec) -> Self {
        let packets = spec.packets() as usize;
        Self { spec, arrivals: Vec::with_capacity(packets), most: 2 * packets + 1_000, overflow: 0 }
    }

    /// Takes what came.
    pub fn handle_arrival(&mut self, arrival: Arrival) {
        if self.arrivals.len() < self.most {
            self.arrivals.push(arrival);
        } else {
            self.overflow += 1;
        }
    }

    /// What came, in order.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// When the last one came.
    #[must_use]
    pub fn last_arrival(&self) -> Option<Stamp> {
        self.arrivals.last().map(|a| a.arrived)
    }
}
