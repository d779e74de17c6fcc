//! What is said in JSON lines.

use super::view::PathView;
use serde_json::{Value, json};
use trocar_proto::handover::gate::{Alarms, Causes};
use trocar_proto::handover::message::Status;
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::station::Phase;
use trocar_proto::handover::types::{ExpertId, GrantedSet};

pub(super) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Observer => "observer",
        Phase::Offered => "offered",
        Phase::Accepted => "accepted",
        Phase::Control => "control",
    }
}

/// The parts of a set.
pub(super) fn set(set: GrantedSet) -> Vec<&'static str> {
    set.parts().collect()
}

/// Why motion is stopped; empty while it runs.
pub(super) fn causes(bits: u8) -> Vec<&'static str> {
    Causes(bits).words().collect()
}

/// What local must know.
pub(super) fn alarms(bits: u16) -> Vec<&'static str> {
    Alarms(bits).words().collect()
}

/// Nothing where it is not measured.
pub(super) fn figure(value: u32) -> Option<u32> {
    (value != u32::MAX).then_some(value)
}

/// A STATUS.
/// What each path brings and whether one could be lost.
pub(super) fn paths(paths: &[PathView], protection: Protection) -> Value {
    let each = |path: &PathView| {
        json!({
            "live": path.live,
            "rtt_us": path.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            "first": path.figures.first,
            "copies": path.figures.copies,
            "lost": path.figures.lost,
        })
    };
    json!({ "protection": protection.name(), "paths": paths.iter().map(each).collect::<Vec<_>>() })
}

pub(super) fn status(s: &Status, me: ExpertId) -> Value {
    let f = s.figures;
    let c = s.colours;
    json!({
        "mode": s.mode.name(),
        "epoch": s.epoch.0,
        "mine": s.expert == Some(me),
        "set": set(s.set),
        "since_ms": s.since_ms,
        "stopped": causes(s.stopped),
        "alarms": alarms(s.alarms),
        "answers": s.answers.len(),
        "gates": {
            "loop_age": c.loop_age.name(),
            "jitter": c.jitter.name(),
            "loss": c.loss.name(),
            "frame_age": c.frame_age.name(),
        },
        "loop_p50_us": figure(f.loop_p50),
        "loop_p95_us": figure(f.loop_p95),
        "jitter_p95_us": figure(f.jitter_p95),
        "loss_ppm": figure(f.loss_ppm),
        "frame_age_us": figure(f.frame_age),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_causes_are_named_each_by_itself() {
        assert_eq!(set(GrantedSet::ENERGY), ["instruments", "energy"]);
        assert!(set(GrantedSet::default()).is_empty() && causes(0).is_empty() && alarms(0).is_empty());
        assert_eq!(causes(Causes::FRAME.0 | Causes::WAITING.0), ["waiting for the re-clutch", "picture too old"]);
        assert_eq!(causes(u8::MAX).len(), 6);
        assert_eq!(alarms(u16::MAX).len(), 15);
        assert_eq!((figure(u32::MAX), figure(0)), (None, Some(0)));
    }
}
