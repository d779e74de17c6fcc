//! Which acts are possible now, and why others are not. The register decides; this only tells beforehand what it will say.

use super::lines;
use crate::core::View;
use serde::{Deserialize, Serialize};
use trocar_proto::handover::gate::{Act, Alarms, Notice};
use trocar_proto::handover::message::{Mode, Reason};
use trocar_proto::handover::types::Colour;

/// The acts by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ActName {
    /// "I have control."
    Take,
    /// Nobody moves.
    Estop,
    /// "You have control", if you accept.
    Offer,
    /// "You have control."
    Confirm,
    /// The second confirmation, for amber.
    ConfirmAmber,
    /// Takes the offer back.
    Withdraw,
    /// Ends the latched stop.
    Reset,
    /// Hears no more ESTOP of one person.
    Mute,
    /// Withdraws the patient's consent. No act of the register: it is told that consent ended.
    WithdrawConsent,
    /// Ends the session.
    Close,
}

/// One act as it stands on the screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ActLine {
    pub(crate) act: ActName,
    pub(crate) label: &'static str,
    /// At the terminal.
    pub(crate) key: &'static str,
    /// Why not now.
    pub(crate) not: Option<&'static str>,
    /// What the state waits for.
    pub(crate) next: bool,
}

/// All, in the order of their importance. TAKE and ESTOP always stand first and are always pressed in earnest.
pub(super) fn acts(view: &View) -> Vec<ActLine> {
    let mode = view.mode;
    let line = |act, label, key, not: Option<&'static str>| ActLine { act, label, key, not, next: false };
    let mut out = vec![
        line(ActName::Take, "TAKE", "SPACE or T", take(mode)),
        line(ActName::Estop, "ESTOP", "E or Esc Esc", None),
        line(ActName::Offer, "OFFER", "O", offer(view)),
        line(ActName::Confirm, "CONFIRM", "C", confirm(view)),
        line(ActName::ConfirmAmber, "CONFIRM AMBER", "A", amber(view)),
        line(ActName::Withdraw, "WITHDRAW", "W", (!is_open(mode)).then_some("no offer is open")),
        line(ActName::Reset, "RESET", "R", (mode != Mode::Estop).then_some("no emergency stop is latched")),
        line(ActName::Mute, "MUTE", "M", mute(view)),
        line(ActName::WithdrawConsent, "END CONSENT", "N twice", end_consent(view)),
        line(ActName::Close, "CLOSE", "X, and X again", close(mode)),
    ];
    let next = next(view);
    out.iter_mut().for_each(|a| a.next = Some(a.act) == next && a.not.is_none());
    out
}

const fn is_open(mode: Mode) -> bool {
    matches!(mode, Mode::Offered | Mode::Ready | Mode::Granting)
}

const fn take(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Estop => Some("RESET the emergency stop first"),
        Mode::Closed => Some("the session is closed"),
        _ => None,
    }
}

fn offer(view: &View) -> Option<&'static str> {
    match view.mode {
        Mode::Local => {}
        Mode::Offered | Mode::Ready | Mode::Granting => return Some("an offer is open"),
        Mode::Closed => return Some("the session is closed"),
        _ => return Some("TAKE first"),
    }
    if view.alarms.has(Alarms::STORE) {
        return Some("remote is refused in this session");
    }
    if view.alarms.has(Alarms::MEANS) {
        return Some("a certificate, key or port cannot be used");
    }
    if view.alarms.has(Alarms::CONSENT) {
        return Some("consent is not active");
    }
    let anybody = lines::experts(view).iter().any(|e| e.not.is_none());
    (!anybody).then_some("no expert is connected")
}

fn confirm(view: &View) -> Option<&'static str> {
    if view.mode != Mode::Ready {
        return Some("no expert is ready");
    }
    match view.colours.overall() {
        Colour::Unmeasured => Some("link gates are being measured"),
        Colour::Red => Some("a link gate is red"),
        Colour::Green | Colour::Amber => None,
    }
}

fn amber(view: &View) -> Option<&'static str> {
    if view.mode != Mode::Ready || view.colours.overall() != Colour::Amber {
        return Some("only where a link gate is amber");
    }
    (!amber_was_told(view)).then_some("CONFIRM first")
}

/// HO-G-026: the first confirmation was answered with "amber".
fn amber_was_told(view: &View) -> bool {
    matches!(view.answered, Some((Act::Confirm | Act::ConfirmAmber, Err(Reason::LinkAmber))))
}

fn mute(view: &View) -> Option<&'static str> {
    let any = view.notices.iter().any(|(_, n)| matches!(n, Notice::Estop { .. }));
    (!any).then_some("nobody pressed STOP")
}

fn end_consent(view: &View) -> Option<&'static str> {
    if view.mode == Mode::Closed {
        return Some("the session is closed");
    }
    view.alarms.has(Alarms::CONSENT).then_some("consent is not active")
}

const fn close(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Hold | Mode::Local | Mode::Estop => None,
        Mode::Closed => Some("it is closed"),
        Mode::Offered | Mode::Ready | Mode::Granting => Some("WITHDRAW first"),
        Mode::Remote => Some("TAKE first"),
    }
}

fn next(view: &View) -> Option<ActName> {
    match view.mode {
        Mode::Hold => Some(ActName::Take),
        Mode::Estop => Some(ActName::Reset),
        Mode::Ready if amber(view).is_none() => Some(ActName::ConfirmAmber),
        Mode::Ready => Some(ActName::Confirm),
        Mode::Remote if view.alarms.0 != 0 && !view.stopped.is_some_and(lines::is_repositioning) => Some(ActName::Take),
        _ => None,
    }
}

/// In READY: who has to do what.
pub(super) fn whose_turn(view: &View) -> &'static str {
    match view.colours.overall() {
        Colour::Unmeasured => "The link is being measured.",
        Colour::Green => "The link is good: CONFIRM hands over, once the expert is aligned.",
        Colour::Amber if amber_was_told(view) => "The link is AMBER: CONFIRM AMBER (A) hands over all the same.",
        Colour::Amber => "The link is AMBER: CONFIRM, and then CONFIRM AMBER.",
        Colour::Red => "A link gate is RED: the offer ends.",
    }
}
