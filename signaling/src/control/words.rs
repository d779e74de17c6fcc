//! STATUS in words, and people's words as the gate takes them.

use trocar_proto::handover::gate::{Alarms, Causes};
use trocar_proto::handover::message::{Short, Status};
use trocar_proto::handover::types::{Colour, ExpertId};
use trocar_proto::session::event::{ControlInfo, ControlSet};
use trocar_proto::session::ids::{CertHash, ParticipantId};

/// Bytes of a reason, of a person's name.
const SHORT: usize = 128;

/// STATUS as it is told to browsers; `answers` are their probes, and whose certificate the expert's is, the caller knows.
pub(super) fn control_info(status: &Status, participant: Option<ParticipantId>, answers: &[u64]) -> ControlInfo {
    let f = &status.figures;
    let measured = |n: u32| (n != u32::MAX).then_some(n);
    ControlInfo {
        mode: status.mode.name().to_owned(),
        epoch: status.epoch.0,
        participant,
        expert: status.expert.map(|ExpertId(hash)| CertHash(hash).to_string()),
        set: ControlSet { camera: status.set.camera, instruments: status.set.instruments, energy: status.set.energy },
        since_ms: status.since_ms,
        stopped: Causes(status.stopped).words().map(ToOwned::to_owned).collect(),
        alarms: Alarms(status.alarms).words().map(ToOwned::to_owned).collect(),
        colours: status.colours.all().map(|c| Colour::name(c).to_owned()),
        figures: [f.loop_p50, f.loop_p95, f.jitter_p95, f.loss_ppm, f.frame_age].map(measured),
        answers: answers.iter().map(|n| format!("{n:016x}")).collect(),
        paths: status.paths.name().to_owned(),
        status_age_ms: status.timers.status_age / 1_000,
    }
}

/// A participant as local reads it: the shown name, and the id, by which a sender is muted.
pub(super) fn person(name: &str, id: &ParticipantId) -> Short {
    let id = format!(" ({id})");
    short(&format!("{}{id}", cut(name, SHORT.saturating_sub(id.len()))))
}

/// A request's reason with who asks: the gate knows the sender as signaling only.
pub(super) fn request_reason(person: &Short, reason: &Short) -> Short {
    let text = if reason.as_str().is_empty() { person.to_string() } else { format!("{person}: {reason}") };
    short(&text)
}

/// A request's reason, where it may be passed on.
pub(super) fn checked_reason(text: &str) -> Option<Short> {
    let text = text.trim();
    let is_clean = !text.chars().any(char::is_control);
    Short::new(text).ok().filter(|_| is_clean)
}

/// An ESTOP's reason: whatever can be used of it, for no slip of the keyboard may hold a stop up.
pub(super) fn cleaned_reason(text: &str) -> Short {
    let text: String = text.chars().take(SHORT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    short(text.trim())
}

fn short(text: &str) -> Short {
    // What is cut to the bound fits.
    Short::new(cut(text, SHORT)).unwrap_or_default()
}

/// As much of the text as fits into so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::{Figures, Mode};
    use trocar_proto::handover::types::{Colours, Epoch, GrantedSet};

    #[test]
    fn a_status_is_told_in_words_and_figures_that_were_not_measured_are_none() {
        let status = Status {
            epoch: Epoch(7),
            mode: Mode::Remote,
            expert: Some(ExpertId([0xab; 32])),
            set: GrantedSet::ENERGY,
            since_ms: 1_500,
            stopped: Causes::WAITING.0 | Causes::FRAME.0,
            alarms: Alarms::CONSENT.0 | Alarms::ESTOP.0,
            colours: Colours { jitter: Colour::Amber, ..Colours::GREEN },
            figures: Figures { loop_p50: 31_000, ..Figures::default() },
            answers: Vec::new(),
            paths: trocar_proto::handover::paths::Protection::default(),
            timers: trocar_proto::handover::message::Timers::default(),
        };
        let info = control_info(&status, ParticipantId::new("p-1").ok(), &[1, u64::MAX]);
        assert_eq!((info.mode.as_str(), info.epoch, info.status_age_ms), ("remote", 7, 500));
        assert_eq!(info.expert, Some(CertHash([0xab; 32]).to_string()));
        assert_eq!(info.set, ControlSet { camera: false, instruments: true, energy: true });
        assert_eq!(info.stopped, ["waiting for the re-clutch", "picture too old"]);
        assert_eq!(info.alarms, ["consent not active", "stop pressed on the network"]);
        assert_eq!(info.colours.join(" "), "green amber green green");
        assert_eq!(info.figures, [Some(31_000), None, None, None, None]);
        assert_eq!(info.answers, ["0000000000000001", "ffffffffffffffff"]);
    }

    #[test]
    fn names_and_reasons_are_cut_between_characters_and_an_id_never_is() {
        let id = ParticipantId::new("p-123").unwrap();
        assert_eq!(person("Ada", &id).as_str(), "Ada (p-123)");
        let long = person(&"林".repeat(64), &id);
        assert!(long.as_str().len() <= SHORT && long.as_str().ends_with("林 (p-123)"), "{long}");
        let reason = request_reason(&long, &Short::new("x".repeat(128)).unwrap());
        assert!(reason.as_str().len() <= SHORT);
        assert_eq!(request_reason(&person("Ada", &id), &Short::default()).as_str(), "Ada (p-123)");
    }

    #[test]
    fn a_request_with_a_bad_reason_is_refused_and_a_stop_never_is() {
        assert!(checked_reason(&"x".repeat(129)).is_none() && checked_reason("a\nb").is_none());
        assert_eq!(checked_reason(" retract, please ").unwrap().as_str(), "retract, please");
        assert_eq!(cleaned_reason("a\u{1b}[2Jb\n").as_str(), "a [2Jb");
        assert_eq!(cleaned_reason(&"林".repeat(500)).as_str().len(), 126);
    }
}
