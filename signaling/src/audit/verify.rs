//! Checks a chain from its first record to its last.

use super::chain::{hash_of, head_text};
use super::retention::{self, PRUNED, Run, Said};
use super::{FORMAT, NO_HASH, Record};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
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
    /// How many records are there.
    pub records: u64,
    /// How many were removed because their time was over, as signed records of the chain say.
    pub pruned: u64,
    /// The number of the last one.
    pub end: u64,
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
    /// Signed with a key that is not the one expected, or that has signed no head.
    #[error("it is signed by another key: {0}")]
    OtherKey(String),
    /// A head that names another record than the chain has.
    #[error("a head was signed for another record of this number")]
    OtherHead,
    /// A record that says what was removed is not signed as one has to be.
    #[error("it says that records were removed, and {0}")]
    Pruning(&'static str),
    /// A record that was removed, as a signed record says, and is there.
    #[error("it was removed, as record {0} says, and there is another one in its place")]
    NotRemoved(u64),
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
    // One state of the store, whatever is added or removed meanwhile.
    connection.execute_batch("BEGIN").map_err(unreadable)?;
    let mut walk = Walk { holes: holes(&connection, key)?, ..Walk::default() };
    let removers: BTreeMap<u64, Vec<u8>> = walk.holes.values().map(|h| (h.said_by, h.key.clone())).collect();
    let mut query = connection
        .prepare("SELECT seq, at_us, kind, session, participant, record, hash FROM audit ORDER BY seq")
        .map_err(unreadable)?;
    let mut rows = query.query([]).map_err(unreadable)?;
    let mut hashes = BTreeMap::new();
    let heads = heads(&connection)?;
    while let Some(row) = rows.next().map_err(unreadable)? {
        walk.take(row)?;
        if heads.contains_key(&walk.seq) {
            hashes.insert(walk.seq, walk.hash);
        }
    }
    if let Some((from, hole)) = walk.holes.first_key_value() {
        return Err(Bad { seq: *from, why: Why::NotRemoved(hole.said_by) });
    }
    let mut verified = Verified {
        records: walk.records,
        pruned: walk.pruned,
        end: walk.seq,
        hash: hex::encode(walk.hash),
        from_until_us: walk.from.zip(walk.until),
        heads: heads.len() as u64,
        head: None,
        keys: Vec::new(),
        lost: walk.lost,
    };
    for (seq, head) in heads {
        let bad = |why| Err(Bad { seq, why });
        let by = hex::encode(&head.key);
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
        verified.head = Some(Head { seq, hash: hex::encode(&head.hash), key: by });
    }
    // Whoever removes has signed heads too, that of its own record at once.
    for (seq, by) in removers {
        if !verified.keys.contains(&hex::encode(&by)) {
            return Err(Bad { seq, why: Why::OtherKey(hex::encode(&by)) });
        }
        if verified.head.as_ref().is_none_or(|head| head.seq < seq) {
            return Err(Bad { seq, why: Why::Pruning("no head is signed for it") });
        }
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

fn heads(connection: &Connection) -> Result<BTreeMap<u64, Signed>, Bad> {
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

/// A run of records that were removed.
struct Hole {
    run: Run,
    hash: [u8; 32],
    said_by: u64,
    key: Vec<u8>,
}

/// The runs that signed records say were removed, by their first number. That those records are of the chain is found by the walk.
fn holes(connection: &Connection, key: Option<&[u8]>) -> Result<BTreeMap<u64, Hole>, Bad> {
    let mut query =
        connection.prepare("SELECT seq, record FROM audit WHERE kind = ?1 ORDER BY seq").map_err(unreadable)?;
    let rows = query
        .query_map([PRUNED], |r| Ok((r.get::<_, i64>(0)?.unsigned_abs(), r.get::<_, String>(1)?)))
        .map_err(unreadable)?;
    let mut holes = BTreeMap::new();
    for row in rows {
        let (seq, text) = row.map_err(unreadable)?;
        let bad = |why| Err(Bad { seq, why });
        let Ok(record) = serde_json::from_str::<Record>(&text) else { return bad(Why::Changed) };
        let Ok(said) = serde_json::from_str::<Said>(&record.detail) else {
            return bad(Why::Pruning("does not say which"));
        };
        let by = hex::decode(&said.key).unwrap_or_default();
        if key.is_some_and(|k| k != by) {
            return bad(Why::OtherKey(said.key));
        }
        let signed = retention::signed_text(seq, &record.previous, &said.runs);
        let signature = hex::decode(&said.signature).unwrap_or_default();
        if UnparsedPublicKey::new(&ED25519, &by).verify(signed.as_bytes(), &signature).is_err() {
            return bad(Why::Pruning("its signature is not good"));
        }
        if said.count != retention::count(&said.runs) || said.runs.iter().any(|r| r.from > r.to || r.to >= seq) {
            return bad(Why::Pruning("numbers that cannot be"));
        }
        for run in said.runs {
            let hash = hex::decode(&run.hash).ok().and_then(|h| h.try_into().ok());
            let Some(hash) = hash else { return bad(Why::Pruning("a hash that is none")) };
            holes.insert(run.from, Hole { run, hash, said_by: seq, key: by.clone() });
        }
    }
    Ok(holes)
}

/// How far the check has come.
struct Walk {
    seq: u64,
    hash: [u8; 32],
    records: u64,
    pruned: u64,
    /// Those that were not come to.
    holes: BTreeMap<u64, Hole>,
    from: Option<u64>,
    until: Option<u64>,
    lost: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { seq: 0, hash: NO_HASH, records: 0, pruned: 0, holes: BTreeMap::new(), from: None, until: None, lost: 0 }
    }
}

impl Walk {
    /// Over records that were removed, as far as the next one that is there. Several runs may follow one another.
    fn pass_holes(&mut self, next: u64) {
        while self.seq + 1 < next
            && let Some(hole) = self.holes.remove(&(self.seq + 1))
        {
            self.pruned += hole.run.to - hole.run.from + 1;
            (self.seq, self.hash) = (hole.run.to, hole.hash);
        }
    }

    fn take(&mut self, row: &rusqlite::Row<'_>) -> Result<(), Bad> {
        let seq = row.get::<_, i64>(0).map_err(unreadable)?.unsigned_abs();
        self.pass_holes(seq);
        let expected = self.seq + 1;
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
        if record.previous != hex::encode(self.hash) || record.seq != seq {
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
        self.records += 1;
        self.from = self.from.or(Some(record.utc_us));
        self.until = Some(record.utc_us);
        self.lost += record.lost;
        Ok(())
    }
}
