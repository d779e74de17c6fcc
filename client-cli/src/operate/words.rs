//! What is said in JSON lines.

use serde_json::{Value, json};
use trocar_proto::handover::gate::{Alarms, Causes};
use trocar_proto::handover::message::{Mode, Status};
use trocar_proto::handover::station::Phase;
use trocar_proto::handover::types::{Colour, ExpertId, GrantedSet};

pub(super) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Observer => "observer",
        Phase::Offered => "offered",
        Phase::Accepted => "accepted",
        Phase::Control => "control",
    }
}

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Hold => "hold",
        Mode::Local => "local",
        Mode::Offered => "offered",
        Mode::Ready => "ready",
        Mode::Granting => "granting",
        Mode::Remote => "remote",
        Mode::Estop => "estop",
        Mode::Closed => "closed",
    }
}

/// The parts of a set.
pub(super) fn set(set: GrantedSet) -> Vec<&'static str> {
    let all = [("camera", set.camera), ("instruments", set.instruments), ("energy", set.energy)];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// Why motion is stopped; empty while it runs.
pub(super) fn causes(bits: u8) -> Vec<&'static str> {
    let all = [
        (Causes::WAITING, "waiting for the clutch"),
        (Causes::GAP, "nothing heard"),
        (Causes::PRESENCE, "presence"),
        (Causes::CLUTCH, "clutch open"),
        (Causes::FRAME, "picture too old"),
        (Causes::CAMERA, "camera moved"),
    ];
    all.into_iter().filter(|(c, _)| Causes(bits).has(*c)).map(|(_, name)| name).collect()
}

/// What local must know.
pub(super) fn alarms(bits: u16) -> Vec<&'static str> {
    let all = [
        (Alarms::LINK, "link"),
        (Alarms::FRAME, "picture"),
        (Alarms::STOPPED, "stopped too long"),
        (Alarms::SECOND_GATE, "second gate"),
        (Alarms::DEVICE, "device"),
        (Alarms::STORE, "store"),
        (Alarms::CONSENT, "consent"),
        (Alarms::REVOKED, "certificate revoked"),
        (Alarms::CONSOLE, "console"),
        (Alarms::ESTOP, "emergency stop"),
        (Alarms::OVERRIDE, "hardware override"),
        (Alarms::DISK, "disk"),
        (Alarms::LOST, "records lost"),
    ];
    all.into_iter().filter(|(a, _)| Alarms(bits).has(*a)).map(|(_, name)| name).collect()
}

pub(super) const fn colour(colour: Colour) -> &'static str {
    match colour {
        Colour::Unmeasured => "unmeasured",
        Colour::Green => "green",
        Colour::Amber => "amber",
        Colour::Red => "red",
    }
}

/// Nothing where it is not measured.
pub(super) fn figure(value: u32) -> Option<u32> {
    (value != u32::MAX).then_some(value)
}

/// A STATUS.
pub(super) fn status(s: &Status, me: ExpertId) -> Value {
    let f = s.figures;
    let c = s.colours;
    json!({
        "mode": mode(s.mode),
        "epoch": s.epoch.0,
        "mine": s.expert == Some(me),
        "set": set(s.set),
        "since_ms": s.since_ms,
        "stopped": causes(s.stopped),
        "alarms": alarms(s.alarms),
        "answers": s.answers.len(),
        "gates": {
            "loop_age": colour(c.loop_age),
            "jitter": colour(c.jitter),
            "loss": colour(c.loss),
            "frame_age": colour(c.frame_age),
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
        assert_eq!(causes(Causes::FRAME.0 | Causes::WAITING.0), ["waiting for the clutch", "picture too old"]);
        assert_eq!(causes(u8::MAX).len(), 6);
        assert_eq!(alarms(u16::MAX).len(), 13);
        assert_eq!((figure(u32::MAX), figure(0)), (None, Some(0)));
    }
}
