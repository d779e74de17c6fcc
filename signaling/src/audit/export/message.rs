//! A record as a DICOM audit message (PS3.15 annex A.5) in a syslog message (RFC 5424).
//!
//! What the tables of the standard have a place for stands there; the record itself, byte for byte, is a detail of the object
//! `audit-record`, whose id is number and hash. `configs/schemas/dicom-audit.rng` is what the messages are checked against.

use super::{Repository, Waiting};
use crate::audit::Record;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;
use trocar_control::audit::clock::utc;

/// Largest syslog message, in bytes, without its length in front (RFC 5425 section 4.3).
pub(super) const MAX_MESSAGE: usize = 65_536;
/// What a message begins with when it is UTF-8 (RFC 5424 section 6.4).
const BOM: &str = "\u{feff}";
/// The code system of what DICOM has no code for: kinds of records, roles, objects.
pub(super) const CODES: &str = "TROCAR";
/// The type of the detail that has the record's bytes.
pub(super) const RECORD_DETAIL: &str = "trocar-record";
/// The type of the object that is the record.
pub(super) const RECORD_OBJECT: &str = "audit-record";

/// Who sends.
pub(super) struct Sender {
    facility: u8,
    app_name: String,
    host: String,
    process: u32,
    source: String,
    site: String,
}

/// How much of a record goes into a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Without the text for people, which the record has as well.
    Record,
    /// Number and hash alone: a record of more than some 47 kB.
    Hash,
}

/// What DICOM calls an event: code of its family and type, what is done, and whether it went well.
struct Kind {
    event: (&'static str, &'static str),
    types: Option<(&'static str, &'static str)>,
    action: &'static str,
    refused: bool,
}

impl Sender {
    pub(super) fn new(repository: &Repository, issuer: &str, realm: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
        Self {
            facility: repository.facility,
            app_name: repository.app_name.clone(),
            host: if host.is_empty() { "-".to_owned() } else { host },
            process: std::process::id(),
            source: issuer.to_owned(),
            site: realm.to_owned(),
        }
    }

    /// The syslog message. One that would be too large says less: the record as it was hashed is the last to go.
    pub(super) fn message(&self, waiting: &Waiting) -> Vec<u8> {
        let extents = [Extent::Whole, Extent::Record, Extent::Hash];
        let all = extents.into_iter().map(|extent| self.with_extent(waiting, extent));
        let mut message = Vec::new();
        for candidate in all {
            message = candidate;
            if message.len() <= MAX_MESSAGE {
                break;
            }
        }
        message
    }

    fn with_extent(&self, waiting: &Waiting, extent: Extent) -> Vec<u8> {
        let kind = kind(&waiting.record.kind);
        let severity = if kind.refused { 4 } else { 5 };
        let priority = u32::from(self.facility) * 8 + severity;
        let (host, app, process) = (&self.host, &self.app_name, self.process);
        let head = format!("<{priority}>1 {} {host} {app} {process} DICOM+RFC3881 - {BOM}", utc(waiting.at));
        let mut out = Writer::new(head.into_bytes());
        // Writing to memory cannot fail.
        let _ = self.body(&mut out, waiting, &kind, extent);
        out.into_inner()
    }

    fn body(&self, out: &mut Writer<Vec<u8>>, waiting: &Waiting, kind: &Kind, extent: Extent) -> io::Result<()> {
        let r = &waiting.record;
        out.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        out.create_element("AuditMessage").write_inner_content(|out| {
            event(out, r, kind, extent)?;
            self.participants(out, r)?;
            self.source(out)?;
            objects(out, waiting, extent)
        })?;
        Ok(())
    }

    /// Whoever acted, and the program.
    fn participants(&self, out: &mut Writer<Vec<u8>>, r: &Record) -> io::Result<()> {
        if let Some(who) = &r.participant {
            let mut person = out.create_element("ActiveParticipant").with_attribute(("UserID", plain(who).as_str()));
            if let Some(name) = &r.name {
                person = person.with_attribute(("UserName", plain(name).as_str()));
            }
            let person = person.with_attribute(("UserIsRequestor", "true"));
            match &r.role {
                None => person.write_empty()?,
                Some(role) => person.write_inner_content(|out| coded(out, "RoleIDCode", (role, CODES, role)))?,
            };
        }
        out.create_element("ActiveParticipant")
            .with_attribute(("UserID", plain(&self.source).as_str()))
            .with_attribute(("AlternativeUserID", self.process.to_string().as_str()))
            .with_attribute(("UserIsRequestor", if r.participant.is_none() { "true" } else { "false" }))
            .with_attribute(("NetworkAccessPointID", self.host.as_str()))
            .with_attribute(("NetworkAccessPointTypeCode", "1"))
            .write_inner_content(|out| coded(out, "RoleIDCode", ("110150", "DCM", "Application")))?;
        Ok(())
    }

    fn source(&self, out: &mut Writer<Vec<u8>>) -> io::Result<()> {
        out.create_element("AuditSourceIdentification")
            .with_attribute(("AuditEnterpriseSiteID", plain(&self.site).as_str()))
            .with_attribute(("AuditSourceID", plain(&self.source).as_str()))
            .write_inner_content(|out| {
                coded(out, "AuditSourceTypeCode", ("4", "RFC-3881", "Application Server Process"))
            })?;
        Ok(())
    }
}

fn event(out: &mut Writer<Vec<u8>>, r: &Record, kind: &Kind, extent: Extent) -> io::Result<()> {
    let at = utc(trocar_proto::units::WallMicros(r.utc_us));
    out.create_element("EventIdentification")
        .with_attribute(("EventActionCode", kind.action))
        .with_attribute(("EventDateTime", at.as_str()))
        .with_attribute(("EventOutcomeIndicator", if kind.refused { "4" } else { "0" }))
        .write_inner_content(|out| {
            coded(out, "EventID", (kind.event.0, "DCM", kind.event.1))?;
            if let Some((code, meaning)) = kind.types {
                coded(out, "EventTypeCode", (code, "DCM", meaning))?;
            }
            coded(out, "EventTypeCode", (&r.kind, CODES, &r.kind))?;
            if extent == Extent::Whole && !r.detail.is_empty() {
                out.create_element("EventOutcomeDescription").write_text_content(BytesText::new(&plain(&r.detail)))?;
            }
            Ok(())
        })?;
    Ok(())
}

/// The patient, the session, the feed, and the record itself.
fn objects(out: &mut Writer<Vec<u8>>, waiting: &Waiting, extent: Extent) -> io::Result<()> {
    let r = &waiting.record;
    let patient_code = ("2", "RFC-3881", "Patient Number");
    let found = [
        r.patient.as_deref().map(|id| (id, "1", "1", patient_code)),
        r.session.as_deref().map(|id| (id, "2", "20", ("session", CODES, "Session"))),
        r.feed.as_deref().map(|id| (id, "2", "4", ("feed", CODES, "Feed"))),
    ];
    for (id, of, role, code) in found.into_iter().flatten() {
        out.create_element("ParticipantObjectIdentification")
            .with_attribute(("ParticipantObjectID", plain(id).as_str()))
            .with_attribute(("ParticipantObjectTypeCode", of))
            .with_attribute(("ParticipantObjectTypeCodeRole", role))
            .write_inner_content(|out| coded(out, "ParticipantObjectIDTypeCode", code))?;
    }
    let id = format!("{}:{}", waiting.seq, waiting.hash);
    out.create_element("ParticipantObjectIdentification")
        .with_attribute(("ParticipantObjectID", id.as_str()))
        .with_attribute(("ParticipantObjectTypeCode", "2"))
        .with_attribute(("ParticipantObjectTypeCodeRole", "13"))
        .write_inner_content(|out| {
            coded(out, "ParticipantObjectIDTypeCode", (RECORD_OBJECT, CODES, "Record of the audit chain"))?;
            if extent != Extent::Hash {
                out.create_element("ParticipantObjectDetail")
                    .with_attribute(("type", RECORD_DETAIL))
                    .with_attribute(("value", STANDARD.encode(&waiting.text).as_str()))
                    .write_empty()?;
            }
            Ok(())
        })?;
    Ok(())
}

/// A coded value: code, code system, meaning.
fn coded(out: &mut Writer<Vec<u8>>, element: &str, (code, system, meaning): (&str, &str, &str)) -> io::Result<()> {
    out.create_element(element)
        .with_attribute(("csd-code", plain(code).as_str()))
        .with_attribute(("codeSystemName", system))
        .with_attribute(("originalText", plain(meaning).as_str()))
        .write_empty()
        .map(drop)
}

/// Text that may stand in XML 1.0 and in a line: what may not becomes U+FFFD. Markup is escaped by the writer; the record has the text as it was.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c }).collect()
}

/// What DICOM calls a record of this kind (PS3.16 CID 400 and 401).
fn kind(kind: &str) -> Kind {
    let is = |event, types, action| Kind { event, types, action, refused: false };
    let activity = ("110100", "Application Activity");
    let alert = ("110113", "Security Alert");
    let procedure = ("110111", "Procedure Record");
    let patient = ("110110", "Patient Record");
    let user = ("110114", "User Authentication");
    match kind {
        "started" => is(activity, Some(("110120", "Application Start")), "E"),
        "stopped" => is(activity, Some(("110121", "Application Stop")), "E"),
        "session-created" => is(procedure, None, "C"),
        "session-closed" => is(procedure, None, "U"),
        "invited" => is(alert, Some(("110137", "User Security Attributes Changed")), "E"),
        "break-glass-joined" => is(alert, Some(("110127", "Emergency Override Started")), "E"),
        "break-glass-ended" => is(alert, Some(("110138", "Emergency Override Stopped")), "E"),
        "break-glass-reviewed" => is(("110101", "Audit Log Used"), None, "R"),
        "joined" | "participant.joined" => is(user, Some(("110122", "Login")), "E"),
        "participant.left" | "participant-removed" => is(user, Some(("110123", "Logout")), "E"),
        "token-granted" => is(user, Some(("110126", "Node Authentication")), "E"),
        "certificate-refused" | "token-replayed" => {
            Kind { refused: true, ..is(alert, Some(("110126", "Node Authentication")), "E") }
        }
        k if k.starts_with("certificate") => is(alert, Some(("110129", "Security Configuration")), "E"),
        k if k.contains("denied") => Kind { refused: true, ..is(user, Some(("110122", "Login")), "E") },
        "consent-given" => is(patient, None, "C"),
        "consent-withdrawn" => is(patient, None, "U"),
        k if k.starts_with("view-") => is(patient, None, "R"),
        k if k.starts_with("feed.") => is(procedure, None, "U"),
        k if k.starts_with("audit-") => is(("110101", "Audit Log Used"), None, "U"),
        _ => is(activity, None, "E"),
    }
}
