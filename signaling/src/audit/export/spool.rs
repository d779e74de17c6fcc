//! The chain as a spool: what waits behind the cursor.

use super::Waiting;
use crate::audit::Record;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trocar_proto::units::WallMicros;

/// Up to which record the repository can be believed to have the chain: at most one row.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS audit_cursor (
    one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL, at_us INTEGER NOT NULL
) STRICT;
";

/// Records in one batch: what is sent again after an unclean end.
const BATCH: i64 = 256;
/// And their bytes.
const BATCH_BYTES: usize = 1 << 20;

/// The cursor: everything up to this record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Where it was when the batch was read. Where it has been put back meanwhile, it stays there.
    pub(crate) from: u64,
    pub(crate) seq: u64,
    pub(crate) hash: String,
    pub(crate) at: WallMicros,
}

/// Moves the cursor.
pub(crate) fn write_cursor(t: &Transaction<'_>, cursor: &Cursor) -> Result<(), rusqlite::Error> {
    if sent(t)? != cursor.from {
        return Ok(());
    }
    t.execute(
        "INSERT OR REPLACE INTO audit_cursor (one, seq, hash, at_us) VALUES (1, ?1, ?2, ?3)",
        params![cursor.seq.cast_signed(), cursor.hash, cursor.at.0.cast_signed()],
    )
    .map(drop)
}

/// Up to which record; 0 where nothing was ever sent.
pub(crate) fn sent(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'audit_cursor'";
    // A store of an earlier version, of which only a copy is read.
    if connection.query_row(there, [], |r| r.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    let seq: Option<i64> = connection.query_row("SELECT seq FROM audit_cursor", [], |r| r.get(0)).optional()?;
    Ok(seq.unwrap_or(0).unsigned_abs())
}

/// The oldest that wait, and how many there are in all.
pub(super) struct Batch {
    pub(super) from: u64,
    pub(super) rows: Vec<Waiting>,
    pub(super) waiting: u64,
    pub(super) oldest_us: Option<u64>,
}

/// Reads the database beside the thread that writes it.
#[derive(Debug, Clone)]
pub(super) struct Spool(PathBuf);

impl Spool {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// What waits. The batch is empty where nothing does.
    pub(super) fn next(&self) -> Result<Batch, rusqlite::Error> {
        let connection = Connection::open_with_flags(&self.0, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let sent = sent(&connection)?;
        let end: i64 = connection.query_row("SELECT coalesce(max(seq), 0) FROM audit", [], |r| r.get(0))?;
        let waiting = end.unsigned_abs().saturating_sub(sent);
        let mut batch = Batch { from: sent, rows: Vec::new(), waiting, oldest_us: None };
        let mut query =
            connection.prepare("SELECT seq, record, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = query.query(params![sent.cast_signed(), BATCH])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let text: String = row.get(1)?;
            bytes += text.len();
            if bytes > BATCH_BYTES && !batch.rows.is_empty() {
                break;
            }
            let record: Record = serde_json::from_str(&text)
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e)))?;
            let (seq, hash) = (row.get::<_, i64>(0)?.unsigned_abs(), hex::encode(&row.get::<_, Vec<u8>>(2)?));
            batch.oldest_us = batch.oldest_us.or(Some(record.utc_us));
            batch.rows.push(Waiting { seq, at: WallMicros(record.utc_us), record, text, hash });
        }
        Ok(batch)
    }
}
