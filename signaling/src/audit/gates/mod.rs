//! Gates' chains in signaling's database: copies that were checked and are bound to signaling's own chain.
//!
//! A gate's records come as a copy of its file with a [`Seal`] that its certificate signs; the gate itself is not asked and waits for nothing.
//! [`ingest`] checks the whole chain and the seal, compares with what is there already, and adds what is new. What was taken, and every
//! chain that was refused because it forks, has a gap or is changed, is a note, which the server that has the database writes into its own chain: `gate-audit`
//! names the gate, the number and the head, so that signaling's signed heads vouch for the copy from then on; `gate-audit-alarm` says what is wrong.
//! [`verify_gates`] checks copies and what the chain says of them.

mod seal;

pub use seal::{Seal, SealError, seal};

use super::verify::{open, unreadable};
use super::{Bad, Entry, Filter, Work};
use crate::figures::Figures;
use crate::store::{Row, Store};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use rustls::pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trocar_control::audit as gate;
use trocar_control::audit::clock::{parse_utc, utc};
use trocar_control::trust::Trust;
use trocar_proto::units::WallMicros;

/// Copies of gates' records, and what is to be said of them in signaling's chain.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS gate_records (
    gate TEXT NOT NULL, seq INTEGER NOT NULL, at_us INTEGER NOT NULL, line TEXT NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (gate, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS gate_notes (
    note INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
";

/// The kind of the record that says up to where a gate's chain was taken.
pub(super) const TAKEN: &str = "gate-audit";
/// And of the one that says that one was not.
const ALARM: &str = "gate-audit-alarm";
/// How often notes are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Notes that go into the chain at once.
const NOTES: i64 = 64;

/// Why a gate's chain is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The files cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The seal is not good.
    #[error("the seal: {0}")]
    Seal(#[from] SealError),
    /// The database cannot be read or written.
    #[error("the store: {0}")]
    Store(#[from] rusqlite::Error),
    /// The chain is not whole.
    #[error("{0}")]
    Chain(#[from] gate::Bad),
    /// The chain does not have the record that was sealed.
    #[error(
        "the seal is for record {seq} with hash {hash}, which this chain does not have: it was cut off or made anew"
    )]
    NotSealed {
        /// Which record.
        seq: u64,
        /// Its hash in the seal.
        hash: String,
    },
    /// Another record of the same number was taken before.
    #[error("record {0} is another one than was taken before: the chain forks there, or was made anew")]
    Fork(u64),
    /// The database is not one of signaling's.
    #[error("it is no database of signaling")]
    NotOurs,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which gate.
    pub gate: String,
    /// Up to which record its chain is there now.
    pub seq: u64,
    /// With which hash.
    pub head: String,
    /// How many of them are new.
    pub new: u64,
}

/// Takes a gate's chain, its file or store, as far as it is sealed, into a database that a server may have open. `trust` is whom gates'
/// certificates are checked with.
///
/// # Errors
/// [`IngestError`]; a fork, a gap or a changed record of a gate whose seal is good is noted as an alarm as well.
pub fn ingest(store: &Path, chain: &Path, seal: &[u8], trust: &Trust, now: WallMicros) -> Result<Taken, IngestError> {
    let sealed = seal::read(seal, trust, UnixTime::since_unix_epoch(Duration::from_micros(now.0)))?;
    let mut connection = Connection::open_with_flags(store, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name = 'audit_heads'";
    if connection.query_row(ours, [], |r| r.get::<_, i64>(0))? == 0 {
        return Err(IngestError::NotOurs);
    }
    connection.execute_batch(SCHEMA)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = take(&transaction, chain, &sealed);
    match taken {
        Ok(taken) => {
            if taken.new > 0 {
                note(&transaction, TAKEN, &taken_text(&taken.gate, taken.seq, &taken.head))?;
            }
            transaction.commit()?;
            Ok(taken)
        }
        Err(error) => {
            // What was inserted before the fault was found goes; the alarm stays.
            transaction.rollback()?;
            if matches!(error, IngestError::Chain(_) | IngestError::NotSealed { .. } | IngestError::Fork(_)) {
                let alarm = connection.transaction()?;
                note(&alarm, ALARM, &format!("{}: {error}", sealed.gate))?;
                alarm.commit()?;
            }
            Err(error)
        }
    }
}

fn take(t: &Transaction<'_>, chain: &Path, sealed: &Seal) -> Result<Taken, IngestError> {
    gate::verify(chain)?;
    let file = if chain.is_dir() { chain.join(gate::CHAIN) } else { chain.to_owned() };
    let read = |e| IngestError::Read(file.clone(), e);
    let (mut seq, mut new, mut head) = (0, 0, None);
    for line in BufReader::new(std::fs::File::open(&file).map_err(read)?).lines() {
        if seq == sealed.seq {
            break;
        }
        let line = line.map_err(read)?;
        // It was checked a moment ago; a file that changes meanwhile is not what was sealed.
        let Ok((record, hash)) = gate::Record::read(line.as_bytes()) else { break };
        seq = record.seq;
        head = Some(hex::encode(hash.0));
        let known: Option<Vec<u8>> = rusqlite::OptionalExtension::optional(t.query_row(
            "SELECT hash FROM gate_records WHERE gate = ?1 AND seq = ?2",
            params![sealed.gate, seq.cast_signed()],
            |r| r.get(0),
        ))?;
        match known {
            Some(known) if known != hash.0 => return Err(IngestError::Fork(seq)),
            Some(_) => {}
            None => {
                let at_us = parse_utc(&record.utc).map_or(0, |t| t.0);
                t.execute(
                    "INSERT INTO gate_records (gate, seq, at_us, line, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![sealed.gate, seq.cast_signed(), at_us.cast_signed(), line, hash.0],
                )?;
                new += 1;
            }
        }
    }
    if seq != sealed.seq || head.as_ref() != Some(&sealed.hash) {
        return Err(IngestError::NotSealed { seq: sealed.seq, hash: sealed.hash.clone() });
    }
    Ok(Taken { gate: sealed.gate.clone(), seq, head: sealed.hash.clone(), new })
}

/// What the record of the kind [`TAKEN`] says, in its detail.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    gate: String,
    seq: u64,
    head: String,
}

fn taken_text(gate: &str, seq: u64, head: &str) -> String {
    let said = Said { gate: gate.to_owned(), seq, head: head.to_owned() };
    serde_json::to_string(&said).unwrap_or_default()
}

fn note(t: &Transaction<'_>, kind: &str, detail: &str) -> Result<(), rusqlite::Error> {
    t.execute("INSERT INTO gate_notes (kind, detail) VALUES (?1, ?2)", params![kind, detail]).map(drop)
}

/// The notes up to that one are in signaling's chain.
pub(super) fn told(t: &Transaction<'_>, last: i64) -> Result<(), rusqlite::Error> {
    t.execute("DELETE FROM gate_notes WHERE note <= ?1", [last]).map(drop)
}

/// Takes notes into signaling's chain, for ever.
pub(crate) async fn tell(path: PathBuf, store: Store, figures: Arc<Figures>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let path = path.clone();
        let notes = tokio::task::spawn_blocking(move || notes(&path)).await;
        let notes = match notes.map_err(|e| e.to_string()).and_then(|n| n.map_err(|e| e.to_string())) {
            Ok(notes) => notes,
            Err(error) => {
                tracing::error!(error, "what came of gates' audit chains cannot be read");
                continue;
            }
        };
        let Some(last) = notes.last().map(|(note, ..)| *note) else { continue };
        let mut rows = Vec::new();
        for (_, is_alarm, detail) in notes {
            if is_alarm {
                figures.gate_audit_alarms.inc();
                tracing::error!(detail, "a gate's audit chain is not what it was, and was not taken");
            }
            let kind = if is_alarm { ALARM } else { TAKEN };
            rows.push(Row::Event(Box::new(Entry::now(kind).saying(detail))));
        }
        rows.push(Row::Audit(Work::GatesTold(last)));
        if let Err(error) = store.write(rows).await {
            tracing::warn!(%error, "what came of gates' audit chains could not be recorded: it is taken again");
        }
    }
}

fn notes(path: &Path) -> Result<Vec<(i64, bool, String)>, Bad> {
    let connection = open(path)?;
    let mut query =
        connection.prepare("SELECT note, kind, detail FROM gate_notes ORDER BY note LIMIT ?1").map_err(unreadable)?;
    let rows = query
        .query_map([NOTES], |r| Ok((r.get(0)?, r.get::<_, String>(1)? == ALARM, r.get(2)?)))
        .map_err(unreadable)?;
    rows.collect::<Result<_, _>>().map_err(unreadable)
}

/// A gate's chain as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateChain {
    /// Which gate.
    pub gate: String,
    /// How many records.
    pub records: u64,
    /// Hash of the last, in hex.
    pub head: String,
    /// Up to which of them signaling's own chain vouches.
    pub vouched: u64,
}

/// What is wrong with a copy.
#[derive(Debug, thiserror::Error)]
pub enum GateBad {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] Bad),
    /// A record of a copy is not what it was.
    #[error("the copy of {gate}, record {seq}: {why}")]
    Record {
        /// Which gate.
        gate: String,
        /// Which record ought to be there.
        seq: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// Checks the copies, and that they are what signaling's chain says of them. The chain itself is checked by [`super::verify()`].
///
/// # Errors
/// [`GateBad`] names the first bad record.
pub fn verify_gates(store: &Path) -> Result<Vec<GateChain>, GateBad> {
    let mut said: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for row in super::search(store, &Filter { kind: Some(TAKEN.to_owned()), ..Filter::default() })? {
        if row.record.kind == TAKEN
            && let Ok(Said { gate, seq, head }) = serde_json::from_str(&row.record.detail)
        {
            said.entry(gate).or_default().insert(seq, head);
        }
    }
    let mut chains: BTreeMap<String, GateChain> = BTreeMap::new();
    for (gate, line) in copies(store)? {
        let chain = chains.entry(gate.clone()).or_insert_with(|| GateChain {
            gate: gate.clone(),
            records: 0,
            head: "0".repeat(64),
            vouched: 0,
        });
        let seq = chain.records + 1;
        let bad = |why| Err(GateBad::Record { gate: gate.clone(), seq, why });
        let Ok((record, hash)) = gate::Record::read(line.as_bytes()) else { return bad("its bytes were changed") };
        if record.seq != seq {
            return bad("it is missing");
        }
        if hex::encode(record.previous.0) != chain.head {
            return bad("it does not follow the record before it");
        }
        (chain.records, chain.head) = (seq, hex::encode(hash.0));
        match said.get_mut(&gate).and_then(|heads| heads.remove(&seq)) {
            Some(head) if head != chain.head => return bad("signaling's chain names another one"),
            Some(_) => chain.vouched = seq,
            None => {}
        }
    }
    for (gate, heads) in said {
        if let Some(seq) = heads.into_keys().next() {
            return Err(GateBad::Record { gate, seq, why: "signaling's chain names it, and it is not there" });
        }
    }
    Ok(chains.into_values().collect())
}

/// Gate and line of every record of the copies, in order.
fn copies(store: &Path) -> Result<Vec<(String, String)>, Bad> {
    let connection = open(store)?;
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'gate_records'";
    if connection.query_row(there, [], |r| r.get::<_, i64>(0)).map_err(unreadable)? == 0 {
        return Ok(Vec::new());
    }
    let mut query = connection.prepare("SELECT gate, line FROM gate_records ORDER BY gate, seq").map_err(unreadable)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).map_err(unreadable)?;
    rows.collect::<Result<_, _>>().map_err(unreadable)
}

/// Signaling's records and those of the gates as one story, by the time that each says.
///
/// # Errors
/// Where the database cannot be read.
pub fn merged_story(store: &Path, filter: &Filter) -> Result<String, Bad> {
    let mut lines: Vec<(u64, String)> =
        super::search(store, filter)?.into_iter().map(|row| (row.record.utc_us, super::as_story(&[row]))).collect();
    // What gates do not say cannot be asked for.
    let all = filter.kind.is_none() && filter.participant.is_none() && filter.patient.is_none();
    for (gate, line) in copies(store)?.into_iter().filter(|_| all) {
        let Ok((record, _)) = gate::Record::read(line.as_bytes()) else { continue };
        let at = parse_utc(&record.utc).map_or(0, |t| t.0);
        if filter.session.as_deref().is_none_or(|s| s == record.session.as_str())
            && filter.from_us.is_none_or(|from| at >= from)
            && filter.until_us.is_none_or(|until| at < until)
        {
            lines.push((at, told_of(&gate, at, &record)));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// A gate's record as a line, in the form of [`super::as_story`].
fn told_of(gate: &str, at: u64, r: &gate::Record) -> String {
    let who = r.actor.user.as_deref().or(r.actor.device.as_deref()).or(r.actor.role.as_deref()).unwrap_or("the gate");
    let event = format!("gate.{}", named(&r.event));
    let mut line = format!("{}  {event:20} {who}  session {}", utc(WallMicros(at)), r.session);
    if let (Some(from), Some(to)) = (&r.from, &r.to) {
        let _ = write!(line, "  {} to {}", named(from), named(to));
    }
    for text in [&r.reason, &r.note].into_iter().flatten() {
        let _ = write!(line, "  {text}");
    }
    let _ = write!(line, "  ({gate})");
    let mut out: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    out.push('\n');
    out
}

/// What the record's line calls a value.
fn named(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}
