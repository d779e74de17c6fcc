//! What survives a restart: sessions, invitations, participants, and the audit chain. One SQLite file in WAL mode, one thread
//! that writes, one bounded queue to it.
//!
//! Loss policy of the queue: a write that somebody waits for is refused with [`StoreError::Busy`] when the queue is full;
//! a record that nobody waits for is dropped, counted, and missed by the chain itself ([`crate::audit`]).

use crate::audit::{self, Chain, Entry, Offset, Signer};
use crate::break_glass;
use crate::config::StoreAt;
use crate::identity;
use crate::secret::SecretHash;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;
use trocar_proto::session::break_glass::BrokenGlass;
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// `PRAGMA application_id`: marks a SQLite file as ours.
const APPLICATION_ID: i64 = 0x5472_6f63;
/// `PRAGMA user_version`: the schema below.
const SCHEMA_VERSION: i64 = 5;
/// Writes that may wait for the thread.
const QUEUE: usize = 256;

const SCHEMA: &str = "
CREATE TABLE sessions (
    session TEXT PRIMARY KEY, title TEXT NOT NULL, created_us INTEGER NOT NULL, closed_us INTEGER, patient TEXT
) STRICT;
CREATE TABLE invitations (
    secret_sha256 BLOB PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions, role TEXT NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT;
CREATE TABLE consents (
    session TEXT PRIMARY KEY REFERENCES sessions, document TEXT NOT NULL, taken_us INTEGER NOT NULL
) STRICT;
CREATE TABLE participants (
    session TEXT NOT NULL REFERENCES sessions, participant TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
    realm TEXT NOT NULL, cnf TEXT, joined_us INTEGER NOT NULL, removed_us INTEGER, organisation TEXT, account TEXT,
    PRIMARY KEY (session, participant)
) STRICT;
";

/// From schema version 1 to 2.
const FROM_1_TO_2: &str = "ALTER TABLE participants ADD COLUMN organisation TEXT; PRAGMA user_version = 2;";
/// From schema version 2 to 3, with the chain's tables. The table `events` of before stays as it is: it has no chain.
const FROM_2_TO_3: &str = "ALTER TABLE sessions ADD COLUMN patient TEXT;
CREATE TABLE consents (
    session TEXT PRIMARY KEY REFERENCES sessions, document TEXT NOT NULL, taken_us INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 3;";
/// From schema version 3 to 5, with the tables of accounts.
const FROM_3_TO_5: &str = "ALTER TABLE participants ADD COLUMN account TEXT; PRAGMA user_version = 5;";

/// Why the store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("{path}: cannot be opened: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The lock file beside it cannot be made.
    #[error("{path}: cannot be locked: {source}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{path}: another process uses this store")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A SQLite file of something else.
    #[error("{path}: is a database of another application")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A schema that this version does not know.
    #[error("{path}: has schema version {found}, this program knows version {known}")]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// What is known.
        known: i64,
    },
    /// SQLite's own check found damage, or a value cannot be read.
    #[error("{path}: is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found first.
        what: String,
    },
    /// The thread could not be started.
    #[error("the store's thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The queue of writes is full.
    #[error("the store is busy")]
    Busy,
    /// The store has stopped.
    #[error("the store has stopped")]
    Stopped,
    /// SQLite refused a write.
    #[error("SQLite: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// One row to write.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Session {
        session: SessionId,
        title: String,
        patient: Option<String>,
        created: WallMicros,
    },
    SessionClosed {
        session: SessionId,
        at: WallMicros,
    },
    Invitation {
        hash: SecretHash,
        session: SessionId,
        role: Role,
        expires: WallMicros,
    },
    Participant(StoredParticipant),
    ParticipantRemoved {
        session: SessionId,
        participant: ParticipantId,
        at: WallMicros,
    },
    /// In the place of the document before.
    Consent {
        session: SessionId,
        document: String,
        taken: WallMicros,
    },
    Event(Box<Entry>),
    /// Of the chain's own tables.
    Audit(audit::Work),
    /// Changes of accounts up to that one are in the audit chain.
    AccountChangesTold {
        last: i64,
    },
    /// The review of that break-glass join is in the audit chain.
    BreakGlassTold {
        participant: ParticipantId,
    },
}

/// A participant as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredParticipant {
    pub(crate) session: SessionId,
    pub(crate) participant: ParticipantId,
    pub(crate) name: String,
    pub(crate) organisation: Option<String>,
    pub(crate) role: Role,
    pub(crate) realm: RealmId,
    pub(crate) cnf: Option<CertHash>,
    pub(crate) joined: WallMicros,
    /// Who it is, where that was asked for.
    pub(crate) account: Option<String>,
    /// Why, and for how long, where it came in by break-glass.
    pub(crate) broken_glass: Option<BrokenGlass>,
}

/// A consent document as it was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredConsent {
    pub(crate) session: SessionId,
    pub(crate) document: String,
    pub(crate) taken: WallMicros,
}

/// What was in the file when it was opened: open sessions, and who and what belongs to them.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Id, title, patient.
    pub(crate) sessions: Vec<(SessionId, String, Option<String>)>,
    pub(crate) invitations: Vec<(SecretHash, SessionId, Role, WallMicros)>,
    pub(crate) participants: Vec<StoredParticipant>,
    pub(crate) consents: Vec<StoredConsent>,
}

enum Command {
    Write { rows: Vec<Row>, reply: Option<oneshot::Sender<Result<(), StoreError>>> },
    Stop { reply: oneshot::Sender<()> },
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    queue: SyncSender<Command>,
    lost: Arc<AtomicU64>,
}

impl Store {
    /// Opens or creates the database, reads what is in it and starts the thread.
    /// `signer` signs heads of the audit chain; `offset` is what chrony says of this machine's clock.
    pub(crate) fn open(
        at: &StoreAt,
        now: WallMicros,
        signer: Option<Signer>,
        offset: Offset,
    ) -> Result<(Self, Stored), StoreError> {
        let (mut connection, lock, path) = match at {
            StoreAt::Memory => {
                let path = PathBuf::from(":memory:");
                let open = |source| StoreError::Open { path: path.clone(), source };
                (Connection::open_in_memory().map_err(open)?, None, path)
            }
            StoreAt::File(path) => {
                let lock = lock_beside(path)?;
                let open = |source| StoreError::Open { path: path.clone(), source };
                (Connection::open(path).map_err(open)?, Some(lock), path.clone())
            }
        };
        prepare(&mut connection, &path)?;
        let stored = load(&connection, &path, now)?;
        let chain = Chain::open(&connection, signer, offset).map_err(|what| StoreError::Damaged { path, what })?;
        let (queue, commands) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { connection, chain, lost: Arc::clone(&lost) };
        std::thread::Builder::new()
            .name("signaling-store".to_owned())
            .spawn(move || {
                let stopped = writer.run(&commands);
                writer.close();
                // Unlocked before the answer: whoever waits for it may open the file again at once.
                drop(lock);
                if let Some(reply) = stopped {
                    let _ = reply.send(());
                }
            })
            .map_err(StoreError::Thread)?;
        Ok((Self { queue, lost }, stored))
    }

    /// Counts records that were not written: the next one that is names them.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Writes the rows in one transaction and waits until they are on disk, and everything that was queued before them.
    pub(crate) async fn write(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Command::Write { rows, reply: Some(reply) }).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Writes the rows some time; false where they were dropped because the queue is full or the store has stopped.
    pub(crate) fn write_later(&self, rows: Vec<Row>) -> bool {
        self.queue.try_send(Command::Write { rows, reply: None }).is_ok()
    }

    /// Waits until everything queued is written and the file is closed.
    pub(crate) async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.clone();
        // The queue may be full: this send may block, so it goes to a thread that may.
        let sent = tokio::task::spawn_blocking(move || queue.send(Command::Stop { reply }).is_ok()).await;
        if matches!(sent, Ok(true)) {
            let _ = answer.await;
        }
    }
}

/// The database of a node that runs, for whoever changes accounts beside it; of one that does not, with the lock that keeps it from starting.
pub(crate) fn open_beside(path: &Path) -> Result<(Connection, Option<File>), StoreError> {
    match lock_beside(path) {
        Ok(lock) => {
            let open = |source| StoreError::Open { path: path.to_owned(), source };
            let mut connection = Connection::open(path).map_err(open)?;
            prepare(&mut connection, path)?;
            Ok((connection, Some(lock)))
        }
        Err(StoreError::InUse { .. }) => Ok((open_again(path)?, None)),
        Err(e) => Err(e),
    }
}

/// A second connection to a database that this version has prepared.
pub(crate) fn open_again(path: &Path) -> Result<Connection, StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(open)?;
    let found = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map_err(open)?;
    if found != SCHEMA_VERSION {
        return Err(StoreError::UnknownVersion { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
    Ok(connection)
}

/// Keeps a second process away. SQLite's own locks would let it in between two writes.
fn lock_beside(path: &Path) -> Result<File, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let file = file.map_err(|source| StoreError::Lock { path: lock_path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Lock { path: lock_path, source }),
    }
}

/// Checks whose file it is and that it is whole, and makes the schema where it is new.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let pragma = |c: &Connection, name: &str| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma(connection, "application_id").map_err(open)?;
    let version = pragma(connection, "user_version").map_err(open)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(open)?;
    let is_new = application == 0 && version == 0 && tables == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(StoreError::NotOurs { path: path.to_owned() });
    }
    if !is_new && !(1..=SCHEMA_VERSION).contains(&version) {
        return Err(StoreError::UnknownVersion { path: path.to_owned(), found: version, known: SCHEMA_VERSION });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(open)?;
    if is_new {
        let transaction = connection.transaction().map_err(open)?;
        transaction.execute_batch(SCHEMA).map_err(open)?;
        transaction.execute_batch(audit::SCHEMA).map_err(open)?;
        transaction.execute_batch(identity::SCHEMA).map_err(open)?;
        transaction.execute_batch(break_glass::SCHEMA).map_err(open)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(open)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(open)?;
        return transaction.commit().map_err(open);
    }
    let verdict: Option<String> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).optional().map_err(open)?;
    if let Some(text) = verdict.filter(|text| text != "ok") {
        return Err(StoreError::Damaged { path: path.to_owned(), what: text });
    }
    let transaction = connection.transaction().map_err(open)?;
    if version == 1 {
        transaction.execute_batch(FROM_1_TO_2).map_err(open)?;
    }
    if version <= 2 {
        transaction.execute_batch(audit::SCHEMA).map_err(open)?;
        transaction.execute_batch(FROM_2_TO_3).map_err(open)?;
    }
    if version <= 3 {
        transaction.execute_batch(identity::SCHEMA).map_err(open)?;
        transaction.execute_batch(FROM_3_TO_5).map_err(open)?;
    }
    if version == 4 {
        transaction.execute_batch(identity::FROM_4_TO_5).map_err(open)?;
    }
    transaction.execute_batch(break_glass::SCHEMA).map_err(open)?;
    transaction.commit().map_err(open)?;
    Ok(())
}

fn load(connection: &Connection, path: &Path, now: WallMicros) -> Result<Stored, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let sql = |e: rusqlite::Error| damaged(e.to_string());
    let mut stored = Stored::default();
    connection.execute("DELETE FROM invitations WHERE expires_us <= ?1", [as_i64(now)]).map_err(sql)?;
    let mut query =
        connection.prepare("SELECT session, title, patient FROM sessions WHERE closed_us IS NULL").map_err(sql)?;
    let rows = query.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get(2)?))).map_err(sql)?;
    for row in rows {
        let (session, title, patient) = row.map_err(sql)?;
        stored.sessions.push((SessionId::new(session).map_err(|e| damaged(e.to_string()))?, title, patient));
    }
    let mut query = connection
        .prepare(
            "SELECT i.secret_sha256, i.session, i.role, i.expires_us FROM invitations i JOIN sessions s USING (session)
             WHERE s.closed_us IS NULL",
        )
        .map_err(sql)?;
    let rows = query
        .query_map([], |r| {
            Ok((r.get::<_, [u8; 32]>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?, r.get::<_, i64>(3)?))
        })
        .map_err(sql)?;
    for row in rows {
        let (hash, session, role, expires) = row.map_err(sql)?;
        let session = SessionId::new(session).map_err(|e| damaged(e.to_string()))?;
        let role = role.parse().map_err(|_| damaged(format!("unknown role {role}")))?;
        stored.invitations.push((SecretHash(hash), session, role, WallMicros(expires.unsigned_abs())));
    }
    stored.participants = load_participants(connection, path)?;
    let mut query = connection
        .prepare(
            "SELECT c.session, c.document, c.taken_us FROM consents c JOIN sessions s USING (session)
             WHERE s.closed_us IS NULL",
        )
        .map_err(sql)?;
    let rows = query.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get::<_, i64>(2)?))).map_err(sql)?;
    for row in rows {
        let (session, document, taken) = row.map_err(sql)?;
        let session = SessionId::new(session).map_err(|e| damaged(e.to_string()))?;
        stored.consents.push(StoredConsent { session, document, taken: WallMicros(taken.unsigned_abs()) });
    }
    Ok(stored)
}

fn load_participants(connection: &Connection, path: &Path) -> Result<Vec<StoredParticipant>, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let sql = |e: rusqlite::Error| damaged(e.to_string());
    let mut query = connection
        .prepare(
            "SELECT p.session, p.participant, p.name, p.role, p.realm, p.cnf, p.joined_us,
                    p.organisation, p.account, b.reason, b.until_us
             FROM participants p JOIN sessions s USING (session) LEFT JOIN break_glass b USING (participant)
             WHERE s.closed_us IS NULL AND p.removed_us IS NULL",
        )
        .map_err(sql)?;
    let mut rows = query.query([]).map_err(sql)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        let text = |i: usize| row.get::<_, String>(i).map_err(sql);
        let cnf: Option<String> = row.get(5).map_err(sql)?;
        let joined: i64 = row.get(6).map_err(sql)?;
        let glass: (Option<String>, Option<i64>) = (row.get(9).map_err(sql)?, row.get(10).map_err(sql)?);
        out.push(StoredParticipant {
            session: SessionId::new(text(0)?).map_err(|e| damaged(e.to_string()))?,
            participant: ParticipantId::new(text(1)?).map_err(|e| damaged(e.to_string()))?,
            name: text(2)?,
            organisation: row.get(7).map_err(sql)?,
            role: text(3)?.parse().map_err(|_| damaged("unknown role".to_owned()))?,
            realm: RealmId::new(text(4)?).map_err(|e| damaged(e.to_string()))?,
            cnf: cnf.map(|c| c.parse()).transpose().map_err(|_| damaged("bad certificate hash".to_owned()))?,
            joined: WallMicros(joined.unsigned_abs()),
            account: row.get(8).map_err(sql)?,
            broken_glass: glass
                .0
                .zip(glass.1)
                .map(|(reason, until)| BrokenGlass { reason, until: WallMicros(until.unsigned_abs()) }),
        });
    }
    Ok(out)
}

/// Puts what nobody waits for into one transaction, as far as it is queued already: a disk that is slow is asked less often. What
/// came first that does not belong there.
fn gather(commands: &Receiver<Command>, rows: &mut Vec<Row>) -> Option<Command> {
    while rows.len() < QUEUE {
        match commands.try_recv() {
            Ok(Command::Write { rows: more, reply: None }) => rows.extend(more),
            Ok(other) => return Some(other),
            Err(_) => return None,
        }
    }
    None
}

/// What the thread has.
struct Writer {
    connection: Connection,
    chain: Chain,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// One transaction for each command, until it is stopped or nobody is left to command. Whom to tell that it has stopped.
    fn run(&mut self, commands: &Receiver<Command>) -> Option<oneshot::Sender<()>> {
        let mut next = None;
        while let Some(command) = next.take().or_else(|| commands.recv().ok()) {
            match command {
                Command::Write { mut rows, reply } => {
                    if reply.is_none() {
                        next = gather(commands, &mut rows);
                    }
                    let records = rows.iter().filter(|r| matches!(r, Row::Event(_))).count() as u64;
                    let result = self.write_rows(&rows).map_err(StoreError::from);
                    match (reply, result) {
                        (Some(reply), result) => {
                            let _ = reply.send(result);
                        }
                        (None, Err(error)) => {
                            self.lost.fetch_add(records, Ordering::Relaxed);
                            tracing::error!(%error, "a record could not be written");
                        }
                        (None, Ok(())) => {}
                    }
                }
                Command::Stop { reply } => return Some(reply),
            }
        }
        None
    }

    fn write_rows(&mut self, rows: &[Row]) -> Result<(), rusqlite::Error> {
        let (mark, lost) = (self.chain.mark(), self.lost.swap(0, Ordering::Relaxed));
        let mut told = lost;
        let result = (|| {
            // Accounts are written beside this: whoever reads first and writes then would be refused, not made to wait.
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for row in rows {
                match row {
                    Row::Event(entry) => self.chain.add(&transaction, entry, std::mem::take(&mut told))?,
                    Row::Audit(work) => self.chain.work(&transaction, work)?,
                    row => write_row(&transaction, row)?,
                }
            }
            transaction.commit()
        })();
        if result.is_err() {
            self.chain.reset(mark);
            told = lost;
        }
        // Said by none of these rows: by the next record.
        self.lost.fetch_add(told, Ordering::Relaxed);
        result
    }

    fn close(self) {
        let Self { connection, mut chain, .. } = self;
        if let Err(error) = chain.sign(&connection, crate::app::wall_clock()) {
            tracing::error!(%error, "the head of the audit chain could not be signed");
        }
        if let Err((_, error)) = connection.close() {
            tracing::error!(%error, "the store could not be closed");
        }
    }
}

fn write_row(t: &Transaction<'_>, row: &Row) -> Result<(), rusqlite::Error> {
    match row {
        Row::Session { session, title, patient, created } => t.execute(
            "INSERT INTO sessions (session, title, patient, created_us) VALUES (?1, ?2, ?3, ?4)",
            params![session.as_str(), title, patient, as_i64(*created)],
        ),
        Row::SessionClosed { session, at } => {
            t.execute("DELETE FROM invitations WHERE session = ?1", params![session.as_str()])?;
            t.execute("UPDATE sessions SET closed_us = ?2 WHERE session = ?1", params![session.as_str(), as_i64(*at)])
        }
        Row::Invitation { hash, session, role, expires } => t.execute(
            "INSERT INTO invitations (secret_sha256, session, role, expires_us) VALUES (?1, ?2, ?3, ?4)",
            params![hash.0, session.as_str(), role.name(), as_i64(*expires)],
        ),
        Row::Participant(p) => {
            if let Some(glass) = &p.broken_glass {
                break_glass::add(t, p, glass)?;
            }
            t.execute(
            "INSERT INTO participants (session, participant, name, role, realm, cnf, joined_us, organisation, account)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                p.session.as_str(),
                p.participant.as_str(),
                p.name,
                p.role.name(),
                p.realm.as_str(),
                p.cnf.map(|c| c.to_string()),
                as_i64(p.joined),
                p.organisation,
                p.account
            ],
        )
        }
        Row::ParticipantRemoved { session, participant, at } => t.execute(
            "UPDATE participants SET removed_us = ?3 WHERE session = ?1 AND participant = ?2",
            params![session.as_str(), participant.as_str(), as_i64(*at)],
        ),
        Row::Consent { session, document, taken } => t.execute(
            "INSERT OR REPLACE INTO consents (session, document, taken_us) VALUES (?1, ?2, ?3)",
            params![session.as_str(), document, as_i64(*taken)],
        ),
        Row::AccountChangesTold { last } => t.execute("DELETE FROM account_changes WHERE id <= ?1", params![last]),
        Row::BreakGlassTold { participant } => break_glass::told(t, participant),
        // Of the chain, which its writer adds.
        Row::Event(_) | Row::Audit(_) => Ok(0),
    }
    .map(|_| ())
}

/// SQLite's integers are signed; wall clocks stay below 2^63 µs for 292,000 years.
pub(crate) fn as_i64(at: WallMicros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}
