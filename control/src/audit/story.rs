//! One record in words: what happened, who did it, why, with which figures.

use super::record::{Event, Outcome, Party, Record, State};
use std::fmt::Write as _;

/// What happened, in one sentence; who is named by [`who`].
pub(super) fn sentence(r: &Record) -> String {
    match r.event {
        Event::Started => "the gate started".to_owned(),
        Event::Change => change(r),
        Event::Intent => {
            let expert = r.expert.as_ref().map_or_else(|| "the expert".to_owned(), person);
            let epoch = r.epoch.unwrap_or_default();
            format!("the grant of {} to {expert} was written down ahead of its effect (epoch {epoch})", set(r))
        }
        Event::ActRefused => "local's act was refused".to_owned(),
        Event::Request => format!("{} asked for {}", person(&r.actor), set(r)),
        Event::Estop => format!("{} pressed the emergency stop on the network", person(&r.actor)),
        Event::Consent if r.outcome == Outcome::Refused => "a consent document was refused".to_owned(),
        Event::Consent => "consent".to_owned(),
        Event::Burst => {
            let count = r.count.unwrap_or(1);
            let what = if count == 1 { "datagram was".to_owned() } else { "datagrams were".to_owned() };
            format!("{count} {what} refused, from {}", person(&r.actor))
        }
        Event::Channel => format!("{}'s connection", person(&r.actor)),
        Event::Alarms if r.note.as_deref() == Some("none") => "alarms: none any more".to_owned(),
        Event::Alarms => "alarms".to_owned(),
        Event::Store => "the gate's store noticed".to_owned(),
    }
}

fn change(r: &Record) -> String {
    let expert = r.expert.as_ref().map_or_else(|| "the expert".to_owned(), person);
    let (Some(from), Some(to)) = (r.from, r.to) else { return "the state changed".to_owned() };
    match (from, to) {
        (State::Remote, State::Local) => format!("local took control back from {expert}"),
        (State::Remote, State::Hold) => format!("{expert}'s control ended; nobody moves (HOLD)"),
        (State::Remote, State::Estop) => format!("emergency stop; {expert}'s control ended"),
        (_, State::Remote) => format!("{expert} HAS CONTROL of {}, motion stopped until re-clutched", set(r)),
        (_, State::Estop) => "emergency stop; nobody moves until it is reset".to_owned(),
        (_, State::Closed) => "the session was closed".to_owned(),
        (_, State::Offered) => format!("local offered {} to {expert}", set(r)),
        (_, State::Ready) => format!("{expert} accepted; link and alignment are measured"),
        (_, State::Granting) => format!("local confirmed to {expert}"),
        (State::Offered | State::Ready | State::Granting, State::Local) => {
            format!("the offer to {expert} ended; local goes on")
        }
        (_, State::Local) => "local has control".to_owned(),
        (_, State::Hold) => "nobody has control (HOLD)".to_owned(),
    }
}

/// Why it happened, what was said, and what was measured: what belongs behind the sentence.
pub(super) fn details(r: &Record) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(reason) = &r.reason {
        out.push(match r.event {
            Event::Request | Event::Estop => format!("saying {:?}", clean(reason)),
            _ => clean(reason),
        });
    }
    if let Some(note) = r.note.as_deref().filter(|n| *n != "none") {
        out.push(clean(note));
    }
    let is_new = matches!(r.to, Some(State::Offered)) || r.event == Event::Intent;
    if let Some(step) = r.step.as_ref().filter(|_| is_new) {
        out.push(format!("step {:?}", clean(step)));
    }
    if matches!(r.event, Event::Intent | Event::Estop)
        || matches!((r.from, r.to), (Some(State::Remote), _) | (_, Some(State::Remote)))
    {
        out.extend(figures(r));
    }
    if r.lost > 0 {
        out.push(format!("{} records before this one were lost", r.lost));
    }
    out
}

/// The link as it was measured.
pub(super) fn figures(r: &Record) -> Option<String> {
    let ms = |us: u32| format!("{}.{} ms", us / 1_000, us % 1_000 / 100);
    let mut parts = Vec::new();
    if let (Some(p50), Some(p95)) = (r.loop_age_p50_us, r.loop_age_p95_us) {
        parts.push(format!("loop age {} (p95 {})", ms(p50), ms(p95)));
    }
    if let Some(jitter) = r.jitter_p95_us {
        parts.push(format!("jitter {}", ms(jitter)));
    }
    if let Some(ppm) = r.loss_ppm {
        parts.push(format!("loss {}.{:02} %", ppm / 10_000, ppm % 10_000 / 100));
    }
    if let Some(age) = r.frame_age_us {
        parts.push(format!("picture {} old", ms(age)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The person, else the machine. For an expert the station's name goes before the token's subject, which is a random number.
pub(super) fn person(p: &Party) -> String {
    if let (Some("expert"), Some(device), Some(user)) = (p.role.as_deref(), &p.device, &p.user) {
        return format!("{} ({})", clean(device.rsplit('/').next().unwrap_or(device)), clean(user));
    }
    let name = p.user.as_ref().or(p.device.as_ref()).or(p.role.as_ref());
    let mut out = name.map_or_else(|| "somebody".to_owned(), |n| clean(n));
    if p.user.is_none()
        && let Some(fingerprint) = p.fingerprint.as_ref().and_then(|f| f.get(..8))
        && p.device.is_none()
    {
        let _ = write!(out, " {}…", clean(fingerprint));
    }
    out
}

/// Who acted, for the last column: the person or machine, how it proved that, from where.
pub(super) fn who(p: &Party) -> String {
    match (p.role.as_deref(), p.authentication.as_deref()) {
        (Some("local"), _) => "local".to_owned(),
        (Some("gate"), _) => "the gate".to_owned(),
        (Some("device"), _) => "the device".to_owned(),
        (_, Some("channel")) => format!("{} by the network", person(p)),
        _ => {
            let realm = p.realm.as_ref().map(|r| format!(" of {}", clean(r))).unwrap_or_default();
            format!("{}{realm}", person(p))
        }
    }
}

pub(super) fn set(r: &Record) -> String {
    if r.set.is_empty() { "nothing".to_owned() } else { clean(&r.set.join(" and ")) }
}

/// Text that came from people, as one line that does nothing to a terminal: control characters and those that turn the direction of
/// writing are left out.
pub(super) fn clean(text: &str) -> String {
    let is_turn = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || is_turn(c) { '\u{fffd}' } else { c }).collect()
}
