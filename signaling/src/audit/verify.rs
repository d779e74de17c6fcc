//! Checks a chain from its first record to its last.

use super::chain::{hash_of, head_text, hex};
use super::{FORMAT, NO_HASH, Record};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// The newest signed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of which record.
    pub seq: u64,
    /// Its hash, in hex.
    pub hash: String,
    /// The public key that signed it, in hex.
    pub key: String,
}

/// A chain that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub records: u64,
    /// Hash of the last one, in hex; 64 zeros of an empty chain.
    pub hash: String,
    /// When the first and the last happened, microseconds since 1970.
    pub from_until_us: Option<(u64, u64)>,
    /// How many heads are signed, all of them with a good signature.
    pub heads: u64,
    /// The newest of them.
    pub head: Option<Head>,
    /// Keys that signed heads, in the order of their first use, in hex: another one is a key that was changed, or somebody else's.
    pub keys: Vec<String>,
    /// Records that could not be written, as the chain itself says.
    pub lost: u64,
}

/// Why a chain is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The file is no store of signaling, or cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The bytes do not have the hash that stands beside them.
    #[error("its bytes were changed")]
    Changed,
    /// It is no record of a version that is known.
    #[error("it is no record: {0}")]
    NoRecord(String),
    /// Its number is not the next one.
    #[error("record {expected} is missing")]
    Missing {
        /// Which one should have been there.
        expected: u64,
    },
    /// It does not follow the record before.
    #[error("it does not follow the record before it")]
    DoesNotFollow,
    /// A column repeats something else than the record says.
    #[error("the column {0} says something else than the record")]
    Column(&'static str),
    /// A head whose signature is not of its key.
    #[error("the signature of its head is not good")]
    Signature,
    /// A head of a key that is not the one expected.
    #[error("its head is signed by another key: {0}")]
    OtherKey(String),
    /// A head that names another record than the chain has.
    #[error("a head was signed for another record of this number")]
    OtherHead,
    /// A head behind the last record: the tail was cut off.
    #[error("a head was signed for it, and it is not there: the tail was cut off")]
    CutOff,
}

/// The first bad record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}: {why}")]
pub struct Bad {
    /// Its number; 0 of the file itself.
    pub seq: u64,
    /// What is wrong with it.
    pub why: Why,
}

/// Checks the chain in a store, which may be in use. `key` is the public key (32 bytes) that heads have to be signed by; without one, any.
///
/// # Errors
/// [`Bad`] names the first record that is not what it should be.
pub fn verify(store: &Path, key: Option<&[u8]>) -> Result<Verified, Bad> {
    let connection = open(store)?;
    let mut walk = Walk::default();
    let mut query = connection
        .prepare("SELECT seq, at_us, kind, session, participant, record, hash FROM audit ORDER BY seq")
        .map_err(unreadable)?;
    let mut rows = query.query([]).map_err(unreadable)?;
    let mut hashes = std::collections::BTreeMap::new();
    let heads = heads(&connection)?;
    while let Some(row) = rows.next().map_err(unreadable)? {
        walk.take(row)?;
        if heads.contains_key(&walk.seq) {
            hashes.insert(walk.seq, walk.hash);
        }
    }
    let mut verified = Verified {
        records: walk.seq,
        hash: hex(&walk.hash),
        from_until_us: walk.from.zip(walk.until),
        heads: heads.len() as u64,
        head: None,
        keys: Vec::new(),
        lost: walk.lost,
    };
    for (seq, head) in heads {
        let bad = |why| Err(Bad { seq, why });
        let by = hex(&head.key);
        if key.is_some_and(|k| k != head.key) {
            return bad(Why::OtherKey(by));
        }
        let text = head_text(seq, &head.hash, head.at_us);
        if UnparsedPublicKey::new(&ED25519, &head.key).verify(text.as_bytes(), &head.signature).is_err() {
            return bad(Why::Signature);
        }
        match hashes.get(&seq) {
            None => return bad(Why::CutOff),
            Some(hash) if hash.as_slice() != head.hash => return bad(Why::OtherHead),
            Some(_) => {}
        }
        if !verified.keys.contains(&by) {
            verified.keys.push(by.clone());
        }
        verified.head = Some(Head { seq, hash: hex(&head.hash), key: by });
    }
    Ok(verified)
}

/// Opens a store for reading.
pub(super) fn open(store: &Path) -> Result<Connection, Bad> {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(unreadable)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(unreadable)?;
    Ok(connection)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn unreadable(e: rusqlite::Error) -> Bad {
    Bad { seq: 0, why: Why::Unreadable(e.to_string()) }
}

struct Signed {
    hash: Vec<u8>,
    at_us: i64,
    key: Vec<u8>,
    signature: Vec<u8>,
}

fn heads(connection: &Connection) -> Result<std::collections::BTreeMap<u64, Signed>, Bad> {
    let mut query = connection
        .prepare("SELECT seq, hash, at_us, key, signature FROM audit_heads ORDER BY seq")
        .map_err(unreadable)?;
    let rows = query
        .query_map([], |r| {
            let signed = Signed { hash: r.get(1)?, at_us: r.get(2)?, key: r.get(3)?, signature: r.get(4)? };
            Ok((r.get::<_, i64>(0)?.unsigned_abs(), signed))
        })
        .map_err(unreadable)?;
    rows.collect::<Result<_, _>>().map_err(unreadable)
}

/// How far the check has come.
struct Walk {
    seq: u64,
    hash: [u8; 32],
    from: Option<u64>,
    until: Option<u64>,
    lost: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { seq: 0, hash: NO_HASH, from: None, until: None, lost: 0 }
    }
}

impl Walk {
    fn take(&mut self, row: &rusqlite::Row<'_>) -> Result<(), Bad> {
        let expected = self.seq + 1;
        let seq = row.get::<_, i64>(0).map_err(unreadable)?.unsigned_abs();
        let bad = |why| Err(Bad { seq, why });
        if seq != expected {
            return bad(Why::Missing { expected });
        }
        let text: String = row.get(5).map_err(unreadable)?;
        let hash = hash_of(&text);
        if row.get::<_, Vec<u8>>(6).map_err(unreadable)? != hash {
            return bad(Why::Changed);
        }
        let record: Record = match serde_json::from_str(&text) {
            Ok(record) => record,
            Err(e) => return bad(Why::NoRecord(e.to_string())),
        };
        if record.format != FORMAT {
            return bad(Why::NoRecord(format!("version {} is not known", record.format)));
        }
        if record.previous != hex(&self.hash) || record.seq != seq {
            return bad(Why::DoesNotFollow);
        }
        let text = |i| row.get::<_, Option<String>>(i).map_err(unreadable);
        for (column, is, says) in [
            ("kind", text(2)?, Some(record.kind)),
            ("session", text(3)?, record.session),
            ("participant", text(4)?, record.participant),
        ] {
            if is != says {
                return bad(Why::Column(column));
            }
        }
        if row.get::<_, i64>(1).map_err(unreadable)?.unsigned_abs() != record.utc_us {
            return bad(Why::Column("at_us"));
        }
        (self.seq, self.hash) = (seq, hash);
        self.from = self.from.or(Some(record.utc_us));
        self.until = Some(record.utc_us);
        self.lost += record.lost;
        Ok(())
    }
}
