//! One record, and how it becomes a line.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fmt;
use trocar_proto::handover::message::Mode;
use trocar_proto::handover::types::{Colour, Colours, GrantedSet, Oid};
use trocar_proto::session::ids::SessionId;

/// Version of the format, the first member of every record.
pub const FORMAT: u8 = 1;
/// Longest line, in bytes, line feed included. A writer cuts texts for people short to stay below it.
pub const MAX_LINE: usize = 16 * 1_024;

/// SHA-256. Text form: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first record names as the one before it.
    pub const NONE: Self = Self([0; 32]);

    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(out)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut out = [0; 32];
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(&text, &mut out) {
            Ok(()) if lower => Ok(Self(out)),
            _ => Err("a hash is 64 lower-case hex digits"),
        }
    }
}

/// A place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The record's number, from 1; 0 is "before the first".
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: Hash::NONE };
}

/// A patient as a hospital's system names it. No names of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patient {
    /// Whose numbers these are, e.g. an OID or a URL of the hospital.
    pub assigner: String,
    /// The number.
    pub value: String,
}

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The gate started.
    Started,
    /// The register changed (HO-U-005).
    Change,
    /// A grant is intended: on disk before it takes effect (HO-U-004).
    Intent,
    /// An act of local was refused.
    ActRefused,
    /// Somebody asked for control.
    Request,
    /// Somebody on the network pressed the emergency stop.
    Estop,
    /// Consent was given, withdrawn, refused or ended.
    Consent,
    /// Refused datagrams, one record a burst (HO-U-006).
    Burst,
    /// A channel opened, said HELLO, was refused or closed.
    Channel,
    /// What local must know has changed.
    Alarms,
    /// The store found something about itself: a torn line, a cut tail, a copy that was made anew.
    Store,
}

/// The register's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are those of HANDOVER.md section 2")]
pub enum State {
    Hold,
    Local,
    Offered,
    Ready,
    Granting,
    Remote,
    Estop,
    Closed,
}

impl From<Mode> for State {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Hold => Self::Hold,
            Mode::Local => Self::Local,
            Mode::Offered => Self::Offered,
            Mode::Ready => Self::Ready,
            Mode::Granting => Self::Granting,
            Mode::Remote => Self::Remote,
            Mode::Estop => Self::Estop,
            Mode::Closed => Self::Closed,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is so.
    Done,
    /// It will be attempted; the record after it says what came of it.
    Intended,
    /// It was not done.
    Refused,
    /// People were told, nothing else changed.
    Shown,
}

/// One who acts: a person, or a machine on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The person, as the token names it; null where nobody signed in.
    pub user: Option<String>,
    /// `local`, `expert`, …: the token's role; `gate` and `device` for machines.
    pub role: Option<String>,
    /// The organisation, where something says it.
    pub organisation: Option<String>,
    /// The certificate's hash, hex.
    pub fingerprint: Option<String>,
    /// How it proved who it is: `console`, `certificate`, `certificate+token`, `none` for what the gate does by itself.
    pub authentication: Option<String>,
    /// The machine, as its certificate names it.
    pub device: Option<String>,
    /// The hospital network.
    pub realm: Option<String>,
    /// The highest grade that the token allows.
    pub grade: Option<String>,
}

/// The link gates' colours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in proto::handover::types::Colours")]
pub struct Links {
    pub loop_age: String,
    pub jitter: String,
    pub loss: String,
    pub frame_age: String,
}

impl From<Colours> for Links {
    fn from(c: Colours) -> Self {
        let name = |c: Colour| c.name().to_owned();
        Self { loop_age: name(c.loop_age), jitter: name(c.jitter), loss: name(c.loss), frame_age: name(c.frame_age) }
    }
}

/// One record, without its hash. The order of the fields is that of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u8,
    /// Place in the chain, from 1.
    pub seq: u64,
    /// Hash of the record before.
    pub previous: Hash,
    /// 128 random bits, hex: the event's name everywhere.
    pub id: String,
    /// The gate's wall clock when it happened, RFC 3339.
    pub utc: String,
    /// The gate's own clock then, microseconds of CLOCK_BOOTTIME.
    pub tick: u64,
    /// How far the wall clock is known to be off, microseconds; null where nobody said.
    pub clock_offset_us: Option<i64>,
    /// The session.
    pub session: SessionId,
    /// Whom it is about.
    pub patient: Vec<Patient>,
    /// The consent document that counts: serial and hash.
    pub consent: Option<String>,
    /// What kind.
    pub event: Event,
    /// State before.
    pub from: Option<State>,
    /// State after.
    pub to: Option<State>,
    /// What is offered or held: some of `camera`, `instruments`, `energy`.
    pub set: Vec<String>,
    /// The epoch after it.
    pub epoch: Option<u64>,
    /// The offer's reference, [`offer_reference`]: the same in all records of one offer.
    pub offer: Option<String>,
    /// The oid itself, hex, from the intent of the grant on: before that it is the addressee's alone (HO-M-013).
    pub oid: Option<String>,
    /// Who acted.
    pub actor: Party,
    /// To whom it was offered, or who held.
    pub expert: Option<Party>,
    /// Why.
    pub reason: Option<String>,
    /// What somebody said, or what more is known.
    pub note: Option<String>,
    /// The declared step of the operation.
    pub step: Option<String>,
    /// Loop age, median, microseconds; null where it was not measured, as with all that follow.
    pub loop_age_p50_us: Option<u32>,
    /// Loop age, 95th percentile.
    pub loop_age_p95_us: Option<u32>,
    /// Jitter of heartbeats, 95th percentile.
    pub jitter_p95_us: Option<u32>,
    /// Loss after repair, parts per million.
    pub loss_ppm: Option<u32>,
    /// Age of the picture in front of the expert.
    pub frame_age_us: Option<u32>,
    /// The link gates' colours, where an offer is open or somebody holds.
    pub links: Option<Links>,
    /// Of the control source, bits per second.
    pub bit_rate: Option<u64>,
    /// Of the control source.
    pub codec: Option<String>,
    /// How many, where the record stands for several things.
    pub count: Option<u64>,
    /// Records that were lost before this one, because the disk did not take them in time.
    pub lost: u64,
    /// In intents and starts: the newest record that is known to be on disk (HO-U-007).
    pub durable: Option<Link>,
    /// Hash of the effective configuration.
    pub configuration: Hash,
    /// Name and version of the program.
    pub software: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// A line that is no record.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It does not end as a record does.
    #[error("does not end with the hash of its own bytes")]
    NoHash,
    /// The bytes are not those that were hashed.
    #[error("was changed after it was written: its hash does not fit")]
    Changed,
    /// The hash fits, but the form is not that of a record.
    #[error("is not a record: {0}")]
    NotARecord(#[from] serde_json::Error),
    /// Of another version of the format.
    #[error("has format {0}; this program reads format 1")]
    Format(u8),
}

const TAIL: &str = ",\"hash\":\"";

impl Record {
    /// A record of an event of which nothing more is said, done and without a place in the chain.
    #[must_use]
    pub fn empty(session: SessionId, event: Event) -> Self {
        Self {
            format: FORMAT,
            seq: 0,
            previous: Hash::NONE,
            id: String::new(),
            utc: String::new(),
            tick: 0,
            clock_offset_us: None,
            session,
            patient: Vec::new(),
            consent: None,
            event,
            from: None,
            to: None,
            set: Vec::new(),
            epoch: None,
            offer: None,
            oid: None,
            actor: Party::default(),
            expert: None,
            reason: None,
            note: None,
            step: None,
            loop_age_p50_us: None,
            loop_age_p95_us: None,
            jitter_p95_us: None,
            loss_ppm: None,
            frame_age_us: None,
            links: None,
            bit_rate: None,
            codec: None,
            count: None,
            lost: 0,
            durable: None,
            configuration: Hash::NONE,
            software: String::new(),
            outcome: Outcome::Done,
        }
    }

    /// The line, line feed included, and its hash.
    ///
    /// # Errors
    /// None that this type can cause; the serializer's own.
    pub fn line(&self) -> Result<(String, Hash), serde_json::Error> {
        let mut text = serde_json::to_string(self)?;
        let hash = Hash::of(text.as_bytes());
        text.pop();
        text.push_str(TAIL);
        text.push_str(&hash.to_string());
        text.push_str("\"}\n");
        Ok((text, hash))
    }

    /// Reads a line without its line feed and checks its hash.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn read(line: &[u8]) -> Result<(Self, Hash), LineError> {
        let (body, hash) = checked(line)?;
        let record: Self = serde_json::from_slice(&body)?;
        if record.format != FORMAT {
            return Err(LineError::Format(record.format));
        }
        Ok((record, hash))
    }
}

/// The bytes that a line's hash is over, where it is right.
fn checked(line: &[u8]) -> Result<(Vec<u8>, Hash), LineError> {
    let end = TAIL.len() + 64 + "\"}".len();
    let (body, tail) = line.len().checked_sub(end).and_then(|n| line.split_at_checked(n)).ok_or(LineError::NoHash)?;
    let tail = std::str::from_utf8(tail).map_err(|_| LineError::NoHash)?;
    let hash = tail.strip_prefix(TAIL).and_then(|t| t.strip_suffix("\"}")).ok_or(LineError::NoHash)?;
    let hash = Hash::try_from(hash.to_owned()).map_err(|_| LineError::NoHash)?;
    let mut body = body.to_vec();
    body.push(b'}');
    if Hash::of(&body) == hash { Ok((body, hash)) } else { Err(LineError::Changed) }
}

/// How records name an offer: the first 128 bits of the SHA-256 of the oid's 16 bytes, hex. Whoever was given the oid can make it;
/// whoever reads the file learns no oid from it while the offer is open.
#[must_use]
pub fn offer_reference(oid: Oid) -> String {
    let mut text = Hash::of(&oid.0.to_be_bytes()).to_string();
    text.truncate(32);
    text
}

/// The oid itself, 32 hex digits.
#[must_use]
pub fn oid_text(oid: Oid) -> String {
    format!("{:032x}", oid.0)
}

/// A set as records write it.
#[must_use]
pub fn set_names(set: GrantedSet) -> Vec<String> {
    set.parts().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with nothing in it, for tests.
    pub(in crate::audit) fn blank(seq: u64, previous: Hash) -> Record {
        Record {
            seq,
            previous,
            id: format!("{seq:032x}"),
            utc: "2026-03-01T10:20:30.000000Z".to_owned(),
            tick: seq * 1_000_000,
            patient: vec![Patient { assigner: "urn:oid:1.2.3".to_owned(), value: "0815".to_owned() }],
            software: "trocar-gate 0.1.0".to_owned(),
            ..Record::empty(SessionId::new("or-1").unwrap(), Event::Change)
        }
    }

    #[test]
    fn a_line_reads_back_and_its_hash_is_over_its_own_bytes_without_the_hash() {
        let record = blank(1, Hash::NONE);
        let (line, hash) = record.line().unwrap();
        let bytes = line.strip_suffix('\n').unwrap();
        let (read, again) = Record::read(bytes.as_bytes()).unwrap();
        assert_eq!((read, again), (record, hash));
        // As anybody with a shell would do it.
        let (body, _) = bytes.split_once(",\"hash\":").unwrap();
        assert_eq!(Hash::of(format!("{body}}}").as_bytes()), hash);
    }

    #[test]
    fn each_changed_bit_of_a_line_is_found() {
        let (line, _) = blank(7, Hash([3; 32])).line().unwrap();
        let good = line.trim_end().as_bytes();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(Record::read(&bad).is_err(), "byte {at}");
        }
        assert!(matches!(Record::read(b"{}"), Err(LineError::NoHash)));
        assert!(matches!(Record::read(b""), Err(LineError::NoHash)));
    }

    #[test]
    fn a_member_that_nobody_knows_and_one_that_comes_twice_are_refused_even_with_a_fitting_hash() {
        let (line, _) = blank(1, Hash::NONE).line().unwrap();
        let (body, _) = line.split_once(",\"hash\":").unwrap();
        for extra in [",\"more\":1", ",\"seq\":2"] {
            let body = format!("{body}{extra}}}");
            let hash = Hash::of(body.as_bytes());
            let line = format!("{},\"hash\":\"{hash}\"}}", body.strip_suffix('}').unwrap());
            assert!(matches!(Record::read(line.as_bytes()), Err(LineError::NotARecord(_))), "{extra}");
        }
    }

    #[test]
    fn an_offers_reference_does_not_show_its_oid() {
        // HO-M-013
        let oid = Oid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let reference = offer_reference(oid);
        assert_eq!(reference.len(), 32);
        assert_ne!(reference, oid_text(oid));
        assert_eq!(offer_reference(oid), reference);
        assert_ne!(offer_reference(Oid(1)), reference);
    }
}
