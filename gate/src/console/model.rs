//! What every console shows, worked out once from the core's [`View`], in words that need no colour.

mod acts;
mod lines;

#[cfg(test)]
mod tests;

pub(crate) use acts::{ActLine, ActName};
pub(crate) use lines::{Alarm, Expert, GateLine, Line, News};

use super::words;
use crate::core::View;
use serde::Serialize;
use trocar_proto::handover::gate::Causes;
use trocar_proto::handover::message::Mode;
use trocar_proto::units::Micros;

/// Who is in control, as far as a person has to know at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// The surgeon at the patient's side.
    Local,
    /// The expert.
    Remote,
    /// Nobody: position held.
    Nobody,
    /// Nobody: latched.
    Estop,
    /// Nobody: the session is over.
    Closed,
    /// The core said nothing for too long: what stands on the screen may be wrong.
    Unknown,
}

/// What the console knows that the core does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Around {
    /// Hardware inputs: name, and why it cannot be used.
    pub(crate) inputs: super::Inputs,
    /// Requests to the loopback page that were refused.
    pub(crate) refused: u64,
}

/// Everything on the screen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Model {
    /// Which state this is: goes with acts, so that none counts for a state that nobody saw.
    pub(crate) stamp: String,
    pub(crate) control: Control,
    /// The one large word.
    pub(crate) word: &'static str,
    pub(crate) headline: String,
    /// What is going on, and whose turn it is.
    pub(crate) detail: String,
    /// The register's state by its name.
    pub(crate) state: &'static str,
    pub(crate) epoch: u64,
    /// How long the state has lasted.
    pub(crate) since: String,
    /// Addressee or holder.
    pub(crate) who: Option<String>,
    pub(crate) set: Option<String>,
    pub(crate) step: Option<String>,
    /// What runs out.
    pub(crate) countdown: Option<Countdown>,
    /// In REMOTE.
    pub(crate) motion: Option<Motion>,
    pub(crate) gates: Vec<GateLine>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) device: Line,
    pub(crate) inputs: Vec<Line>,
    pub(crate) experts: Vec<Expert>,
    /// Newest first.
    pub(crate) news: Vec<News>,
    pub(crate) acts: Vec<ActLine>,
    /// The answer to the newest act.
    pub(crate) answer: Option<Line>,
    pub(crate) counters: Vec<(String, u64)>,
    /// Timers and thresholds, as configured.
    pub(crate) limits: Vec<(&'static str, String)>,
}

/// A time that runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Countdown {
    /// "offer ends in 12.3 s".
    pub(crate) text: String,
    /// Left, milliseconds.
    pub(crate) left_ms: u64,
    /// Of how many.
    pub(crate) of_ms: u64,
}

/// Whether the instrument can move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Motion {
    pub(crate) runs: bool,
    /// "MOTION RUNS", "MOTION STOPPED: presence released".
    pub(crate) text: String,
}

impl Model {
    /// At this moment of the gate's clock.
    pub(crate) fn new(view: &View, around: &Around, now: Micros) -> Self {
        let silent = now.since(view.at);
        let unknown = silent > view.config.status_age; // HO-V-002
        let who = view.expert.as_ref().map(words::name);
        let addressed = !matches!(view.mode, Mode::Hold | Mode::Local | Mode::Estop | Mode::Closed);
        let (control, word) = if unknown { (Control::Unknown, "UNKNOWN") } else { control(view.mode) };
        let mut out = Self {
            stamp: format!("{:?}-{}-{}", view.mode, view.epoch.0, view.since.0),
            control,
            word,
            headline: String::new(),
            detail: String::new(),
            state: state(view.mode),
            epoch: view.epoch.0,
            since: words::lasting(now.since(view.since)),
            set: addressed.then(|| view.set.words()),
            step: Some(words::clean(view.step.as_str())).filter(|s| addressed && !s.is_empty()),
            countdown: countdown(view, now),
            motion: motion(view),
            gates: lines::gates(view, unknown),
            alarms: lines::alarms(view),
            device: lines::device(view, now),
            inputs: lines::inputs(view, around),
            experts: lines::experts(view),
            news: lines::news(view, now),
            acts: acts::acts(view),
            answer: lines::answer(view),
            counters: lines::counters(view, around),
            limits: lines::limits(&view.config),
            who: who.filter(|_| addressed),
        };
        out.headline = if unknown { UNKNOWN.to_owned() } else { out.headline_of(view.mode) };
        out.detail = if unknown { silence(view, silent) } else { out.detail_of(view) };
        if unknown {
            // Nothing that is old may look alive.
            (out.motion, out.countdown) = (None, None);
        }
        out
    }

    fn headline_of(&self, mode: Mode) -> String {
        let who = self.who.as_deref().unwrap_or("an expert");
        match mode {
            Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting => "CONTROL: LOCAL - you operate".to_owned(),
            Mode::Remote => format!("CONTROL: REMOTE - {who} holds {}", self.set.as_deref().unwrap_or("nothing")),
            Mode::Hold => "CONTROL: NOBODY - position held, energy off".to_owned(),
            Mode::Estop => "CONTROL: NOBODY - EMERGENCY STOP, latched".to_owned(),
            Mode::Closed => "CONTROL: NOBODY - the session is closed".to_owned(),
        }
    }

    fn detail_of(&self, view: &View) -> String {
        let who = self.who.as_deref().unwrap_or("an expert");
        let set = self.set.as_deref().unwrap_or("nothing");
        match view.mode {
            Mode::Local => "OFFER hands over, step by step.".to_owned(),
            Mode::Offered => format!("OFFERED to {who}: {set}. Waits for the expert's \"I have control\"."),
            Mode::Ready => format!("{who} accepted {set}. {}", acts::whose_turn(view)),
            Mode::Granting => format!("CONFIRMED: the grant to {who} is on its way to the disk."),
            Mode::Remote => "TAKE gives control back to you at once.".to_owned(),
            Mode::Hold => "TAKE gives control to you.".to_owned(),
            Mode::Estop => "RESET ends the stop and leads to HOLD; then TAKE.".to_owned(),
            Mode::Closed => "Nothing can be taken or given any more.".to_owned(),
        }
    }
}

const UNKNOWN: &str = "CONTROL: UNKNOWN - the gate does not answer";

fn silence(view: &View, silent: u64) -> String {
    let last = format!("It last said {}", state(view.mode));
    let ago =
        if view.at == Micros(0) { "nothing yet".to_owned() } else { format!("{last}, {} ago", words::lasting(silent)) };
    format!("Hands off. Use the device's hardware override. {ago}.")
}

const fn control(mode: Mode) -> (Control, &'static str) {
    match mode {
        Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting => (Control::Local, "LOCAL"),
        Mode::Remote => (Control::Remote, "REMOTE"),
        Mode::Hold => (Control::Nobody, "NOBODY"),
        Mode::Estop => (Control::Estop, "E-STOP"),
        Mode::Closed => (Control::Closed, "CLOSED"),
    }
}

const fn state(mode: Mode) -> &'static str {
    match mode {
        Mode::Hold => "HOLD",
        Mode::Local => "LOCAL",
        Mode::Offered => "OFFERED",
        Mode::Ready => "READY",
        Mode::Granting => "GRANTING",
        Mode::Remote => "REMOTE",
        Mode::Estop => "ESTOP",
        Mode::Closed => "CLOSED",
    }
}

fn countdown(view: &View, now: Micros) -> Option<Countdown> {
    let left = view.until?.since(now);
    let (what, of) = match view.mode {
        Mode::Offered => ("Offer ends in", view.config.offer_time),
        Mode::Ready => ("Time to CONFIRM", view.config.ready_time),
        Mode::Granting => ("Grant ends in", view.config.grant_time),
        _ => return None,
    };
    let text = format!("{what}: {}.{} s", left / 1_000_000, left % 1_000_000 / 100_000);
    Some(Countdown { text, left_ms: left / 1_000, of_ms: of / 1_000 })
}

fn motion(view: &View) -> Option<Motion> {
    if view.mode != Mode::Remote {
        return None;
    }
    let causes = view.stopped.filter(|c| *c != Causes::default());
    Some(match causes {
        None => Motion { runs: true, text: "MOTION RUNS".to_owned() },
        Some(causes) => Motion { runs: false, text: format!("MOTION STOPPED: {}", words::causes(causes).join(", ")) },
    })
}
