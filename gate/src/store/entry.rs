//! What the core tells, as a record of the chain.

use super::Run;
use super::queue::{Intent, Job, Said};
use crate::core::{Entry, What, Who};
use trocar_control::audit::clock;
use trocar_control::audit::record::{Event, Outcome, Party, Record, offer_reference, oid_text, set_names};
use trocar_proto::handover::bursts::Burst;
use trocar_proto::handover::gate::{Alarms, Notice, Record as Change, Why};
use trocar_proto::handover::message::{Figures, Mode, Short};
use trocar_proto::handover::types::Colours;
use trocar_proto::session::ids::CertHash;

/// Longest text for people in a record, in bytes.
const MOST_TEXT: usize = 2_048;

/// The record, without its place in the chain.
pub(super) fn record(job: &Job, run: &Run) -> Record {
    let mut record = Record {
        utc: clock::utc(job.utc),
        tick: crate::core::now().0,
        clock_offset_us: job.facts.clock_offset_us,
        patient: run.patient.clone(),
        consent: job.facts.consent.clone(),
        actor: Party { role: text("gate"), authentication: text("none"), ..run.gate.clone() },
        bit_rate: job.facts.media.bit_rate,
        codec: job.facts.media.codec.as_deref().map(short),
        configuration: run.configuration,
        software: run.software.clone(),
        ..Record::empty(run.session.clone(), Event::Store)
    };
    match &job.said {
        Said::Entry(entry) => {
            measured(entry, &mut record);
            what(entry, run, &mut record);
        }
        Said::Intent(of, entry) => {
            measured(entry, &mut record);
            intent(of, entry, run, &mut record);
        }
        Said::Consent(said, outcome) => {
            record.event = Event::Consent;
            record.note = Some(short(said));
            record.outcome = *outcome;
        }
        Said::Store(said) => {
            record.note = Some(short(said));
            record.outcome = Outcome::Shown;
        }
    }
    record
}

/// The clock, and the link as the gate saw it.
fn measured(entry: &Entry, out: &mut Record) {
    let known = |figure: u32| (figure != u32::MAX).then_some(figure);
    let Figures { loop_p50, loop_p95, jitter_p95, loss_ppm, frame_age } = entry.figures;
    out.tick = entry.tick.0;
    out.loop_age_p50_us = known(loop_p50);
    out.loop_age_p95_us = known(loop_p95);
    out.jitter_p95_us = known(jitter_p95);
    out.loss_ppm = known(loss_ppm);
    out.frame_age_us = known(frame_age);
    out.links = (entry.colours != Colours::default()).then(|| entry.colours.into());
}

fn what(entry: &Entry, run: &Run, out: &mut Record) {
    let who = entry.actor.as_ref().map(party);
    match &entry.what {
        What::Started { detail } => {
            out.event = Event::Started;
            out.note = Some(short(detail));
        }
        What::Change(change) => changed(change, who, run, out),
        // Intents come by `Disk::act`, which gives them another way.
        What::Intent(_) => out.event = Event::Intent,
        What::ActRefused(why) => {
            out.event = Event::ActRefused;
            out.actor = local(run);
            out.reason = Some(short(why));
            out.outcome = Outcome::Refused;
        }
        What::Notice(notice) => shown(notice, who, out),
        What::Burst(burst) => refused(burst, who, out),
        What::Channel { channel, event } => {
            out.event = Event::Channel;
            out.actor = who.unwrap_or_default();
            out.note = Some(format!("channel {} {event}", channel.0));
        }
        What::Alarms(alarms) => {
            out.event = Event::Alarms;
            out.note = Some(alarm_names(*alarms));
            out.outcome = Outcome::Shown;
        }
    }
}

/// HO-U-005
fn changed(change: &Change, who: Option<Party>, run: &Run, out: &mut Record) {
    out.event = Event::Change;
    out.from = Some(change.from.into());
    out.to = Some(change.to.into());
    out.epoch = Some(change.epoch.0);
    out.set = set_names(change.set);
    out.offer = change.oid.map(offer_reference);
    let is_spent = |mode| matches!(mode, Mode::Granting | Mode::Remote);
    if is_spent(change.from) || is_spent(change.to) {
        out.oid = change.oid.map(oid_text);
    }
    out.step = said(&change.step);
    out.note = change.note.as_ref().and_then(said);
    out.reason = text(reason(change.why));
    // The channel may be gone; the certificate's hash is known all the same.
    out.expert = change.expert.map(|expert| {
        let fingerprint = Some(CertHash(expert.0).to_string());
        who.clone().unwrap_or_else(|| Party { role: text("expert"), fingerprint, ..Party::default() })
    });
    match change.why {
        Why::Local => out.actor = local(run),
        Why::Expert => out.actor = out.expert.clone().unwrap_or_default(),
        Why::NetworkEstop => {
            out.actor = Party { user: out.note.clone(), authentication: text("channel"), ..Party::default() };
        }
        Why::Override => out.actor = Party { role: text("device"), ..Party::default() },
        _ => {}
    }
}

/// HO-R-011: oid, epoch, expert and set.
fn intent(of: &Intent, entry: &Entry, run: &Run, out: &mut Record) {
    out.event = Event::Intent;
    out.from = Some(Mode::Granting.into());
    out.to = Some(Mode::Remote.into());
    out.epoch = Some(of.epoch.0);
    out.set = set_names(of.set);
    out.offer = Some(offer_reference(of.oid));
    out.oid = Some(oid_text(of.oid));
    out.step = said(&of.step);
    out.actor = local(run);
    let fingerprint = Some(CertHash(of.expert.0).to_string());
    let known = entry.actor.as_ref().map(party);
    out.expert =
        Some(Party { fingerprint, ..known.unwrap_or_else(|| Party { role: text("expert"), ..Party::default() }) });
    out.outcome = Outcome::Intended;
}

fn shown(notice: &Notice, who: Option<Party>, out: &mut Record) {
    out.outcome = Outcome::Shown;
    match notice {
        Notice::Request { channel, set, reason } => {
            out.event = Event::Request;
            out.actor = who.unwrap_or_default();
            out.set = set_names(*set);
            out.reason = said(reason);
            out.note = Some(format!("channel {}", channel.0));
        }
        Notice::Estop { person, reason } => {
            out.event = Event::Estop;
            out.actor = Party { user: said(person), ..who.unwrap_or_default() };
            out.reason = said(reason);
        }
        Notice::ConsentEnded => {
            out.event = Event::Consent;
            out.reason = text("consent for remote operation ended; the holder goes on until local takes");
        }
    }
}

/// HO-U-006
fn refused(burst: &Burst, who: Option<Party>, out: &mut Record) {
    let Burst { channel, reason, count, first, last } = burst;
    out.event = Event::Burst;
    out.actor = who.unwrap_or_default();
    out.reason = Some(reason.to_string());
    out.note = Some(format!("channel {}, within {} ms", channel.0, last.since(*first) / 1_000));
    out.count = Some(*count);
    out.outcome = Outcome::Refused;
}

/// The surgeon at the patient's side acts at this gate's console.
fn local(run: &Run) -> Party {
    Party { role: text("local"), authentication: text("console"), ..run.gate.clone() }
}

fn party(who: &Who) -> Party {
    let name = who.certificate.strip_prefix("trocar://").unwrap_or_default();
    let mut parts = name.splitn(3, '/');
    let (realm, of_certificate, device) = (parts.next(), parts.next(), parts.next());
    let by_token = who.role.map(|r| r.name().to_owned());
    Party {
        user: who.person.as_ref().and_then(said),
        role: by_token.or_else(|| of_certificate.map(short)),
        organisation: None,
        fingerprint: Some(CertHash(who.expert.0).to_string()),
        authentication: text(if who.person.is_some() { "certificate+token" } else { "certificate" }),
        device: device.map(short),
        realm: realm.filter(|r| !r.is_empty()).map(short),
        grade: who.grade.map(|g| format!("{g:?}").to_lowercase()),
    }
}

const fn reason(why: Why) -> &'static str {
    match why {
        Why::Start => "the gate started",
        Why::Local => "act of local",
        Why::Expert => "act of the expert",
        Why::Time => "the time for it ran out",
        Why::Granted => "the grant is complete",
        Why::Lease => "nothing valid heard from the expert for the lease",
        Why::Slow => "loop age above the limit for too long",
        Why::TooLate => "loop age far above the limit",
        Why::Frame => "the expert's picture was too old",
        Why::Stopped => "motion was stopped for too long",
        Why::Console => "local's console was lost",
        Why::Revoked => "the expert's certificate was revoked",
        Why::NetworkEstop => "emergency stop from the network",
        Why::Red => "a link gate is red",
        Why::Consent => "consent ended",
        Why::Means => "certificate, key or port unusable",
        Why::Disk => "the intent could not be written",
        Why::Device => "the device serves another gate, latched or is silent",
        Why::Override => "the hardware override gave the device to local",
    }
}

fn alarm_names(alarms: Alarms) -> String {
    let names: Vec<_> = alarms.words().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn said(text: &Short) -> Option<String> {
    let text = text.as_str();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Cut to what a line has room for.
fn short(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MOST_TEXT).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
