//! Faults on demand: what a wrong device does. They exist so that the conformance test can be shown to find each of them, and for
//! nothing else.

/// One way to be wrong. Each names what the conformance test has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Fault {
    /// Obeys lower fences (HO-D-001).
    Fence,
    /// Forgets its fence with a restart (HO-D-001).
    Persist,
    /// Serves any gate (HO-D-002).
    Owner,
    /// Adopts the fence of a gate that it refused (HO-D-003).
    Raise,
    /// Has no watchdog (HO-D-005).
    Watchdog,
    /// Its watchdog is three times as slow as it says (HO-D-005).
    Slow,
    /// The watchdog's hold ends when the gate is back (HO-D-006).
    Latch,
    /// The watchdog stops the surgeon too (HO-D-007).
    Local,
    /// Obeys old selections (HO-D-008).
    Select,
    /// A repeated selection opens the latch (HO-D-008).
    Repeat,
    /// Actuates commands whoever is selected (HO-D-009).
    Anyone,
    /// Actuates a command again that it had (HO-D-010).
    Again,
    /// Any gate's selection ends the hardware override (HO-D-011).
    Override,
    /// Comes up unlatched (HO-D-012).
    Restart,
    /// Energy survives stops (HO-D-014).
    Energy,
    /// Does not know HOLD (HO-D-019).
    Hold,
    /// Holds, and does not say so (HO-D-021).
    Unsaid,
    /// Moves what is not granted (HO-S-016).
    Set,
    /// Applies energy that is not permitted (HO-N-002).
    Permit,
    /// Obeys who does not know the number of this run.
    Stranger,
    /// Checks no tag.
    Tag,
    /// Takes a recorded datagram a second time.
    Replay,
}
