//! The lists on the screen: link gates, alarms, device, experts, news, counters, limits.

use super::super::words;
use super::Around;
use crate::core::{Connected, View};
use serde::Serialize;
use std::collections::BTreeSet;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::gate::{Act, Causes, DeviceReport, Notice};
use trocar_proto::handover::message::{Mode, Short};
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::types::{Colour, ExpertId, GrantedSet, Selection};
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::Micros;

/// One thing that is well or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) good: bool,
    pub(crate) text: String,
}

/// One link gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GateLine {
    pub(crate) name: &'static str,
    /// "GREEN", "AMBER", "RED", "measuring".
    pub(crate) word: &'static str,
    /// The same without letters or colour.
    pub(crate) sign: &'static str,
    pub(crate) figure: String,
    pub(crate) limit: String,
}

/// What local must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Alarm {
    pub(crate) title: &'static str,
    pub(crate) meaning: &'static str,
}

/// Somebody who could be offered control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Expert {
    /// The certificate's hash, hexadecimal: what an offer names.
    pub(crate) id: String,
    #[serde(skip)]
    pub(crate) expert: ExpertId,
    pub(crate) name: String,
    /// The certificate's hospital network.
    pub(crate) realm: String,
    /// The highest grade of the token, in words.
    pub(crate) grade: &'static str,
    /// Sets that can be offered, as bits, and in words.
    pub(crate) sets: Vec<(u8, String)>,
    /// Why nothing can be offered to this one.
    pub(crate) not: Option<&'static str>,
}

/// A request, a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct News {
    pub(crate) ago: String,
    pub(crate) text: String,
    /// Whose ESTOP it was: can be muted.
    pub(crate) mute: Option<String>,
    #[serde(skip)]
    pub(crate) person: Option<Short>,
}

/// The same figures as on every screen; none where they are not of now.
pub(super) fn gates(view: &View, unknown: bool) -> Vec<GateLine> {
    let (c, f, cfg) = (view.colours, view.figures, &view.config);
    let measures = matches!(view.mode, Mode::Ready | Mode::Granting | Mode::Remote);
    let line = |name, colour: Colour, figure: String, limit| {
        let (word, sign) = match colour {
            _ if unknown => ("OLD", "?"),
            Colour::Unmeasured if !measures => ("idle", "-"),
            colour => words::colour(colour),
        };
        GateLine { name, word, sign, figure: if unknown { "-".to_owned() } else { figure }, limit }
    };
    let ms = words::exactly;
    let loop_figure = match f.loop_p95 {
        u32::MAX => "-".to_owned(),
        p95 => format!("{} (p50 {})", words::ms(p95), words::ms(f.loop_p50)),
    };
    let mut lines = vec![
        line(
            "Loop age p95",
            c.loop_age,
            loop_figure,
            format!("ok to {}, red over {}", ms(cfg.grant_green), ms(cfg.grant_amber)),
        ),
        line("Jitter p95", c.jitter, words::ms(f.jitter_p95), format!("ok to {}", ms(cfg.jitter_green))),
        line(
            "Loss",
            c.loss,
            words::percent(f.loss_ppm),
            format!("ok to {}, red over {}", words::threshold(cfg.loss_green_ppm), words::threshold(cfg.loss_red_ppm)),
        ),
        line("Frame age", c.frame_age, words::ms(f.frame_age), format!("stops over {}", ms(cfg.frame_stop))),
    ];
    lines.extend(paths(view.paths, unknown));
    lines
}

/// Nothing where there was never more than one path.
fn paths(protection: Protection, unknown: bool) -> Option<GateLine> {
    let (word, sign, figure) = match protection {
        Protection::Single => return None,
        _ if unknown => ("OLD", "?", "-"),
        Protection::Protected => ("PROTECTED", "ok", "2"),
        Protection::Unprotected => ("UNPROTECTED", "X", "1"),
    };
    Some(GateLine {
        name: "Paths",
        word,
        sign,
        figure: figure.to_owned(),
        limit: "2, so that one may be lost".to_owned(),
    })
}

pub(super) fn alarms(view: &View) -> Vec<Alarm> {
    words::alarms(view.alarms).into_iter().map(|(title, meaning)| Alarm { title, meaning }).collect()
}

pub(super) fn device(view: &View, now: Micros) -> Line {
    let Some((report, at)) = view.device else {
        return Line { good: false, text: "DEVICE: no word from it yet".to_owned() };
    };
    let silent = now.since(at);
    if silent > view.config.device_report {
        return Line { good: false, text: format!("DEVICE: silent for {}", words::lasting(silent)) };
    }
    let troubles = device_troubles(view.mode, report);
    let good = troubles.is_empty();
    let said = format!("DEVICE: obeys {}, fence {}", obeys(report.selected), report.highest.0);
    Line { good, text: if good { said } else { format!("{said} - {}", troubles.join(", ")) } }
}

fn device_troubles(mode: Mode, report: DeviceReport) -> Vec<&'static str> {
    let wanted = match mode {
        Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting => Selection::Local,
        Mode::Remote => Selection::Remote,
        Mode::Hold | Mode::Estop | Mode::Closed => Selection::Nobody,
    };
    let troubles = [
        (report.overridden, "HARDWARE OVERRIDE in use"),
        (report.latched, "LATCHED: holds until it is selected anew"),
        (report.owner.is_none(), "NO GATE'S KEEP-ALIVE is current there"),
        (!report.overridden && report.selected != wanted, "NOT YET what the register says"),
    ];
    troubles.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect()
}

const fn obeys(selection: Selection) -> &'static str {
    match selection {
        Selection::Nobody => "nobody",
        Selection::Local => "local",
        Selection::Remote => "remote",
    }
}

/// What keeps remote from being granted, then the hardware inputs.
pub(super) fn inputs(view: &View, around: &Around) -> Vec<Line> {
    let line = |(name, trouble): &(String, Option<String>)| match trouble {
        None => Line { good: true, text: format!("{} connected", words::clean(name)) },
        Some(why) => Line { good: false, text: format!("{} NOT CONNECTED: {}", words::clean(name), words::clean(why)) },
    };
    let refused = |why: &String| Line { good: false, text: format!("REMOTE REFUSED, {}", words::clean(why)) };
    view.troubles.iter().map(refused).chain(around.inputs.iter().map(line)).collect()
}

/// All sets that there are, the smallest first.
const SETS: [GrantedSet; 5] = [
    GrantedSet::CAMERA,
    GrantedSet::INSTRUMENTS,
    GrantedSet { camera: true, instruments: true, energy: false },
    GrantedSet::ENERGY,
    GrantedSet { camera: true, instruments: true, energy: true },
];

/// Each expert once, however many channels it has; those who can be offered to come first.
pub(super) fn experts(view: &View) -> Vec<Expert> {
    let mut seen = BTreeSet::new();
    let stations = view.connected.iter().filter(|c| !c.is_signaling);
    let mut out: Vec<_> = stations.filter(|c| seen.insert(c.who.expert)).map(expert).collect();
    out.sort_by(|a, b| (a.not.is_some(), &a.name, &a.id).cmp(&(b.not.is_some(), &b.name, &b.id)));
    out
}

fn expert(connected: &Connected) -> Expert {
    let who = &connected.who;
    let grade = who.grade.unwrap_or(Grade::Observe);
    let sets: Vec<_> = SETS.into_iter().filter(|s| s.grade() <= grade).map(|s| (s.bits(), s.words())).collect();
    let not = match who.role {
        None => Some("no HELLO yet"),
        Some(Role::Expert) if sets.is_empty() => Some("its token permits nothing that moves"),
        Some(Role::Expert) => None,
        Some(_) => Some("not an expert"),
    };
    Expert {
        id: hex::encode(who.expert.0),
        expert: who.expert,
        name: words::name(who),
        realm: words::realm(who),
        grade: grade_in_words(grade),
        sets: if not.is_some() { Vec::new() } else { sets },
        not,
    }
}

const fn grade_in_words(grade: Grade) -> &'static str {
    match grade {
        Grade::Observe => "may observe",
        Grade::Annotate => "may draw",
        Grade::Camera => "up to camera",
        Grade::Instruments => "up to instruments",
        Grade::Energy => "up to energy",
    }
}

pub(super) fn news(view: &View, now: Micros) -> Vec<News> {
    let line = |(at, notice): &(Micros, Notice)| {
        let ago = format!("{} ago", words::lasting(now.since(*at)));
        let (text, person) = match notice {
            Notice::Request { channel, set, reason } => {
                let who = view.connected.iter().find(|c| c.channel == *channel);
                let who = who.map_or_else(|| "somebody who left".to_owned(), |c| words::name(&c.who));
                (format!("{who} ASKS for {}: {}", set.words(), words::clean(reason.as_str())), None)
            }
            Notice::Estop { person, reason } => {
                let (who, why) = (words::clean(person.as_str()), words::clean(reason.as_str()));
                (format!("STOP by {who}: {why}"), Some(person.clone()))
            }
            Notice::ConsentEnded => ("CONSENT ENDED: the holder goes on until you TAKE".to_owned(), None),
        };
        News { ago, text, mute: person.as_ref().map(|p| words::clean(p.as_str())), person }
    };
    view.notices.iter().rev().map(line).collect()
}

pub(super) fn answer(view: &View) -> Option<Line> {
    let (act, done) = view.answered.as_ref()?;
    // What was said to a CONFIRM belongs to the offer that it was for.
    if matches!(act, Act::Confirm | Act::ConfirmAmber) && view.mode != Mode::Ready {
        return None;
    }
    let act = words::act(act);
    Some(match done {
        Ok(()) => Line { good: true, text: format!("{act}: done") },
        Err(why) => Line { good: false, text: format!("{act} REFUSED: {why}") },
    })
}

pub(super) fn counters(view: &View, around: &Around) -> Vec<(String, u64)> {
    let own = [("page refused", around.refused)].into_iter().filter(|(_, n)| *n > 0);
    view.counters.iter().copied().chain(own).map(|(name, n)| (words::clean(name), n)).collect()
}

/// The timers and thresholds that decide something in front of local's eyes.
pub(super) fn limits(cfg: &Config) -> Vec<(&'static str, String)> {
    let t = words::exactly;
    vec![
        ("command gap, motion stops", t(cfg.gap)),
        ("lease, then HOLD", t(cfg.lease)),
        ("oldest command", t(cfg.command_age)),
        ("loop age for a grant, green", t(cfg.grant_green)),
        ("loop age for a grant, amber", t(cfg.grant_amber)),
        (
            "loop age, then HOLD",
            format!("{} for {}, {} at once", t(cfg.withdraw_age), t(cfg.withdraw_time), t(cfg.withdraw_at_once)),
        ),
        ("picture age, motion stops", t(cfg.frame_stop)),
        ("picture age, then HOLD", t(cfg.frame_hold)),
        ("other stops, then HOLD", t(cfg.stop_hold)),
        ("offer, confirm, grant", format!("{}, {}, {}", t(cfg.offer_time), t(cfg.ready_time), t(cfg.grant_time))),
        ("alignment", format!("{}.{} degrees", cfg.orientation / 1_000, cfg.orientation % 1_000 / 100)),
        ("energy pedal", t(cfg.pedal)),
        ("device watchdog", t(cfg.watchdog)),
        ("console lost, then HOLD", t(cfg.console)),
        ("one STOP per sender in", t(cfg.estop_every)),
    ]
}

/// Whether that is a stop which the surgeon's colleague makes on purpose.
pub(super) const fn is_repositioning(causes: Causes) -> bool {
    causes.0 & !Causes::WAITING.0 == Causes::CLUTCH.0
}
