//! Adds records to the chain, in the store's own transactions.

use super::retention::{self, Prune};
use super::{Entry, FORMAT, NO_HASH, Record, Work, export, gates};
use crate::token::TokenKeyError;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use trocar_proto::units::WallMicros;

/// The chain's tables. `kind`, `session` and `at_us` repeat what the record says, for searching; a check compares them.
pub(crate) const SCHEMA: &str = "
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, kind TEXT NOT NULL, session TEXT, participant TEXT, record TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_session ON audit (session, seq);
CREATE TABLE audit_heads (
    seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, at_us INTEGER NOT NULL, key BLOB NOT NULL, signature BLOB NOT NULL
) STRICT;
";

/// A head is signed after so many records at the latest, and when the store is opened and closed.
pub(crate) const HEAD_EVERY: u64 = 64;

/// The node's audit key.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    /// From an Ed25519 private key in PKCS#8 DER.
    pub(crate) fn new(pkcs8: &[u8]) -> Result<Self, TokenKeyError> {
        Ed25519KeyPair::from_pkcs8(pkcs8).map(Self).map_err(|_| TokenKeyError)
    }

    #[cfg(test)]
    pub(crate) fn sign_text(&self, text: &str) -> Vec<u8> {
        self.0.sign(text.as_bytes()).as_ref().to_vec()
    }
}

/// What a head's signature is over.
pub(super) fn head_text(seq: u64, hash: &[u8], at_us: i64) -> String {
    format!("trocar-audit-head-1\n{seq}\n{}\n{at_us}", hex::encode(hash))
}

/// The end of the chain.
pub(crate) struct Chain {
    seq: u64,
    hash: [u8; 32],
    /// The newest record whose head is signed.
    signed: u64,
    signer: Option<Signer>,
    /// What chrony said last.
    offset: super::clock::Offset,
}

impl Chain {
    /// Finds the end. The last record has to be what its hash says; the whole chain is checked by `trocar audit verify`.
    ///
    /// # Errors
    /// What is wrong with the last record, or why it cannot be read.
    pub(crate) fn open(
        connection: &Connection,
        signer: Option<Signer>,
        offset: super::clock::Offset,
    ) -> Result<Self, String> {
        connection.execute_batch(export::SCHEMA).map_err(|e| e.to_string())?;
        connection.execute_batch(gates::SCHEMA).map_err(|e| e.to_string())?;
        let last: Option<(i64, String, [u8; 32])> = connection
            .query_row("SELECT seq, record, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })
            .optional()
            .map_err(|e| e.to_string())?;
        let signed: i64 = connection
            .query_row("SELECT coalesce(max(seq), 0) FROM audit_heads", [], |r| r.get(0))
            .map_err(|e| e.to_string())?;
        let (seq, hash) = match last {
            None => (0, NO_HASH),
            Some((seq, record, hash)) if hash_of(&record) == hash => (seq.unsigned_abs(), hash),
            Some((seq, ..)) => return Err(format!("audit record {seq} is not what its hash says")),
        };
        if signed.unsigned_abs() > seq {
            return Err(format!("the audit chain ends at record {seq}, but a head was signed for record {signed}"));
        }
        Ok(Self { seq, hash, signed: signed.unsigned_abs(), signer, offset })
    }

    /// Writes one record. The caller's transaction may still fail: see [`Self::mark`].
    pub(crate) fn add(&mut self, t: &Transaction<'_>, entry: &Entry, lost: u64) -> Result<(), rusqlite::Error> {
        let record = self.record(entry, lost);
        let text = serde_json::to_string(&record).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        let hash = hash_of(&text);
        t.execute(
            "INSERT INTO audit (seq, at_us, kind, session, participant, record, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                as_i64(record.seq),
                as_i64(record.utc_us),
                record.kind,
                record.session,
                record.participant,
                text,
                hash
            ],
        )?;
        (self.seq, self.hash) = (record.seq, hash);
        if self.seq - self.signed >= HEAD_EVERY {
            self.sign(t, entry.at)?;
        }
        Ok(())
    }

    /// Does what else the tables are asked for.
    pub(crate) fn work(&mut self, t: &Transaction<'_>, work: &Work) -> Result<(), rusqlite::Error> {
        match work {
            Work::Sent(cursor) => export::write_cursor(t, cursor),
            Work::Prune(prune) => self.prune(t, prune),
            Work::GatesTold(last) => gates::told(t, *last),
        }
    }

    /// Removes records, and says so in a record that the node's key signs. Without a key none is removed.
    fn prune(&mut self, t: &Transaction<'_>, prune: &Prune) -> Result<(), rusqlite::Error> {
        let Some(signer) = &self.signer else { return Ok(()) };
        if !prune.remove(t, self.seq)? {
            return Ok(());
        }
        let (seq, previous) = (self.seq + 1, hex::encode(self.hash));
        let text = retention::signed_text(seq, &previous, &prune.runs);
        let (key, signature) = (signer.0.public_key(), signer.0.sign(text.as_bytes()));
        let detail = retention::detail(&prune.runs, &hex::encode(key.as_ref()), &hex::encode(signature.as_ref()));
        let entry = Entry { at: prune.at, ..Entry::now(retention::PRUNED).saying(detail) };
        self.add(t, &entry, 0)?;
        self.sign(t, prune.at)
    }

    fn record(&self, e: &Entry, lost: u64) -> Record {
        Record {
            format: FORMAT,
            seq: self.seq + 1,
            previous: hex::encode(self.hash),
            utc_us: e.at.0,
            clock_offset_us: self.offset.get(),
            kind: e.kind.to_owned(),
            session: e.session.as_ref().map(ToString::to_string),
            patient: e.patient.clone(),
            participant: e.participant.as_ref().map(ToString::to_string),
            name: e.name.clone(),
            role: e.role.map(|r| r.name().to_owned()),
            realm: e.realm.as_ref().map(ToString::to_string),
            feed: e.feed.as_ref().map(ToString::to_string),
            leg: e.leg.as_ref().map(ToString::to_string),
            duration_us: e.duration_us,
            detail: e.detail.clone(),
            lost,
        }
    }

    /// Signs the newest record, where there is a key and something new.
    pub(crate) fn sign(&mut self, t: &Connection, at: WallMicros) -> Result<(), rusqlite::Error> {
        let Some(signer) = self.signer.as_ref().filter(|_| self.seq > self.signed) else { return Ok(()) };
        let at_us = as_i64(at.0);
        let signature = signer.0.sign(head_text(self.seq, &self.hash, at_us).as_bytes());
        t.execute(
            "INSERT INTO audit_heads (seq, hash, at_us, key, signature) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![as_i64(self.seq), self.hash, at_us, signer.0.public_key().as_ref(), signature.as_ref()],
        )?;
        self.signed = self.seq;
        Ok(())
    }

    /// Where the chain ends, to come back to when a transaction fails.
    pub(crate) const fn mark(&self) -> (u64, [u8; 32], u64) {
        (self.seq, self.hash, self.signed)
    }

    /// Back to there.
    pub(crate) const fn reset(&mut self, (seq, hash, signed): (u64, [u8; 32], u64)) {
        (self.seq, self.hash, self.signed) = (seq, hash, signed);
    }
}

/// SHA-256 of a record's bytes.
pub(super) fn hash_of(record: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, record.as_bytes()).as_ref());
    out
}

/// SQLite's integers are signed; neither numbers nor microseconds come near the bound.
fn as_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
