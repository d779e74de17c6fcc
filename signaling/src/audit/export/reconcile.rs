//! What of the chain has arrived: reads what the repository has kept, finds what is missing, doubled or not what it was.

use super::message::{CODES, RECORD_DETAIL, RECORD_OBJECT};
use super::spool;
use crate::audit::chain::hash_of;
use crate::audit::verify::open;
use crate::audit::{Bad, Record};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::ops::RangeInclusive;
use std::path::Path;

/// Longest line that is read, in bytes: a message and what a receiver puts around it.
const MAX_LINE: u64 = 1 << 18;

/// What a message begins with.
const BEGIN: &str = "<AuditMessage>";

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// What the repository has kept cannot be read.
    #[error("what the repository has kept cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The store cannot be read.
    #[error("the store: {0}")]
    Store(#[from] Bad),
    /// Or written.
    #[error("the store: {0}")]
    Sql(#[from] rusqlite::Error),
    /// Several nodes send there.
    #[error("it has records of several nodes: name one of {0}")]
    Several(String),
}

/// The messages of one node, as they were found.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Hash of each record, in hex, by its number.
    hashes: BTreeMap<u64, (String, Option<String>)>,
    /// Messages that came again.
    pub doubled: u64,
    /// Numbers of records that came as two different ones, or whose bytes do not have their hash.
    pub changed: Vec<u64>,
    /// Lines with something that is no message of ours.
    pub unread: u64,
}

/// What came of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Different records that have arrived.
    pub records: u64,
    /// Messages that came again: the same record with the same hash.
    pub doubled: u64,
    /// Numbers that ought to have arrived and have not.
    pub lost: Vec<RangeInclusive<u64>>,
    /// Records that are not what the chain has, or does not follow the one before.
    pub changed: Vec<u64>,
    /// Records of numbers that the chain has not come to: the store is an older one.
    pub ahead: u64,
    /// Up to which record they ought to have arrived.
    pub sent: Option<u64>,
    /// Lines with something that is no message of ours.
    pub unread: u64,
}

impl Found {
    /// Whether everything arrived, as it was.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.changed.is_empty() && self.ahead == 0
    }
}

impl Received {
    /// Reads lines with messages in them. `source` is the node, by `AuditSourceID`; without it there has to be one only.
    ///
    /// # Errors
    /// [`ReconcileError::Several`] names the nodes; else where it cannot be read.
    pub fn read(mut lines: impl BufRead, source: Option<&str>) -> Result<Self, ReconcileError> {
        let mut all: BTreeMap<String, Self> = BTreeMap::new();
        let (mut line, mut unread) = (Vec::new(), 0);
        loop {
            line.clear();
            if io::Read::take(&mut lines, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // A receiver that was killed while it wrote goes on behind what it has written of a line.
            for xml in String::from_utf8_lossy(&line).split(BEGIN).skip(1) {
                match message(&format!("{BEGIN}{xml}")) {
                    Some(m) if source.is_none_or(|s| s == m.source) => all.entry(m.source.clone()).or_default().take(m),
                    Some(_) => {}
                    None => unread += 1,
                }
            }
        }
        if all.len() > 1 {
            return Err(ReconcileError::Several(all.into_keys().collect::<Vec<_>>().join(", ")));
        }
        Ok(Self { unread, ..all.into_values().next().unwrap_or_default() })
    }

    fn take(&mut self, m: Message) {
        let bytes_fit = m.record.as_ref().is_none_or(|r| hex::encode(hash_of(r)) == m.hash);
        let record = m.record.as_deref().and_then(|r| serde_json::from_str::<Record>(r).ok());
        let says = record.as_ref().is_none_or(|r| r.seq == m.seq);
        let known = self.hashes.get(&m.seq).map(|(hash, _)| *hash == m.hash);
        if !bytes_fit || !says || known == Some(false) {
            self.changed.push(m.seq);
        } else if known == Some(true) {
            self.doubled += 1;
        }
        if known.is_none() {
            self.hashes.insert(m.seq, (m.hash, record.map(|r| r.previous)));
        }
    }
}

/// Compares what has arrived with the chain in a store; without one, with itself: numbers without gaps, and each record names the hash of
/// the one before.
///
/// # Errors
/// Where the store cannot be read.
pub fn reconcile(received: &Received, store: Option<&Path>) -> Result<Found, ReconcileError> {
    let mut found = Found {
        records: received.hashes.len() as u64,
        doubled: received.doubled,
        changed: received.changed.clone(),
        unread: received.unread,
        ..Found::default()
    };
    let mut lost = Vec::new();
    match store {
        Some(path) => {
            let connection = open(path)?;
            let (sent, chain) = chain(&connection)?;
            let end = chain.last_key_value().map_or(0, |(seq, _)| *seq);
            found.ahead = received.hashes.range(end + 1..).count() as u64;
            found.sent = Some(sent);
            for (seq, hash) in &chain {
                match received.hashes.get(seq) {
                    None if *seq <= sent => lost.push(*seq),
                    Some((is, _)) if is != hash => found.changed.push(*seq),
                    _ => {}
                }
            }
        }
        None => {
            let mut before: Option<(u64, &String)> = None;
            for (seq, (hash, previous)) in &received.hashes {
                if let Some((last, last_hash)) = before {
                    lost.extend(last + 1..*seq);
                    if last + 1 == *seq && previous.as_ref().is_some_and(|p| p != last_hash) {
                        found.changed.push(*seq);
                    }
                }
                before = Some((*seq, hash));
            }
        }
    }
    found.changed.sort_unstable();
    found.changed.dedup();
    found.lost = ranges(&lost);
    Ok(found)
}

/// Has everything from the first lost record on sent again: puts the cursor back in a store, which may be in use.
///
/// # Errors
/// Where the store cannot be written.
pub fn resend(store: &Path, from: u64) -> Result<(), ReconcileError> {
    let connection = Connection::open(store)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let before = from.saturating_sub(1).cast_signed();
    connection.execute("UPDATE audit_cursor SET seq = ?1, hash = '' WHERE seq > ?1", [before])?;
    Ok(())
}

/// The cursor, and the hash of each record in hex.
fn chain(connection: &Connection) -> Result<(u64, BTreeMap<u64, String>), rusqlite::Error> {
    let sent = spool::sent(connection)?;
    let mut query = connection.prepare("SELECT seq, hash FROM audit ORDER BY seq")?;
    let rows =
        query.query_map([], |r| Ok((r.get::<_, i64>(0)?.unsigned_abs(), hex::encode(&r.get::<_, Vec<u8>>(1)?))))?;
    Ok((sent, rows.collect::<Result<_, _>>()?))
}

fn ranges(sorted: &[u64]) -> Vec<RangeInclusive<u64>> {
    let mut out: Vec<RangeInclusive<u64>> = Vec::new();
    for seq in sorted {
        match out.last_mut() {
            Some(last) if last.end() + 1 == *seq => *last = *last.start()..=*seq,
            _ => out.push(*seq..=*seq),
        }
    }
    out
}

/// What a message says of the chain.
struct Message {
    source: String,
    seq: u64,
    hash: String,
    record: Option<String>,
}

/// Reads a message; nothing where it is none of ours, or torn.
fn message(xml: &str) -> Option<Message> {
    let mut reader = Reader::from_str(xml);
    let (mut source, mut id, mut is_record, mut record) = (None, None, false, None);
    let mut found = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(e) | Event::Empty(e) => match e.name().as_ref() {
                b"AuditSourceIdentification" => source = attribute(&e, "AuditSourceID"),
                b"ParticipantObjectIdentification" => {
                    (id, is_record, record) = (attribute(&e, "ParticipantObjectID"), false, None);
                }
                b"ParticipantObjectIDTypeCode" => {
                    is_record = attribute(&e, "csd-code").as_deref() == Some(RECORD_OBJECT)
                        && attribute(&e, "codeSystemName").as_deref() == Some(CODES);
                }
                b"ParticipantObjectDetail" if attribute(&e, "type").as_deref() == Some(RECORD_DETAIL) => {
                    record = Some(String::from_utf8(STANDARD.decode(attribute(&e, "value")?).ok()?).ok()?);
                }
                _ => {}
            },
            Event::End(e) if e.name().as_ref() == b"ParticipantObjectIdentification" && is_record => {
                found = Some((id.take()?, record.take()));
            }
            Event::End(e) if e.name().as_ref() == b"AuditMessage" => break,
            Event::Eof => return None,
            _ => {}
        }
    }
    let (id, record) = found?;
    let (seq, hash) = id.split_once(':')?;
    Some(Message { source: source?, seq: seq.parse().ok()?, hash: hash.to_owned(), record })
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let value = element.try_get_attribute(name).ok()??;
    let text = std::str::from_utf8(&value.value).ok()?;
    quick_xml::escape::unescape(text).ok().map(std::borrow::Cow::into_owned)
}
