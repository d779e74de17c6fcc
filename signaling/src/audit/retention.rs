//! How long records are kept, by class; nothing is removed unless that was configured.
//!
//! Removed records leave a hole, and a record of the kind `audit-pruned` that closes it: for each run of numbers the hash of the
//! last record of the run, which the first one after the hole names as the one before it. The node's audit key signs what that record says, with
//! its own number and place, so that nobody else can close a hole, and it is kept for ever. What a record that was removed said is gone; that it
//! was there, when it went and that nothing else went is not.

use super::export;
use super::verify::{Bad, open};
use rusqlite::{Connection, Transaction};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use trocar_proto::units::WallMicros;

/// The kind of the record that says what was removed.
pub(super) const PRUNED: &str = "audit-pruned";
/// Records that one record of that kind removes.
const MOST_RECORDS: u64 = 5_000;
/// Runs that it names.
const MOST_RUNS: usize = 100;
/// How often records are looked for whose time is over.
pub(super) const EVERY: Duration = Duration::from_secs(3_600);
/// Microseconds of a day.
const DAY_US: u64 = 86_400_000_000;

/// What a record is about, for how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Who saw or published what of whom, who was there, sessions.
    Access,
    /// Who was refused.
    Denial,
    /// Consent that was given or withdrawn.
    Consent,
    /// Starts, stops, accounts, keys, and whatever is none of the others.
    System,
}

impl Class {
    /// Of a kind of record; none of those that are kept for ever.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        let access =
            ["view-", "feed.", "participant", "session-", "joined", "invited", "token-granted", "break-glass-"];
        if kind.starts_with("audit-") || kind.starts_with("gate-") {
            None
        } else if kind.contains("denied") {
            Some(Self::Denial)
        } else if kind.starts_with("consent") {
            Some(Self::Consent)
        } else if access.iter().any(|k| kind.starts_with(k)) {
            Some(Self::Access)
        } else {
            Some(Self::System)
        }
    }
}

/// Days that records are kept, by class; what is none is kept for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of [`Class::Access`].
    pub access_days: Option<u32>,
    /// Of [`Class::Denial`].
    pub denial_days: Option<u32>,
    /// Of [`Class::Consent`].
    pub consent_days: Option<u32>,
    /// Of [`Class::System`].
    pub system_days: Option<u32>,
}

impl Retention {
    /// Whether anything is ever removed.
    #[must_use]
    pub const fn is_forever(&self) -> bool {
        self.access_days.is_none()
            && self.denial_days.is_none()
            && self.consent_days.is_none()
            && self.system_days.is_none()
    }

    /// Names a number of days that is none.
    pub(crate) fn check(&self) -> Result<(), crate::config::ConfigError> {
        let all = [
            ("audit.retention.access_days", self.access_days),
            ("audit.retention.denial_days", self.denial_days),
            ("audit.retention.consent_days", self.consent_days),
            ("audit.retention.system_days", self.system_days),
        ];
        match all.into_iter().find(|(_, days)| *days == Some(0)) {
            Some((field, _)) => {
                Err(crate::config::ConfigError { field, expected: "1 day or more; left out: for ever" })
            }
            None => Ok(()),
        }
    }

    fn days(&self, kind: &str) -> Option<u32> {
        match Class::of(kind)? {
            Class::Access => self.access_days,
            Class::Denial => self.denial_days,
            Class::Consent => self.consent_days,
            Class::System => self.system_days,
        }
    }

    /// Whether the time of a record is over.
    fn is_over(&self, kind: &str, at_us: u64, now: WallMicros) -> bool {
        self.days(kind).is_some_and(|days| at_us.saturating_add(u64::from(days) * DAY_US) < now.0)
    }
}

/// A run of records that follow one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// The first.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
    /// Hash of the last, in hex.
    pub(super) hash: String,
}

/// What the record of the kind [`PRUNED`] says, in its detail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// How many records were removed.
    pub(super) count: u64,
    /// Which.
    pub(super) runs: Vec<Run>,
    /// Who says so: an Ed25519 public key in hex.
    pub(super) key: String,
    /// Its signature over [`signed_text`], in hex.
    pub(super) signature: String,
}

/// What the signature is over: what was removed, and in which record that is said.
pub(super) fn signed_text(seq: u64, previous: &str, runs: &[Run]) -> String {
    let runs: String = runs.iter().map(|r| format!("{} {} {}\n", r.from, r.to, r.hash)).collect();
    format!("trocar-audit-pruned-1\n{seq}\n{previous}\n{runs}")
}

/// How many records that is.
pub(super) fn count(runs: &[Run]) -> u64 {
    runs.iter().map(|r| r.to.saturating_sub(r.from).saturating_add(1)).fold(0, u64::saturating_add)
}

pub(super) fn detail(runs: &[Run], key: &str, signature: &str) -> String {
    let said = Said { count: count(runs), runs: runs.to_vec(), key: key.to_owned(), signature: signature.to_owned() };
    // Numbers and hex cannot fail to be written.
    serde_json::to_string(&said).unwrap_or_default()
}

/// Records to remove.
#[derive(Debug, Clone)]
pub(crate) struct Prune {
    pub(super) runs: Vec<Run>,
    pub(super) at: WallMicros,
}

impl Prune {
    /// Removes them, with the heads signed for them; false where they are not there as they were planned, or the chain's end is among
    /// them: then nothing is removed.
    pub(super) fn remove(&self, t: &Transaction<'_>, end: u64) -> Result<bool, rusqlite::Error> {
        let mut gone = 0;
        for run in &self.runs {
            let span = (run.from.cast_signed(), run.to.cast_signed());
            let counted =
                "SELECT count(*), (SELECT hash FROM audit WHERE seq = ?2) FROM audit WHERE seq BETWEEN ?1 AND ?2";
            let (count, hash): (i64, Option<Vec<u8>>) = t.query_row(counted, span, |r| Ok((r.get(0)?, r.get(1)?)))?;
            let is_whole = count.unsigned_abs() == run.to.saturating_sub(run.from) + 1;
            if run.to >= end || !is_whole || hash.is_none_or(|h| hex::encode(&h) != run.hash) {
                return Ok(false);
            }
            gone += count;
        }
        for run in &self.runs {
            let span = (run.from.cast_signed(), run.to.cast_signed());
            t.execute("DELETE FROM audit WHERE seq BETWEEN ?1 AND ?2", span)?;
            t.execute("DELETE FROM audit_heads WHERE seq BETWEEN ?1 AND ?2", span)?;
        }
        Ok(gone > 0)
    }
}

/// What is to be removed now, some thousand records at most. Where records are exported, none goes before it was.
///
/// # Errors
/// Where the store cannot be read.
pub(crate) fn plan(store: &Path, keep: &Retention, exported: bool, now: WallMicros) -> Result<Option<Prune>, Bad> {
    let connection = open(store)?;
    planned(&connection, keep, exported, now).map_err(super::verify::unreadable)
}

fn planned(
    connection: &Connection,
    keep: &Retention,
    exported: bool,
    now: WallMicros,
) -> Result<Option<Prune>, rusqlite::Error> {
    let end: i64 = connection.query_row("SELECT coalesce(max(seq), 0) FROM audit", [], |r| r.get(0))?;
    let sent = if exported { export::sent(connection)?.cast_signed() } else { i64::MAX };
    let bound = sent.min(end - 1);
    let mut query = connection.prepare("SELECT seq, kind, at_us, hash FROM audit WHERE seq <= ?1 ORDER BY seq")?;
    let mut rows = query.query([bound])?;
    let mut runs: Vec<Run> = Vec::new();
    let mut records = 0;
    while let Some(row) = rows.next()?.filter(|_| records < MOST_RECORDS) {
        let (kind, at_us) = (row.get::<_, String>(1)?, row.get::<_, i64>(2)?.unsigned_abs());
        if !keep.is_over(&kind, at_us, now) {
            continue;
        }
        let (seq, hash) = (row.get::<_, i64>(0)?.unsigned_abs(), hex::encode(&row.get::<_, Vec<u8>>(3)?));
        let is_full = runs.len() == MOST_RUNS;
        match runs.last_mut() {
            Some(run) if run.to + 1 == seq => (run.to, run.hash) = (seq, hash),
            _ if is_full => break,
            _ => runs.push(Run { from: seq, to: seq, hash }),
        }
        records += 1;
    }
    Ok((!runs.is_empty()).then_some(Prune { runs, at: now }))
}

/// Removes for ever what was kept long enough.
pub(crate) async fn keep_for(keep: Retention, path: std::path::PathBuf, exported: bool, store: crate::store::Store) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // As many as there are, a bounded number in each transaction: others want to write meanwhile.
        let mut before = 0;
        while let Some(prune) = plan_beside(path.clone(), keep, exported).await {
            let (removed, first) = (count(&prune.runs), prune.runs.first().map_or(0, |r| r.from));
            if first <= before {
                tracing::error!(record = first, "an audit record whose time is over is still there");
                break;
            }
            before = first;
            match store.write(vec![crate::store::Row::Audit(super::Work::Prune(prune))]).await {
                Ok(()) => tracing::info!(removed, "audit records were removed, as [audit.retention] says"),
                Err(error) => {
                    tracing::error!(%error, "audit records whose time is over could not be removed");
                    break;
                }
            }
        }
    }
}

async fn plan_beside(path: std::path::PathBuf, keep: Retention, exported: bool) -> Option<Prune> {
    let now = crate::app::wall_clock();
    let planned = tokio::task::spawn_blocking(move || plan(&path, &keep, exported, now)).await.ok()?;
    planned.unwrap_or_else(|error| {
        tracing::error!(%error, "the audit chain cannot be read for [audit.retention]");
        None
    })
}
