//! Sends the chain to an audit repository: DICOM audit messages (PS3.15 annex A.5) in syslog (RFC 5424) over TLS (RFC 5425).
//!
//! The chain in the database is the spool: nothing is kept a second time, and a record waits there for as long as the repository is
//! away. A cursor in the same database says up to which record the repository can be believed to have it. It moves when a
//! connection came to its end in order ([`wire`]), never because a write succeeded: syslog has no acknowledgement. After any other end the
//! whole batch is sent again, so that the repository may have a record twice and never lacks one that the cursor has passed, as far
//! as it writes down what it reads before it reads on. Each message carries the record, its number and its hash: [`reconcile()`] finds in what
//! the repository has kept which are missing, doubled or not what they were.
//!
//! Loss policy: none is dropped here. Records that wait and the age of the oldest are figures.

mod message;
mod reconcile;
mod spool;
mod wire;

pub use reconcile::{Found, Received, ReconcileError, reconcile, resend};

pub(crate) use spool::{Cursor, SCHEMA, sent, write_cursor};

use crate::config::{Config, ConfigError, StoreAt};
use crate::figures::{Figures, ReasonLabels};
use crate::store::{Row, Store};
use message::Sender;
use spool::{Batch, Spool};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use trocar_proto::units::WallMicros;

/// How often the chain is looked at while nothing waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The wait after a failure: doubled each time up to the longest.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(60)];
/// A repository that has been away for so long is warned of, and again after as long.
const AWAY: Duration = Duration::from_secs(600);

/// Where the audit repository is, and who this node is for it. Files are read at every connection, so that they can be changed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `HOST:PORT`; syslog over TLS has 6514.
    pub address: String,
    /// The name that its certificate has to have; the host of `address` where left out.
    pub server_name: Option<String>,
    /// PEM file with the authorities that may vouch for its certificate.
    pub ca: PathBuf,
    /// PEM files with this node's certificate chain and key. Without them the repository does not know who sends.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Syslog facility, 0 to 23; 10 is "security/authorization".
    pub facility: u8,
    /// Syslog APP-NAME, 1 to 48 printable ASCII characters.
    pub app_name: String,
}

impl Repository {
    /// What the types do not say.
    pub(crate) fn check(&self, store: &StoreAt) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        let port = self.address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|p| p.parse().ok()).is_none_or(|p: u16| p == 0) {
            return bad("audit.export.address", "HOST:PORT, e.g. audit.hospital.example:6514");
        }
        if wire::server_name(self).is_none() {
            return bad("audit.export.server_name", "a DNS name or an address");
        }
        if self.facility > 23 {
            return bad("audit.export.facility", "0 to 23; 10 is security/authorization");
        }
        if !(1..=48).contains(&self.app_name.len()) || !self.app_name.bytes().all(|b| b.is_ascii_graphic()) {
            return bad("audit.export.app_name", "1 to 48 printable ASCII characters without spaces");
        }
        if *store == StoreAt::Memory {
            return bad("audit.export", "a store in a file: it is what the records wait in");
        }
        Ok(())
    }
}

/// The task that sends.
pub(crate) struct Exporter {
    repository: Repository,
    spool: Spool,
    sender: Sender,
    store: Store,
    figures: Arc<Figures>,
    /// Since when nothing gets there, and when that was said last.
    away: Option<(Instant, Instant)>,
}

impl Exporter {
    /// Of a node that has a repository; its configuration has been checked.
    pub(crate) fn new(config: &Config, store: Store, figures: Arc<Figures>) -> Option<Self> {
        let repository = config.audit_export.clone()?;
        let StoreAt::File(path) = &config.store else { return None };
        let sender = Sender::new(&repository, &config.issuer, config.realm.as_str());
        Some(Self { repository, spool: Spool::new(path), sender, store, figures, away: None })
    }

    /// For ever.
    pub(crate) async fn run(mut self) {
        let mut pause = BACK_OFF[0];
        loop {
            match self.send_some().await {
                Ok(true) => pause = BACK_OFF[0],
                Ok(false) => sleep(LOOK_EVERY).await,
                Err((reason, what)) => {
                    self.figures.export_failures.get_or_create(&ReasonLabels { reason }).inc();
                    self.complain(reason, &what);
                    sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF[1]);
                }
            }
        }
    }

    /// One connection with as many records as fit into it; false where nothing waits.
    async fn send_some(&mut self) -> Result<bool, (&'static str, String)> {
        let spool = self.spool.clone();
        let batch = tokio::task::spawn_blocking(move || spool.next()).await;
        let batch = batch.map_err(|e| ("store", e.to_string()))?.map_err(|e| ("store", e.to_string()))?;
        self.show(&batch);
        let Some(last) = batch.rows.last() else { return Ok(false) };
        let cursor = Cursor { from: batch.from, seq: last.seq, hash: last.hash.clone(), at: crate::app::wall_clock() };
        let messages: Vec<Vec<u8>> = batch.rows.iter().map(|r| wire::frame(&self.sender.message(r))).collect();
        wire::deliver(&self.repository, &messages).await.map_err(|e| (e.reason(), e.to_string()))?;
        self.figures.export_confirmed.inc_by(messages.len() as u64);
        let moved = self.store.write(vec![Row::Audit(crate::audit::Work::Sent(cursor))]).await;
        moved.map_err(|e| ("store", format!("the cursor could not be moved, so these records are sent again: {e}")))?;
        if let Some((since, _)) = self.away.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(address = self.repository.address, seconds, "the audit repository takes records again");
        }
        self.figures.export_failing.set(0);
        self.figures.export_waiting.set(batch.waiting.saturating_sub(messages.len() as u64).cast_signed());
        Ok(true)
    }

    fn show(&self, batch: &Batch) {
        let age = batch.oldest_us.map_or(0, |us| crate::app::wall_clock().0.saturating_sub(us) / 1_000_000);
        self.figures.export_waiting.set(batch.waiting.cast_signed());
        self.figures.export_oldest_s.set(age.cast_signed());
    }

    fn complain(&mut self, reason: &'static str, what: &str) {
        let now = Instant::now();
        let (since, said) = self.away.unwrap_or((now, now));
        let is_first = self.away.is_none();
        let again = now.duration_since(said) >= AWAY;
        self.away = Some((since, if again { now } else { said }));
        self.figures.export_failing.set(1);
        if is_first || again {
            tracing::warn!(
                address = self.repository.address,
                reason,
                away_s = now.duration_since(since).as_secs(),
                waiting = self.figures.export_waiting.get(),
                "the audit repository does not get the records, which wait in the database: {what}"
            );
        }
    }
}

/// A record as it waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Its number.
    pub(crate) seq: u64,
    /// When it happened.
    pub(crate) at: WallMicros,
    /// What it says.
    pub(crate) record: super::Record,
    /// Its bytes as they were hashed.
    pub(crate) text: String,
    /// Their hash, in hex.
    pub(crate) hash: String,
}

#[cfg(test)]
mod tests;
