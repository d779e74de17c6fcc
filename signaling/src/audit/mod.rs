//! Signaling's audit chain: who came, who was refused, who was given which token, who saw which picture of whose operation, when
//! and for how long. Every record is bound to the one before it, and heads of the chain are signed.
//!
//! A record is one JSON object; its hash is SHA-256 over exactly those bytes, which begin with the number of the record and
//! the hash of the one before (64 zeros in the first), so that nobody has to agree on how JSON is written to check it. Numbers
//! count from 1 without gaps. A head is the hash of a record signed with the node's audit key (Ed25519): a chain that was made anew
//! from some record on does not have the heads that were signed before.
//!
//! What this finds: a record that was changed, removed, moved or added, and a tail that was cut off behind a signed head. What it
//! cannot find by itself: a whole database that was replaced by an older copy of itself. Note the newest head somewhere else against that:
//! `trocar audit verify` prints it.
//!
//! Loss policy: records go through the store's bounded queue; what finds it full is counted, in the figure
//! `trocar_signaling_audit_records_dropped` and in the member `lost` of the next record that is written. A view begins when its record is on
//! disk, and is refused where that cannot be had.
//!
//! - [`Record`]: what a record says. [`verify`]: names the first bad record. [`search`]: finds and hands out records.
//! - [`Repository`]: where records are sent as DICOM audit messages; [`reconcile()`]: which have arrived there.
//! - [`Retention`]: how long which are kept.
//! - [`ingest`]: takes gates' chains, so that signaling's own vouches for them.

mod chain;
mod clock;
mod export;
mod gates;
mod retention;
mod search;
mod verify;

pub use export::{Found, Received, ReconcileError, Repository, reconcile, resend};
pub use gates::{GateBad, GateChain, IngestError, Seal, SealError, Taken, ingest, merged_story, seal, verify_gates};
pub use retention::{Class, Retention};
pub use search::{Filter, Row, as_csv, as_json, as_story, search};
pub use verify::{Bad, Head, Verified, Why, verify};

pub(crate) use chain::{Chain, SCHEMA, Signer};
pub(crate) use clock::{Offset, watch_offset};
pub(crate) use export::{Cursor, Exporter};
pub(crate) use gates::tell;
#[cfg(test)]
pub(crate) use retention::plan;
pub(crate) use retention::{Prune, keep_for};

use crate::figures::Figures;
use crate::store::{Row as StoreRow, Store};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trocar_proto::session::ids::{FeedId, LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// The version of [`Record`].
pub const FORMAT: u32 = 1;
/// What stands for the hash before the first record.
pub(crate) const NO_HASH: [u8; 32] = [0; 32];

/// One record, as it is hashed. What is null is not known or does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// From 1 without gaps.
    pub seq: u64,
    /// Hash of the record before, in hex.
    pub previous: String,
    /// When it happened, by this machine's wall clock: microseconds since 1970.
    pub utc_us: u64,
    /// How far that clock is from its reference, in microseconds, as chrony says; null where chrony says nothing.
    pub clock_offset_us: Option<i64>,
    /// What happened: `started`, `stopped`, `session-created`, `session-closed`, `invited`, `joined`, `token-granted`, `denied`,
    /// `socket-denied`, `realm-denied`, `participant.joined`, `participant.left`, `participant-removed`, `feed.announced`, `feed.removed`, `view-started`,
    /// `view-switched`, `view-ended`, `consent-given`, `consent-withdrawn`, `certificates-renewed`, `certificates-unusable`,
    /// `certificate-revoked`, `certificate-refused`, `token-replayed`, `break-glass-joined`, `break-glass-ended`,
    /// `break-glass-reviewed`, `audit-pruned`, `gate-audit`,
    /// `gate-audit-alarm`, `link-test`.
    pub kind: String,
    /// The session.
    pub session: Option<String>,
    /// The patient that the session is about, as `ASSIGNER|VALUE`.
    pub patient: Option<String>,
    /// Whose act it was.
    pub participant: Option<String>,
    /// How that participant is shown.
    pub name: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// Its hospital network.
    pub realm: Option<String>,
    /// The feed.
    pub feed: Option<String>,
    /// The leg that carried it.
    pub leg: Option<String>,
    /// How long it lasted, of what ends: microseconds.
    pub duration_us: Option<u64>,
    /// What more there is to say.
    pub detail: String,
    /// Records that could not be written before this one.
    pub lost: u64,
}

/// What the chain's tables are asked for beside new records, each in a transaction of the store.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// The repository has everything up to there.
    Sent(Cursor),
    /// The time of these records is over.
    Prune(Prune),
    /// What came of gates' chains up to that note is in the chain.
    GatesTold(i64),
}

/// What is to be recorded; number, hashes and clock are added when it is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) at: WallMicros,
    pub(crate) kind: &'static str,
    pub(crate) session: Option<SessionId>,
    pub(crate) patient: Option<String>,
    pub(crate) participant: Option<ParticipantId>,
    pub(crate) name: Option<String>,
    pub(crate) role: Option<Role>,
    pub(crate) realm: Option<RealmId>,
    pub(crate) feed: Option<FeedId>,
    pub(crate) leg: Option<LegId>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) detail: String,
}

impl Entry {
    /// Something that happened now.
    pub(crate) fn now(kind: &'static str) -> Self {
        Self { at: crate::app::wall_clock(), kind, ..Self::default() }
    }

    /// In a session.
    pub(crate) fn of(mut self, session: &SessionId) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// By somebody.
    pub(crate) fn by(mut self, participant: &ParticipantId) -> Self {
        self.participant = Some(participant.clone());
        self
    }

    /// With more to say.
    pub(crate) fn saying(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// The way into the chain for whoever may not wait.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    store: Store,
    figures: Arc<Figures>,
    lost: Arc<AtomicU64>,
}

impl Journal {
    /// Into that store.
    pub(crate) fn new(store: Store, figures: Arc<Figures>) -> Self {
        let lost = store.lost();
        Self { store, figures, lost }
    }

    /// Has it written soon; where the queue is full it is counted.
    pub(crate) fn note(&self, entry: Entry) {
        if !self.store.write_later(vec![StoreRow::Event(Box::new(entry))]) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.figures.records_dropped.inc();
        }
    }
}
